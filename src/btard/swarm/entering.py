"""Into a run that began without us: probation, and our first round; anew where the swarm goes back before that."""

from collections.abc import Awaitable, Callable

import trio

from btard.errors import Removed
from btard.net import Hub
from btard.rules.seal import Seal
from btard.rules.succession import roster_of
from btard.swarm.application import Application
from btard.swarm.candidacy import Candidacy
from btard.swarm.handover import Handovers
from btard.swarm.ledger import Ledger
from btard.swarm.links import Directory, Links
from btard.swarm.membership import Membership
from btard.swarm.restoring import Start
from btard.swarm.transfers import Transfers


async def join_midway(
    member: Membership,
    hub: Hub,
    directory: Directory,
    ledger: Ledger,
    transfers: Transfers,
    application: Application,
) -> Start:
    """Return where we begin as a member of a run that began without us, once probation is over.

    Raises:
        Banned, Removed: it ended otherwise.
        Refused, Unreachable: nobody shows that the run is the ticket's, or gives us its state.
    """
    seal = await application.find_seal()
    return await _come_through(member, hub, directory, ledger, transfers, application, seal, Candidacy.run)


async def join_again(member: Membership, hub: Hub, directory: Directory, ledger: Ledger, transfers: Transfers) -> Start:
    """Return where we begin as a member after all, where the round by which we became one is run again.

    Raises:
        Banned, Removed: we do not become one.
    """
    seal = ledger.newest_seal()
    if member.application is None or seal is None:
        raise Removed("the swarm went back to a round before this peer was a member; it may come back")
    entered = seal
    return await _come_through(
        member, hub, directory, ledger, transfers, member.application, seal, lambda item: item.run_again(entered)
    )


async def _come_through(
    member: Membership,
    hub: Hub,
    directory: Directory,
    ledger: Ledger,
    transfers: Transfers,
    application: Application,
    seal: Seal,
    run: Callable[[Candidacy], Awaitable[Start]],
) -> Start:
    """Be a candidate among the members that a seal names, and write down where we begin."""
    handovers = Handovers(member.config, hub, roster_of(seal))
    links = Links(hub, member.identity.peer_id, directory, lambda: handovers.roster, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(links.run)
        start = await run(Candidacy(member, hub, transfers, application, handovers, links.follow))
        nursery.cancel_scope.cancel()
    application.keep_state(start.work.state)
    ledger.record_seal(start.work.state.seal)
    ledger.sync()
    return start

"""Into a run that began without us: probation, and our first round."""

import trio

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.succession import roster_of
from btard.swarm.charging import find_goodbyes
from btard.swarm.frames import SignedTuple
from btard.swarm.joining.application import Application
from btard.swarm.joining.candidacy import Candidacy
from btard.swarm.joining.handover import Handovers
from btard.swarm.ledger import Ledger
from btard.swarm.links import Directory, Links
from btard.swarm.membership import Membership
from btard.swarm.records import encode_work
from btard.swarm.restoring import Start
from btard.swarm.state import Work
from btard.swarm.transfers import Transfers
from btard.wire import encode_seal


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
    handovers = Handovers(member.config, hub, roster_of(seal))
    links = Links(hub, member.identity.peer_id, directory, lambda: handovers.roster, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(links.run)
        nursery.start_soon(handovers.ask_all)
        start = await Candidacy(member, hub, transfers, application, handovers, links.follow).run()
        nursery.cancel_scope.cancel()
    await _write_down(start.work, ledger, application)
    return start


async def _write_down(work: Work, ledger: Ledger, application: Application) -> None:
    """Let a restart begin where we do: without the place in the run it would take the seal for that of the genesis.

    Who has signed the seal and is not in it has left with it, by a goodbye, before we were taken in.
    """
    seal = work.state.seal
    leavers = work.leavers | {PeerId(item.signer) for item in work.signatures if item.signer not in seal.roster}
    line = await application.find_line(SignedTuple(encode_seal(seal), tuple(work.signatures)))
    application.keep_state(work.state)
    ledger.record_line(line)
    ledger.record_seal(seal, find_goodbyes(work.round - 1, work.state.attempt, leavers))
    ledger.record_work(work.round, work.attempt, encode_work(work, 0))
    ledger.sync()

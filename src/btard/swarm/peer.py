"""
A peer: the nursery that owns every protocol, and how it comes into a run, for the first time or again.

The tasks: the hub's links, the links kept to all members, recovery, the watch over our own event
loop, the transfers of bulk data, and the rounds themselves (swarm/rounds.py).
"""

from collections.abc import Sequence
from functools import partial

import trio

from btard.errors import Banned, BtardError, ConfigError, NetworkError, Refused, Removed
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.seal import SealSignature
from btard.rules.succession import roster_of
from btard.swarm.events import Resumed, RunStarted
from btard.swarm.genesis import Founder, SignedSeal, Started, ask_for_genesis, make_hello, serve_genesis
from btard.swarm.joining.entering import join_midway
from btard.swarm.joining.telling_lineage import LineTeller
from btard.swarm.joining.telling_state import StateTeller
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import was_put_aside
from btard.swarm.links import Directory, Links, dial_founder
from btard.swarm.membership import Membership
from btard.swarm.plain import PlainRun
from btard.swarm.restoring import Start, restore
from btard.swarm.rounds import Rounds
from btard.swarm.state import State, Work, compute_state_root
from btard.swarm.transfers import Transfers
from btard.swarm.updates import Updates
from btard.wire import compute_seal_digest

__all__ = ["Membership", "find_cause", "run_peer"]

ENDINGS: dict[str, type[BtardError]] = {"Banned": Banned, "Removed": Removed}
"""How one's part in a run ends for good, as the ledger names it."""
RETURNING = {"Removed", "left"}
"""After which one may come back as a stranger, with a new ticket and full probation."""


async def run_peer(member: Membership, hub: Hub, directory: Directory) -> State:
    """Take part in a run, from genesis or from where the data directory says we died; return the final state.

    The hub runs already.

    Raises:
        Banned, Removed: we are no member any more; the message says why.
        Undecided: the swarm could not agree within its bounds.
        Refused: the run has started, or our initial parameters differ.
        ConfigError: the data directory is no place to go on from; nothing was signed.
        Unreachable: neither the founder before genesis nor more than half of the members after a restart answer.
    """
    with open_ledger(member) as ledger:
        try:
            async with hub.lent(), trio.open_nursery() as nursery:
                state = await _take_part(member, hub, directory, ledger, nursery)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            cause = find_cause(group)
            if isinstance(cause, Banned | Removed):
                ledger.record_ending(type(cause).__name__, str(cause))
            raise cause from None
        return state


def open_ledger(member: Membership) -> Ledger:
    """Return the ledger of the data directory; a new one where we were removed or left, and may come back.

    What was signed before belongs to rounds that are over for certain: more than half went on without us.

    Raises:
        ConfigError: the directory is no place to go on from.
    """
    ledger = Ledger.create(member.data_dir, member.config, member.identity.peer_id)
    kind, _ = ledger.ending() or ("", "")
    if member.application is None or member.config.admission != "open" or kind not in RETURNING:
        return ledger
    with ledger:
        ledger.put_aside()
    return Ledger.create(member.data_dir, member.config, member.identity.peer_id)


def find_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one exception that explains a failed nursery: one of ours if there is any."""
    leaves = _leaves(group)
    return min(
        leaves, key=lambda leaf: 0 if isinstance(leaf, BtardError) else 1 if isinstance(leaf, KeyboardInterrupt) else 2
    )


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for item in error.exceptions for leaf in _leaves(item)]
    return [error]


async def _take_part(
    member: Membership, hub: Hub, directory: Directory, ledger: Ledger, nursery: trio.Nursery
) -> State:
    transfers = Transfers.open(member, hub, ledger)  # before genesis: others may begin earlier than we
    nursery.start_soon(member.conduct.accompany, hub)
    if member.config.defence == "none":
        return await _run_plain(member, hub, directory, ledger, nursery)
    LineTeller(hub, ledger)
    kind, reason = ledger.ending() or ("", "")
    if kind in ENDINGS:
        raise ENDINGS[kind](reason)
    updates = Updates(member.data_dir, ledger, member.disk or member.compute)
    aside = member.aside or member.compute
    nursery.start_soon(StateTeller(member.config, hub, ledger, member.snapshots, updates, aside).run)
    start = await _find_start(member, hub, directory, ledger, transfers, updates)
    if kind:
        return start.work.state
    rounds = Rounds(member, hub, directory, ledger, nursery, transfers, updates, start)
    del start  # it refers to all vectors of the first round, which the rounds let go of when that is over
    return await rounds.run()


async def _find_start(
    member: Membership, hub: Hub, directory: Directory, ledger: Ledger, transfers: Transfers, updates: Updates
) -> Start:
    """Return where we go on, or begin."""
    start = await member.compute.run(lambda: restore(member.config, member.workload, ledger, updates, member.snapshots))
    if start is None:
        start = await _come_in(member, hub, directory, ledger, transfers)
        member.observe(RunStarted(start.work.roster.members))
        return start
    work = start.work
    if (first := next(ledger.seals())).round == 0:
        serve_genesis(hub, SignedSeal(first, find_founders_signature(ledger, member.config)))
    member.observe(Resumed(work.round, work.attempt, work.roster.members, work.state))
    return start


async def _come_in(member: Membership, hub: Hub, directory: Directory, ledger: Ledger, transfers: Transfers) -> Start:
    """Return our first start: with all others at the genesis, or midway, where the run has begun without us."""
    application = None if ledger.newest_seal() else member.application
    is_late = application is not None and was_put_aside(member.data_dir)  # then a founder founds nothing again
    if application is not None and not is_late and not member.is_founder:
        is_late = await application.has_begun()
    if application is None or not is_late:
        try:
            has_begun = ledger.newest_seal() is not None
            work = Work(member.config, await begin(member, hub, directory, ledger), None)
            return Start(work, may_have_spoken=has_begun)
        except (Refused, NetworkError) as error:  # it may have begun meanwhile, or nobody told us in time that it had
            if application is None or (isinstance(error, NetworkError) and not hub.connected):
                raise
            if not isinstance(error, Started) and not await application.has_begun():
                raise
    return await join_midway(member, hub, directory, ledger, transfers, application)


async def begin(member: Membership, hub: Hub, directory: Directory, ledger: Ledger) -> State:
    """Return the state that round 1 starts from, once seal 0 is known and on disk.

    Raises:
        Refused: the run has started without us, or our initial parameters differ.
        NetworkError: the founder cannot be reached.
    """
    parameters = await member.compute.run(member.workload.initial_parameters)
    root = compute_state_root(parameters, member.config.chunk_size)
    sealed = await meet(member, hub, directory, ledger, root)
    roster = roster_of(sealed.seal)
    digest = compute_seal_digest(sealed.seal)
    return State(1, 0, roster, parameters, member.workload.initial_optimizer(), sealed.seal, digest, digest)


async def meet(member: Membership, hub: Hub, directory: Directory, ledger: Ledger, root: bytes) -> SignedSeal:
    """Return seal 0: as the founder when enough peers are warm, else by asking the founder."""

    def keep(sealed: SignedSeal) -> None:
        ledger.record_seal(sealed.seal)
        ledger.record_signatures(0, [SealSignature(member.config.founder_id, sealed.signature)])
        ledger.sync()

    if ledger.newest_seal() is not None:  # died after it had learnt of seal 0, and before it said anything
        sealed = find_genesis(ledger, member.config)
    elif member.is_founder:
        founder = Founder(member.identity, member.config, hub, root, keep)
        founder.admit(make_hello(member.identity, member.config, root, member.gradient_ms))
        sealed = await founder.genesis()
    else:
        hello = make_hello(member.identity, member.config, root, member.gradient_ms)
        reach = member.reach_founder or partial(dial_founder, hub, directory, member.config.founder_id)
        sealed = await ask_for_genesis(hub, member.config, hello, reach)
        keep(sealed)
    serve_genesis(hub, sealed)
    return sealed


def find_genesis(ledger: Ledger, config: RunConfig) -> SignedSeal:
    """Return seal 0 as the founder signed it, from the ledger."""
    return SignedSeal(next(ledger.seals()), find_founders_signature(ledger, config))


def find_founders_signature(ledger: Ledger, config: RunConfig) -> bytes:
    """Return the founder's signature over seal 0, from the ledger."""
    return next(item.signature for item in ledger.signatures(0) if item.signer == config.founder_id)


async def _run_plain(
    member: Membership, hub: Hub, directory: Directory, ledger: Ledger, nursery: trio.Nursery
) -> State:
    """Average without any protection, for comparison."""
    if ledger.newest_seal() is not None:
        raise ConfigError(f"{member.data_dir} already took part in this run; without defence nothing can be resumed")
    me = member.identity.peer_id
    plain = PlainRun(member.config, me, hub, member.workload, member.conduct, member.compute, member.observe)
    state = await begin(member, hub, directory, ledger)
    member.observe(RunStarted(state.roster.members))
    nursery.start_soon(Links(hub, me, directory, lambda: state.roster).run)
    return await plain.run(state)

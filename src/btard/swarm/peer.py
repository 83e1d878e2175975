"""
A peer: the nursery that owns every protocol, and the loop over rounds.

The tasks: the hub's links, the links kept to all members, recovery, the watch over our own event
loop, the transfers of bulk data, and the rounds themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from btard.errors import Banned, BtardError, ConfigError, LocalProtocolError, Removed, Undecided
from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.roster import Roster
from btard.rules.seal import SealSignature
from btard.swarm.broadcast import Broadcast
from btard.swarm.compute import Compute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Observer, RoundDone, RunStarted
from btard.swarm.exchange import Exchange, NewAttempt, Stalls
from btard.swarm.gather import Parts
from btard.swarm.genesis import Founder, SignedSeal, ask_for_genesis, make_hello, refuse_latecomers
from btard.swarm.ledger import Ledger
from btard.swarm.links import Directory, Links
from btard.swarm.plain import PlainRun
from btard.swarm.recovery import Recovery
from btard.swarm.round import close_run, run_round
from btard.swarm.scatter import Slices
from btard.swarm.services import WARM_UP_S, Deadlines, Services
from btard.swarm.state import State, Work, compute_state_root
from btard.swarm.workload import Workload
from btard.wire import compute_seal_digest

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Membership:
    """How a peer takes part in a run: who it is, what it trains, and where it keeps its ledger."""

    identity: Identity
    config: RunConfig
    workload: Workload
    data_dir: Path
    conduct: Conduct
    compute: Compute
    observe: Observer
    gradient_ms: int
    leave_after: int | None = None

    @property
    def is_founder(self) -> bool:
        """Whether we sign seal 0."""
        return self.identity.peer_id == self.config.founder_id


async def run_peer(member: Membership, hub: Hub, directory: Directory) -> State:
    """Take part in a run from genesis to its end; return the final state.

    The hub runs already; whoever is not the founder has a link to it.

    Raises:
        Banned, Removed: we are no member any more; the message says why.
        Undecided: the swarm could not agree within its bounds.
        Refused: the run has started, or our initial parameters differ.
    """
    try:
        with Ledger.create(member.data_dir, member.config, member.identity.peer_id) as ledger:
            async with trio.open_nursery() as nursery:
                state = await _take_part(member, hub, directory, ledger, nursery)
                nursery.cancel_scope.cancel()
            return state
    except BaseExceptionGroup as group:
        raise find_cause(group) from None


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
    if ledger.newest_seal() is not None:
        raise ConfigError(
            f"{member.data_dir} already took part in this run; resuming is not possible yet: use a new one"
        )
    parameters = member.workload.initial_parameters()
    root = compute_state_root(parameters, member.config.chunk_size)
    transfers = Transfers.open(member, hub, ledger)  # before genesis: others may begin earlier than we
    nursery.start_soon(member.conduct.accompany, hub)
    plain = _open_plain(member, hub) if member.config.defence == "none" else None
    sealed = await meet(member, hub, root)
    ledger.record_seal(sealed.seal)
    ledger.record_signatures(0, [SealSignature(member.config.founder_id, sealed.signature)])
    roster = Roster(tuple(PeerId(peer) for peer in sealed.seal.roster))
    digest = compute_seal_digest(sealed.seal)
    optimizer = member.workload.initial_optimizer()
    state = State(1, 0, roster, parameters, optimizer, sealed.seal, digest, digest)
    member.observe(RunStarted(roster.members))
    if plain is not None:
        nursery.start_soon(Links(hub, member.identity.peer_id, directory, lambda: roster).run)
        return await plain.run(state)
    return await Rounds(member, hub, directory, ledger, nursery, transfers, state).run()


def _open_plain(member: Membership, hub: Hub) -> PlainRun:
    me = member.identity.peer_id
    return PlainRun(member.config, me, hub, member.workload, member.conduct, member.compute, member.observe)


async def meet(member: Membership, hub: Hub, root: bytes) -> SignedSeal:
    """Return seal 0: as the founder when enough peers are warm, else by asking the founder."""
    hello = make_hello(member.identity, member.config, root, member.gradient_ms)
    if member.is_founder:
        founder = Founder(member.identity, member.config, hub, root)
        founder.admit(hello)
        return await founder.genesis()
    sealed = await ask_for_genesis(hub, member.config, member.config.founder_id, hello)
    refuse_latecomers(hub)
    return sealed


@dataclass(frozen=True)
class Transfers:
    """The services that receive: messages, slices, aggregates."""

    broadcast: Broadcast
    slices: Slices
    parts: Parts

    @classmethod
    def open(cls, member: Membership, hub: Hub, ledger: Ledger) -> "Transfers":
        """Begin to receive what belongs to round 1."""
        config = member.config
        broadcast = Broadcast(config, member.identity, hub, ledger, member.conduct)
        notify = broadcast.board.signal
        conduct = member.conduct

        def offers(number: int, peer: PeerId) -> bool:
            return conduct.sends_slice(number, peer) and conduct.publishes_slice(number)

        slices = Slices(config, hub, notify, offers, broadcast.is_member)
        transfers = cls(broadcast, slices, Parts(config, hub, notify, broadcast.is_member))
        transfers.slices.begin_round(0, config.genesis_size)
        transfers.parts.begin_attempt(0, 0, config.genesis_size)
        return transfers


class Rounds:
    """The loop over rounds, and the place in the run that its services share."""

    def __init__(
        self,
        member: Membership,
        hub: Hub,
        directory: Directory,
        ledger: Ledger,
        nursery: trio.Nursery,
        transfers: Transfers,
        state: State,
    ) -> None:
        config, delay_s = member.config, member.config.delay_s
        self._config, self._observe, self._hub = config, member.observe, hub
        self._broadcast = transfers.broadcast
        self._recovery = Recovery(config, self._broadcast, ledger, member.observe)
        stalls = Stalls(delay_s)
        self._services = Services(
            config,
            member.identity,
            member.workload,
            member.conduct,
            member.compute,
            ledger,
            self._broadcast,
            Exchange(self._broadcast, self._recovery, stalls, delay_s, nursery.start_soon),
            transfers.slices,
            transfers.parts,
            Deadlines.of(config, state.seal.gradient_ms),
            member.observe,
            nursery.start_soon,
            member.leave_after,
        )
        self._has_left = False
        self._work = Work(config, state, None)
        self._move_to(self._work)
        self._begin_round()
        links = Links(hub, member.identity.peer_id, directory, lambda: self._broadcast.place.roster)
        hub.on_connected = self._broadcast.resend
        for task in (self._recovery.run, stalls.run, links.run):
            nursery.start_soon(task)

    async def run(self) -> State:
        """Run all rounds and the closing COMMIT; return the final state."""
        with trio.move_on_after(WARM_UP_S):
            await self._hub.wait_connected(self._broadcast.others)
        while self._work.round <= self._config.rounds and not self._has_left:
            await self._run_one_round()
        return await self._close()

    async def _run_one_round(self) -> None:
        work, started = self._work, trio.current_time()
        try:
            state = await run_round(self._services, work)
        except NewAttempt as change:
            self._begin_attempt(change)
            return
        self._observe(
            RoundDone(
                work.round,
                work.attempt - work.first_attempt + 1,
                trio.current_time() - started,
                work.roster.members,
                state.assignments,
                state,
            )
        )
        self._work, work.previous = Work(self._config, state, work), None
        self._move_to(self._work)
        self._begin_round()

    async def _close(self) -> State:
        while not self._has_left:
            try:
                await close_run(self._services, self._work)
            except NewAttempt as change:
                self._begin_attempt(change)
                if self._work.round <= self._config.rounds:
                    return await self.run()
                continue
            break
        await self._linger()
        return self._work.state

    async def _linger(self) -> None:
        """Let our last messages out, and serve those who may still lack one."""
        with trio.move_on_after(2 * self._config.delay_s):  # some may take nothing any more
            await self._hub.flush()
        with trio.move_on_after(2 * self._config.delay_s):
            while self._hub.connected:  # noqa: ASYNC110  bounded above, and nobody else waits for the last link to go
                await trio.sleep(self._config.delay_s / 8)

    def _begin_attempt(self, change: NewAttempt) -> None:
        """Go on without those who leave, in this round or, if its CONFIRM was split, in the one before."""
        work, me = self._work, self._services.me
        if me in change.banned:
            raise Banned("the roster convicted this peer; the ledger has the proof")
        if me in change.removed:
            raise Removed("the roster went on without this peer, without blame: it was silent, late or different")
        if me in change.left:
            self._has_left = True
            return
        if change.resume_round == work.round - 1 and work.previous is not None:
            self._work = work.previous
        elif change.resume_round != work.round:
            raise LocalProtocolError(f"cannot resume round {change.resume_round} from round {work.round}")
        roster = work.roster.without(change.leaving)
        if len(roster) < self._config.min_roster:
            raise Undecided(f"only {len(roster)} members are left, fewer than min_roster; the swarm stops")
        self._work.begin_attempt(roster, work.banned | set(change.banned), work.attempt + 1, change.reason)
        self._move_to(self._work)

    def _move_to(self, work: Work) -> None:
        place = self._broadcast.place
        if place.attempt != work.attempt:
            place.serial = 0
        place.round, place.attempt, place.roster = work.round, work.attempt, work.roster

    def _begin_round(self) -> None:
        work = self._work
        self._services.slices.begin_round(work.round, len(work.roster))
        self._broadcast.board.forget(work.round - 1, work.attempt)

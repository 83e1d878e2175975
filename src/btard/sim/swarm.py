"""
One swarm in one process: every peer is the real peer, only its transport, clock and threads differ.

Who attacks is known here, where peers are made, and to the checkers; the peers' own code is told
nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from btard.errors import BtardError, NetworkError, Refused, Removed, Unreachable
from btard.identity import Context, Identity, PeerId, digest
from btard.net import Address, Delivery, Hub, MemoryNetwork, MemoryTransport, Terms, deliver_at_once
from btard.rules.config import RunConfig
from btard.rules.evidence import DepartureKind
from btard.sim.gradients import Machine, Pace
from btard.sim.joining import KeptStates, make_stranger
from btard.sim.power import RUNNING, PowerLoss
from btard.swarm.compute import Compute, InlineCompute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Event, RoundDone
from btard.swarm.goodbye import Goodbye
from btard.swarm.peer import Membership, find_cause, run_peer
from btard.swarm.restoring import NoSnapshots
from btard.swarm.state import State, compute_state_root
from btard.swarm.workload import Workload

REACH_TRIES = 60
"""How often a stranger dials everybody it has heard of, Δ apart, before it gives up."""
PROMISED_MS = 100
"""How long a gradient takes a peer without a pace, as it says: its gradients take no time."""
PARTING_S = 600.0
"""How long cheats may go on when all others have ended, in virtual seconds: one that nobody hears waits for a day."""


@dataclass
class PeerOutcome:
    """What became of one peer: its final state or the error that ended it, and all it observed."""

    index: int
    peer: PeerId
    state: State | None = None
    error: BaseException | None = None
    events: list[Event] = field(default_factory=list)
    crashes: int = 0
    restarts: int = 0
    comebacks: int = 0

    @property
    def departures(self) -> list[Departed]:
        """Who it saw leaving."""
        return [event for event in self.events if isinstance(event, Departed)]

    @property
    def rounds(self) -> list[RoundDone]:
        """The rounds it finished."""
        return [event for event in self.events if isinstance(event, RoundDone)]


@dataclass(frozen=True)
class Outcome:
    """What became of a swarm; ``byzantine`` holds the indices of peers that were given another conduct."""

    peers: tuple[PeerOutcome, ...]
    byzantine: frozenset[int]
    virtual_s: float

    @property
    def honest(self) -> tuple[PeerOutcome, ...]:
        """The peers whose conduct is the plain one."""
        return tuple(peer for peer in self.peers if peer.index not in self.byzantine)

    def departures(self, kind: DepartureKind) -> dict[int, Departed]:
        """Who left in that way, by index, as the honest peers saw it."""
        index = {peer.peer: peer.index for peer in self.peers}
        return {index[e.peer]: e for peer in self.honest for e in peer.departures if e.kind is kind}

    @property
    def state_roots(self) -> set[bytes]:
        """The final states of the honest peers; one on success."""
        return {compute_state_root(p.state.parameters, 64) for p in self.honest if p.state is not None}


class StaticDirectory:
    """Where everybody is, known from the start."""

    def __init__(self, addresses: Mapping[PeerId, Address]) -> None:
        self._addresses = addresses

    async def find_addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Return where ``peer`` listens."""
        return (self._addresses[peer],) if peer in self._addresses else ()


class SimulatedSwarm:
    """The peers of one simulation; ``conducts``, ``delivery``, ``crash`` and ``stop`` let the caller interfere.

    ``joins`` are strangers, numbered after the genesis roster, and when each comes, in virtual seconds; None waits for
    ``arrive``. Whoever is in ``comebacks`` and was removed, or has left, comes as a stranger so many seconds later.

    With ``paces`` gradients take time. With ``keeps_errors`` whatever ends a peer is its outcome; else a bug of ours
    ends the simulation.
    """

    def __init__(
        self,
        config: Mapping[str, object],
        make_workload: Callable[[], Workload],
        directory: Path,
        *,
        seed: int = 0,
        conducts: Mapping[int, Conduct] | None = None,
        delivery: Delivery = deliver_at_once,
        watch: Callable[[int, Event], None] = lambda index, event: None,
        leave_after: Mapping[int, int] | None = None,
        on_end: Callable[[PeerOutcome], None] = lambda outcome: None,
        keeps_errors: bool = False,
        joins: Mapping[int, float | None] | None = None,
        comebacks: Mapping[int, float] | None = None,
        paces: Mapping[int, Pace] | None = None,
    ) -> None:
        self._paces, self._machines = dict(paces or {}), dict[int, Machine]()
        self._joins = dict(joins or {})
        self._strangers = set(self._joins)
        self._arrivals = {index: trio.Event() for index, after_s in self._joins.items() if after_s is None}
        self._comebacks = dict(comebacks or {})
        self._members = members = int(str(config.get("genesis_size", 8)))
        size = members + len(self._joins)
        self._kept = {index: KeptStates() for index in range(size) if self._joins or self._comebacks}
        seeds = [digest(Context.EXPAND, b"simulated identity", f"{seed}/{index}".encode()) for index in range(size)]
        self.identities = [Identity(item) for item in seeds]
        workload = make_workload()
        self.config = RunConfig(
            **{  # type: ignore[arg-type]
                "founder": self.identities[0].peer_id.hex(),
                "genesis_size": members,
                "elements": workload.elements,
                "chunk_size": 8,
                "delay_s": 1.0,
                **config,
            }
        )
        self.network = MemoryNetwork(delivery)
        self.outcomes = [PeerOutcome(index, identity.peer_id) for index, identity in enumerate(self.identities)]
        self.conducts, self._make_workload, self._directory = dict(conducts or {}), make_workload, directory
        self._watch, self._leave_after = watch, dict(leave_after or {})
        self._on_end, self._keeps_errors = on_end, keeps_errors
        self._scopes = [trio.CancelScope() for _ in self.identities]
        self._everything = trio.CancelScope()
        self._running = {outcome.index for outcome in self.outcomes} - self.conducts.keys() - self._arrivals.keys()
        self._addresses: dict[PeerId, Address] = {}
        self._returns: dict[int, float | None] = {}
        self.before_restart: Callable[[int], None] = lambda index: None
        self.before_comeback: Callable[[PeerOutcome], None] = lambda outcome: None

    def arrive(self, index: int) -> None:
        """Let a stranger come that waits for this."""
        self._arrivals[index].set()
        if index not in self.conducts:
            self._running.add(index)

    def crash(self, index: int, restart_s: float | None = None) -> None:
        """Let a peer vanish at once; with ``restart_s`` it comes back that much later, on its old data directory."""
        self._returns[index] = restart_s
        self.outcomes[index].crashes += 1
        self.network.disconnect(self.identities[index].peer_id)
        self._scopes[index].cancel()
        if index in self._machines:
            self._machines[index].die()

    def stop(self) -> None:
        """End the simulation, whoever still runs."""
        self._everything.cancel()

    def find_address(self, index: int) -> Address:
        """Where a peer listens, or did before it died."""
        return self._addresses[self.identities[index].peer_id]

    def data_dir(self, index: int) -> Path:
        """Where a peer keeps its ledger."""
        return self._directory / f"peer-{index}"

    async def run(self) -> Outcome:
        """Run all peers to their ends."""
        started = trio.current_time()
        transports = [self._connect(outcome.index) for outcome in self.outcomes]
        with self._everything:
            async with trio.open_nursery() as nursery:
                for outcome, transport in zip(self.outcomes, transports, strict=True):
                    nursery.start_soon(self._run_one, outcome, transport)
        return Outcome(tuple(self.outcomes), frozenset(self.conducts), trio.current_time() - started)

    def _connect(self, index: int) -> MemoryTransport:
        terms = Terms(self.config.run_id, self.config.field_digests)
        transport = self.network.transport(self.identities[index], terms)
        self._addresses[self.identities[index].peer_id] = transport.address
        return transport

    async def _run_one(self, outcome: PeerOutcome, transport: MemoryTransport) -> None:
        RUNNING.set(outcome.index)
        await self._wait_to_come(outcome.index)
        await self._live_through(outcome, transport)
        while self._is_coming_back(outcome):
            pause_s = self._comebacks.pop(outcome.index)
            self.before_comeback(outcome)
            self.network.disconnect(outcome.peer)
            self._strangers.add(outcome.index)
            self._leave_after.pop(outcome.index, None)
            outcome.comebacks, outcome.error = outcome.comebacks + 1, None
            await trio.sleep(pause_s)
            self._scopes[outcome.index] = trio.CancelScope()
            await self._live_through(outcome, self._connect(outcome.index))
        self.network.disconnect(outcome.peer)
        self._on_end(outcome)
        self._running.discard(outcome.index)
        if not self._running:
            self._everything.relative_deadline = PARTING_S

    async def _wait_to_come(self, index: int) -> None:
        if index in self._arrivals:
            await self._arrivals[index].wait()
        else:
            await trio.sleep(self._joins.get(index) or 0.0)

    def _is_coming_back(self, outcome: PeerOutcome) -> bool:
        """Whether a peer is out of a run that goes on, for no fault of its own, and would be in it."""
        state = outcome.state
        has_left = outcome.error is None and state is not None and state.round <= self.config.rounds
        return outcome.index in self._comebacks and (has_left or isinstance(outcome.error, Removed))

    async def _live_through(self, outcome: PeerOutcome, transport: MemoryTransport) -> None:
        """Live until an end that is not a crash, or a crash for good."""
        await self._live(outcome, transport)
        while (restart_s := self._returns.pop(outcome.index, None)) is not None:
            await trio.sleep(restart_s)
            self.before_restart(outcome.index)
            self._scopes[outcome.index] = trio.CancelScope()
            outcome.restarts += 1
            await self._live(outcome, self._connect(outcome.index))

    async def _live(self, outcome: PeerOutcome, transport: MemoryTransport) -> None:
        """Run a peer until it ends or crashes; whatever a crash makes of its tasks is no error."""
        try:
            with self._scopes[outcome.index]:
                await self._take_part(outcome, transport)
        except* PowerLoss:
            pass
        except* Exception as group:
            if not self._keeps_errors:
                raise
            outcome.error = find_cause(group)
        if outcome.index in self._returns:
            outcome.error = None

    async def _take_part(self, outcome: PeerOutcome, transport: MemoryTransport) -> None:
        identity, directory = self.identities[outcome.index], StaticDirectory(self._addresses)
        hub = Hub(transport, identity.peer_id)

        kept, is_stranger = self._kept.get(outcome.index), outcome.index in self._strangers

        def observe(event: Event) -> None:
            outcome.events.append(event)
            if kept and isinstance(event, RoundDone) and event.round % self.config.state_interval == 0:
                kept.keep(event.result)
            self._watch(outcome.index, event)

        async def reach() -> None:
            await self._reach(hub)

        data_dir = self.data_dir(outcome.index)
        workload, compute, aside = self._start_machine(outcome.index)
        application = None
        if kept and is_stranger:
            application = make_stranger(self.config, identity, hub, workload, data_dir, compute, kept, reach)
        member = Membership(
            identity,
            self.config,
            workload,
            data_dir,
            self.conducts.get(outcome.index, Conduct()),
            compute,
            observe,
            gradient_ms=self.find_promise(outcome.index),
            disk=InlineCompute(),
            aside=aside,
            application=application,
            snapshots=kept or NoSnapshots(),
            goodbye=Goodbye(self._leave_after.get(outcome.index)),
        )
        member.data_dir.mkdir(parents=True, exist_ok=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            try:
                if is_stranger:
                    await reach()
                elif not member.is_founder and not outcome.restarts:
                    await hub.connect(*await self._find_founder(directory))
                outcome.state = await run_peer(member, hub, directory)
            except BtardError as error:
                outcome.error = error
            nursery.cancel_scope.cancel()

    def find_promise(self, index: int) -> int:
        """How many milliseconds a gradient takes a peer, as it says."""
        return self._paces[index].promised_ms if index in self._paces else PROMISED_MS

    def _start_machine(self, index: int) -> tuple[Workload, Compute, Compute]:
        """The training job of a peer, and what runs its heavy work: of its rounds, and beside them."""
        workload = self._make_workload()
        if index not in self._paces:
            return workload, InlineCompute(), InlineCompute()
        machine = self._machines[index] = Machine(workload, self._paces[index])
        return machine.workload, machine.compute, machine.aside

    async def _reach(self, hub: Hub) -> None:
        """Return once there is a link to somebody of the genesis roster; all of it is dialled.

        Raises:
            Unreachable: nobody of it is there.
        """
        for _ in range(REACH_TRIES):
            for identity in self.identities[: self._members]:
                with suppress(NetworkError, Refused):
                    await hub.connect(identity.peer_id, self._addresses[identity.peer_id])
            if hub.connected:
                return
            await trio.sleep(self.config.delay_s)
        raise Unreachable("nobody of those who began the run is there")

    async def _find_founder(self, directory: StaticDirectory) -> tuple[PeerId, Address]:
        founder = self.config.founder_id
        return founder, (await directory.find_addresses(founder))[0]


async def run_swarm(
    config: Mapping[str, object],
    make_workload: Callable[[], Workload],
    directory: Path,
    *,
    seed: int = 0,
    conducts: Mapping[int, Conduct] | None = None,
) -> Outcome:
    """Run one simulated swarm to its end and return what became of it."""
    return await SimulatedSwarm(config, make_workload, directory, seed=seed, conducts=conducts).run()

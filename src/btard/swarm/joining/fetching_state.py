"""
A newcomer comes to the state of the newest seal, and believes nothing on the way (design section 6, State transfer).

1. The seals from the snapshot's round to the newest: each is named by the next one, the newest by the line.
2. What the snapshot consists of: the roots must give the full state that its seal names, the leaves the roots.
3. The chunks, from all members at once, each against its leaf.
4. The aggregates since: the members' claims name them, and each step must lead to the state that its seal names.

A lie in 1 to 3 convicts its sender alone. In 4 a root is convicted by the step, and with it all who claimed it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import structlog
import trio
from torch import Tensor

from btard.errors import ConfigError, NetworkError, RemoteProtocolError
from btard.identity import PeerId
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.seal import Seal
from btard.swarm.compute import Compute
from btard.swarm.frames import Kind
from btard.swarm.joining.fetching_vectors import Meter, Vector, VectorFetcher, Wanted
from btard.swarm.joining.lineage import Line, Vouched
from btard.swarm.joining.replaying import Replay
from btard.swarm.joining.sources import Fault, Sources
from btard.swarm.joining.transfer_frames import (
    MAX_ANSWER,
    MAX_CLAIMS,
    Offer,
    Outline,
    OutlineQuestion,
    RoundsQuestion,
    Segment,
    TensorEntry,
)
from btard.swarm.state import combine_state_roots, compute_state_root
from btard.swarm.workload import OptimizerState, Workload
from btard.wire import compute_seal_digest, decode, decode_seal, encode

log = structlog.get_logger(__name__)

TRANSFER_DIRECTORY = "transfer"


@dataclass(frozen=True)
class Memory:
    """The optimizer's memory as it was fetched: how many steps, and the buffers by name."""

    step: int = 0
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a transfer is, in bytes; ``bytes_per_s`` counts what came over the network."""

    done: int
    total: int
    bytes_per_s: float


@dataclass(frozen=True)
class FetchedState:
    """x and the optimizer's memory as the round after ``head`` begins; the roster and the bans are in ``head``.

    ``base`` is the round of the snapshot, ``received`` and ``kept`` the bytes that came and that an earlier process
    had left; ``faults`` says who is no longer asked, and why.
    """

    head: Vouched
    parameters: Tensor
    optimizer: OptimizerState
    base: int
    received: int
    kept: int
    faults: Mapping[PeerId, Fault]


def ignore_progress(_progress: Progress) -> None:
    """Be the observer who is not interested."""


def forget_transfer(data_dir: Path) -> None:
    """Remove the files of a transfer, once the state is in a snapshot of our own; fetched tensors stay as they are."""
    for path in (data_dir / TRANSFER_DIRECTORY).glob("*.bin"):
        path.unlink(missing_ok=True)


class StateFetcher:
    """One transfer of the state that the newest seal of a verified line names, from members to whom there are links.

    What arrived stays in ``data_dir`` until ``forget_transfer``: killed at any time and begun again, it goes on.
    """

    def __init__(
        self,
        config: RunConfig,
        hub: Hub,
        workload: Workload,
        line: Line,
        sources: Sequence[PeerId],
        data_dir: Path,
        compute: Compute,
        on_progress: Callable[[Progress], None] = ignore_progress,
    ) -> None:
        self._config, self._hub, self._workload, self._compute = config, hub, workload, compute
        self._line, self._head = line, line.head.seal
        self._directory = data_dir / TRANSFER_DIRECTORY
        self._sources, self._meter = Sources(sources), Meter(lambda: on_progress(self._measure()))
        self._vectors = VectorFetcher(config, hub, compute, self._sources, self._meter)
        self._short_s = 3 * config.delay_s + 10.0

    def _measure(self) -> Progress:
        meter = self._meter
        seconds = trio.current_time() - meter.begun
        rate = meter.received / seconds if seconds > 0 else 0.0
        return Progress(meter.received + meter.kept, meter.needed, rate)

    async def fetch(self) -> FetchedState:
        """Return the state, once it is what the seal names.

        Raises:
            Unreachable: no source is left, or none has a snapshot; the message says what became of each.
            RemoteProtocolError: all of them lied.
            ConfigError: there is no room on the disk, or our own x_0 is another one.
        """
        offers = await self._collect_offers()
        for attempt, base in enumerate(self._rank(offers)):
            if attempt:
                self._sources.forgive()
            try:
                return await self._fetch_from(base, offers[base])
            except (RemoteProtocolError, NetworkError) as error:
                log.warning("a snapshot cannot be had; another one is tried", round=base, reason=str(error))
        raise self._sources.explain(f"a state that leads to round {self._head.round}")

    async def _fetch_from(self, base: int, holders: Sequence[PeerId]) -> FetchedState:
        seals = await self._vectors.ask_first(holders, lambda source: self._fetch_segment(source, base), "the seals")
        replay = Replay(self._config, self._workload, self._vectors, self._directory)
        self._meter.needed = await replay.prepare(seals[1:], holders)
        parameters, optimizer = await (self._fetch_snapshot(seals[0], holders) if base else self._begin_at_genesis())
        parameters, optimizer = await replay.run(parameters, optimizer)
        meter, faults = self._meter, dict(self._sources.faults)
        return FetchedState(self._line.head, parameters, optimizer, base, meter.received, meter.kept, faults)

    # --- which snapshot ---

    async def _collect_offers(self) -> Mapping[int, Sequence[PeerId]]:
        """Who has which snapshot, of those that the line reaches."""

        async def ask(source: PeerId) -> Offer:
            reply = await self._hub.request(source, Kind.OFFER, b"", timeout_s=self._short_s)
            return decode(reply.head, Offer, limit=MAX_ANSWER)

        holders: dict[int, list[PeerId]] = defaultdict(list)
        answers = await self._sources.ask_all(self._sources.live, ask, grace_s=2 * self._config.delay_s)
        for source in (each for each in self._sources.live if each in answers):
            for number in sorted(set(answers[source].snapshots)):
                if self._is_useful(number):
                    holders[number].append(source)
        return holders

    def _is_useful(self, number: int) -> bool:
        longest = 4 * self._config.state_interval + 16  # members keep aggregates of at most 3K rounds
        is_full = number % self._config.state_interval == 0
        return is_full and max(0, self._head.round - min(longest, MAX_CLAIMS)) <= number <= self._head.round

    def _rank(self, offers: Mapping[int, Sequence[PeerId]]) -> Sequence[int]:
        """The snapshots to try: what is partly here already, then what most members have, then the newest."""

        def rank(number: int) -> tuple[bool, int, int]:
            return any(self._directory.glob(f"state-{number}-*.bin")), len(offers[number]), number

        return sorted(offers, key=rank, reverse=True)

    # --- what it consists of ---

    async def _fetch_segment(self, source: PeerId, first: int) -> Sequence[Seal]:
        """Return the seals from round ``first`` to the newest, each named by the next."""
        seals: list[Seal] = []
        while first + len(seals) < self._head.round:
            question = RoundsQuestion(first + len(seals), self._head.round - 1)
            reply = await self._hub.request(source, Kind.SEGMENT, encode(question), timeout_s=self._short_s)
            page: Segment = decode(reply.head, Segment)
            if not page.seals or len(page.seals) > question.last + 1 - question.first:
                raise RemoteProtocolError(f"it does not have the seals from round {question.first} on", source)
            seals += [decode_seal(data) for data in page.seals]
        seals.append(self._head)
        for seal, following in pairwise(seals):
            if compute_seal_digest(seal) != following.previous:
                raise RemoteProtocolError(f"its seal {seal.round} is not the one that seal {following.round} names")
        return seals

    async def _fetch_outline(self, source: PeerId, seal: Seal) -> tuple[int, Sequence[tuple[TensorEntry, bytes]]]:
        """Return the optimizer's step and every vector with its leaves, x first, all from one member."""
        question, timeout_s = encode(OutlineQuestion(seal.round)), self._vectors.compute_hashing_bound()
        reply = await self._hub.request(source, Kind.OUTLINE, question, timeout_s=timeout_s)
        outline: Outline = decode(reply.head, Outline, limit=MAX_ANSWER)
        if outline.parameters is None:
            raise NetworkError(f"it does not have the snapshot of round {seal.round} any more")
        self._check_outline(outline, outline.parameters, seal)
        entries = (outline.parameters, *outline.buffers)
        found = [
            (each, await self._vectors.fetch_leaves(Vector(seal.round, each.root, each.elements), source))
            for each in entries
        ]
        return outline.step, found

    def _check_outline(self, outline: Outline, parameters: TensorEntry, seal: Seal) -> None:
        """The lengths are bounded before anything of that size is made; the roots bind them once the leaves are here.

        Raises:
            RemoteProtocolError: it is not what the seal names.
        """
        buffers = {entry.name: entry.root for entry in outline.buffers}
        lengths_fit = parameters.elements == self._config.elements and all(
            entry.elements <= self._config.elements for entry in outline.buffers
        )
        if not lengths_fit or len(buffers) != len(outline.buffers):
            raise RemoteProtocolError("its snapshot has vectors of other lengths than the run allows")
        if combine_state_roots(outline.step, parameters.root, buffers) != seal.full_state:
            raise RemoteProtocolError(f"its snapshot is not the state that seal {seal.round} names")

    # --- the snapshot ---

    async def _begin_at_genesis(self) -> tuple[Tensor, OptimizerState]:
        parameters = await self._compute.run(self._workload.initial_parameters)
        root = await self._compute.run(lambda: compute_state_root(parameters, self._config.chunk_size))
        if root != self._line.seals[0].seal.state:
            raise ConfigError("our initial parameters differ from the run's: other task code, data set or torch build")
        return parameters, self._workload.initial_optimizer()

    async def _fetch_snapshot(self, seal: Seal, holders: Sequence[PeerId]) -> tuple[Tensor, OptimizerState]:
        step, entries = await self._vectors.ask_first(
            holders, lambda source: self._fetch_outline(source, seal), "what the snapshot consists of"
        )
        self._remove_others(seal.round)
        self._meter.needed += sum(4 * entry.elements for entry, _ in entries)
        wanted = []
        for index, (entry, leaves) in enumerate(entries):
            path = self._directory / f"state-{seal.round}-{index}.bin"
            wanted.append(Wanted(Vector(seal.round, entry.root, entry.elements), leaves, path))
        tensors = await self._vectors.fetch(wanted, holders)
        names = [entry.name for entry, _ in entries[1:]]
        return tensors[0], Memory(step, dict(zip(names, tensors[1:], strict=True)))

    def _remove_others(self, number: int) -> None:
        """Remove what earlier attempts left of other snapshots."""
        for path in self._directory.glob("state-*.bin"):
            if not path.name.startswith(f"state-{number}-"):
                path.unlink(missing_ok=True)

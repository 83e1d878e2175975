"""
Vectors from several members at once: every chunk is checked against its leaf as it arrives.

A piece passes through a window, where nobody but its source writes, and its chunks are saved as they prove right
(``assembly.py``). What fails its leaf convicts its source alone, which is asked no more; others are asked for its
pieces.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import trio
from torch import Tensor

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId
from btard.net import WINDOW, Hub, Window
from btard.rules.config import RunConfig
from btard.rules.merkle import MerkleTree
from btard.swarm.compute import Compute
from btard.swarm.frames import Kind
from btard.swarm.joining.assembly import Arrival, Assembly
from btard.swarm.joining.pieces import PieceBoard
from btard.swarm.joining.sources import Sources
from btard.swarm.joining.transfer_frames import (
    MAX_LEAVES,
    PIECE_BYTES,
    ChunksAnswer,
    RangeQuestion,
    Status,
    count_piece_chunks,
)
from btard.wire import decode, encode

T = TypeVar("T")
IN_FLIGHT = 2
"""Pieces asked of one source at a time: one is under way while the other is on the disk or being checked."""
PIECES_PER_SOURCE = 4
"""All is cut into at least so many for each source, chunks permitting: the slowest delays the end by a part."""
LEAST_PIECE_BYTES = 64 << 10
"""Pieces are not cut smaller than that: it takes no longer than a far member's answer."""
MAX_BUSY = 32
"""Answers in a row that a source is busy, before it is asked no more."""


@dataclass(frozen=True)
class Vector:
    """A vector that some sources say they hold, by the round that it belongs to and its Merkle root."""

    round: int
    root: bytes
    elements: int


@dataclass(frozen=True)
class Wanted:
    """A vector, the digests of its chunks end to end, and the file in which it gathers."""

    vector: Vector
    leaves: bytes
    path: Path


@dataclass(frozen=True, eq=False)
class _Piece:
    """Chunks of one of the vectors that are being fetched."""

    vector: Vector
    assembly: Assembly
    chunks: range


@dataclass
class Meter:
    """Bytes that came over the network, and those that were there before; ``report`` is called whenever they change."""

    report: Callable[[], None] = lambda: None
    received: int = 0
    kept: int = 0
    needed: int = 0
    begun: float = field(default_factory=trio.current_time)


@dataclass(eq=False)
class _Delivery:
    """The chunks of one question, an ``arrival`` once they come; something ``arrived``, it may be something else."""

    piece: _Piece
    size: int
    window: memoryview
    arrival: Arrival | None = None
    arrived: trio.Event = field(default_factory=trio.Event)
    is_wrong: bool = False


class VectorFetcher:
    """Fetches vectors through one hub."""

    def __init__(self, config: RunConfig, hub: Hub, compute: Compute, sources: Sources, meter: Meter) -> None:
        self._config, self.hub, self.compute = config, hub, compute
        self.sources, self._meter = sources, meter
        self._chunk_bytes = 4 * config.chunk_size
        self._deliveries: dict[tuple[PeerId, bytes], _Delivery] = {}
        hub.bulk[Kind.CHUNKS] = self

    async def ask_first(self, holders: Sequence[PeerId], ask: Callable[[PeerId], Awaitable[T]], what: str) -> T:
        """See ``Sources.ask_first``; a member may have to hash what it serves before it answers."""
        limit_s = 60.0 + 2 * self.compute_hashing_bound()
        return await self.sources.ask_first(holders, ask, what, pause_s=self._config.delay_s / 2, limit_s=limit_s)

    # --- leaves ---

    async def fetch_leaves(self, vector: Vector, source: PeerId) -> bytes:
        """Return the digests of all chunks of a vector, end to end, from one member; they have its root.

        Raises:
            RemoteProtocolError: they have another one: the source lied, if it named the root and the length itself.
            NetworkError: no answer.
        """
        count = -(-vector.elements // self._config.chunk_size)
        leaves = bytearray(32 * count)
        for first in range(0, count, MAX_LEAVES):
            stop = min(first + MAX_LEAVES, count)
            question = RangeQuestion(vector.round, vector.root, first, stop)
            target = memoryview(leaves)[32 * first : 32 * stop]
            await self._ask_leaves(source, question, target)
        split = [bytes(leaves[start : start + 32]) for start in range(0, len(leaves), 32)]
        root = await self.compute.run(lambda: MerkleTree.build(split, vector.elements).root)
        if root != vector.root:
            raise RemoteProtocolError("its leaf digests do not give the root of the vector", source)
        return bytes(leaves)

    async def _ask_leaves(self, source: PeerId, question: RangeQuestion, target: memoryview) -> None:
        def sink(_body: bytes, size: int) -> memoryview | None:
            return target if size == len(target) else None

        timeout_s = self.compute_hashing_bound() + self._compute_bound(len(target))
        reply = await self.hub.request(source, Kind.LEAVES, encode(question), timeout_s=timeout_s, sink=sink)
        if reply.payload is None:
            raise RemoteProtocolError("it does not have the leaf digests of a vector that it offered", source)

    def compute_hashing_bound(self) -> float:
        """Return the seconds that a member may take to hash what it serves, at 100 MB/s, and to answer."""
        return 2 * self._config.delay_s + 10.0 + 4 * 4 * self._config.elements / 1e8

    def _compute_bound(self, size: int) -> float:
        return 3 * self._config.delay_s + 2 * size / self._config.min_bandwidth

    # --- chunks ---

    async def fetch(self, wanted: Sequence[Wanted], holders: Sequence[PeerId]) -> list[Tensor]:
        """Return vectors, whole and right, from their files; what those held before is not asked for again.

        They come one after another, without a pause in between: nobody waits for the end of one to begin the next.

        Raises:
            RemoteProtocolError, Unreachable: none of ``holders`` is left.
            ConfigError: there is no room for them.
        """
        size = self._chunk_bytes
        assemblies = [Assembly(each.path, each.vector.elements, each.leaves, size) for each in wanted]
        try:
            for assembly in assemblies:
                self._meter.kept += await self.compute.run(assembly.open)
                self._meter.report()
            for several in _separate_twins([(each.vector, it) for each, it in zip(wanted, assemblies, strict=True)]):
                await self._fill(several, holders)
            return [assembly.read() for assembly in assemblies]
        finally:
            for assembly in assemblies:
                assembly.close()

    async def _fill(self, several: Sequence[tuple[Vector, Assembly]], holders: Sequence[PeerId]) -> None:
        chunks = sum(vector.elements for vector, _ in several) // self._config.chunk_size
        share = chunks // (PIECES_PER_SOURCE * max(1, len(holders)))
        longest = min(count_piece_chunks(self._chunk_bytes), max(-(-LEAST_PIECE_BYTES // self._chunk_bytes), share))
        window = _count_window_bytes(self._chunk_bytes, longest * self._chunk_bytes)
        turns = zip_longest(*([_Piece(*each, chunks) for chunks in each[1].find_missing(longest)] for each in several))
        pieces = [piece for turn in turns for piece in turn if piece is not None]  # two writers of one file would wait
        pieces = _halve_last(pieces, len(holders))
        board = PieceBoard(pieces, shortest_s=self._config.delay_s / 2)
        async with trio.open_nursery() as nursery:
            for source in holders:
                for _ in range(IN_FLIGHT):
                    nursery.start_soon(self._work, board, source, memoryview(bytearray(window)), nursery.cancel_scope)
        for vector, assembly in several:
            if not assembly.is_complete:
                raise self.sources.explain(f"the vector {vector.root.hex()[:16]} of round {vector.round}")

    async def _work(
        self, board: PieceBoard[_Piece], source: PeerId, window: memoryview, everything: trio.CancelScope
    ) -> None:
        """Fetch pieces from one source until all are here, or it is asked no more."""
        while self.sources.is_live(source) and (claim := await board.take(source)) is not None:
            is_right = False
            with claim.scope:
                is_right = self.sources.is_live(source) and await self._try_piece(claim.piece, source, window)
            if claim.is_lost:
                self.sources.strike(source)
            elif is_right:
                self._keep(claim.piece)
                board.finish(claim)
            else:
                board.give_back(claim)
        if board.is_done:
            everything.cancel()

    def _keep(self, piece: _Piece) -> None:
        piece.assembly.keep(piece.chunks)
        self._meter.received += piece.assembly.count_bytes(piece.chunks)
        self._meter.report()

    async def _try_piece(self, piece: _Piece, source: PeerId, window: memoryview) -> bool:
        try:
            arrival = await self._receive(piece, source, window)
        except RemoteProtocolError as error:
            self.sources.drop(source, str(error), lied=True)
            return False
        except NetworkError as error:
            self.sources.drop(source, str(error))
            return False
        if arrival.is_right():
            return True
        self.sources.drop(source, f"a chunk of round {piece.vector.round} is not the sealed one", lied=True)
        return False

    async def _receive(self, piece: _Piece, source: PeerId, window: memoryview) -> Arrival:
        """Return what the source sends for a piece; nobody writes there afterwards.

        The same may be asked of a source again before this has ended: of a claim that is lost, and given back at once.
        """
        vector, chunks = piece.vector, piece.chunks
        head = encode(RangeQuestion(vector.round, vector.root, chunks.start, chunks.stop))
        delivery = self._deliveries[source, head] = _Delivery(piece, piece.assembly.count_bytes(chunks), window)
        try:
            await self._ask_chunks(source, head, delivery)
        finally:
            if self._deliveries.get((source, head)) is delivery:
                del self._deliveries[source, head]
            if delivery.arrival is not None:
                self.hub.drop_bulk(source, delivery.arrival.memory)
        assert delivery.arrival is not None
        return delivery.arrival

    async def _ask_chunks(self, source: PeerId, head: bytes, delivery: _Delivery) -> None:
        timeout_s = self._compute_bound(IN_FLIGHT * max(PIECE_BYTES, delivery.size))
        for _ in range(MAX_BUSY):
            reply = await self.hub.request(source, Kind.CHUNKS, head, timeout_s=timeout_s)
            answer: ChunksAnswer = decode(reply.head, ChunksAnswer)
            if answer.status is Status.SENT:  # the answer may overtake the bytes: control goes before bulk
                with trio.move_on_after(timeout_s):
                    await delivery.arrived.wait()
            if delivery.arrived.is_set() and not delivery.is_wrong:
                return
            if answer.status is Status.SENT:
                raise RemoteProtocolError("it sent other bytes than it was asked for", source)
            if answer.status is Status.GONE:
                raise NetworkError("it does not have this any more")
            await trio.sleep(self._config.delay_s / 4)
        raise NetworkError("it has been busy for too long")

    def sink(self, peer: PeerId, head: bytes, size: int) -> Window | None:
        """Memory for chunks that were asked for; None for everything else."""
        delivery = self._deliveries.get((peer, head))
        if delivery is None or delivery.arrived.is_set():
            return None
        if size != delivery.size:
            delivery.is_wrong = True
            delivery.arrived.set()
            return None
        if delivery.arrival is not None:  # once more, on another link perhaps: two at a time would spoil the window
            self.hub.drop_bulk(peer, delivery.arrival.memory)
        delivery.arrival = Arrival(delivery.piece.assembly, delivery.piece.chunks, delivery.window)
        return Window(delivery.window, delivery.arrival.take)

    def done(self, peer: PeerId, head: bytes, payload: memoryview) -> None:
        """Note that chunks are here; they are not checked yet."""
        delivery = self._deliveries.get((peer, head))
        if delivery is not None and delivery.arrival is not None and delivery.arrival.memory is payload:
            delivery.arrived.set()


def _count_window_bytes(chunk_bytes: int, most: int) -> int:
    """Return the length of a window through which whole chunks pass, ``most`` bytes at a time."""
    return min(math.lcm(chunk_bytes, WINDOW), -(-most // WINDOW) * WINDOW)


def _halve_last(pieces: list[_Piece], count: int) -> list[_Piece]:
    """Return the pieces, the last ``count`` of them in halves: at the end, fewer bytes are a slow source's."""
    cut = max(0, len(pieces) - count)
    halves = [replace(each, chunks=half) for each in pieces[cut:] for half in _halve(each.chunks)]
    return pieces[:cut] + halves


def _halve(chunks: range) -> tuple[range, ...]:
    middle = (len(chunks) + 1) // 2
    return tuple(half for half in (chunks[:middle], chunks[middle:]) if half)


def _separate_twins(everything: Sequence[tuple[Vector, Assembly]]) -> list[list[tuple[Vector, Assembly]]]:
    """Return what may be asked for at the same time: of vectors alike, nobody could say whose the bytes are."""
    lots: list[dict[bytes, tuple[Vector, Assembly]]] = []
    for each in everything:
        lot = next((lot for lot in lots if each[0].root not in lot), None)
        if lot is None:
            lots.append(lot := {})
        lot[each[0].root] = each
    return [list(lot.values()) for lot in lots]

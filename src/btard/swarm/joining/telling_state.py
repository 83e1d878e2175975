"""
A member hands its snapshots and the aggregates since to whoever asks, who may be anybody.

What it must not become: a way to make us busy or full. Vectors are hashed once, in a thread beside the rounds;
chunks are sent straight from the files, to `PLACES` peers at a time, few of them strangers, and a reader that does
not take them loses its place. Control messages of the rounds overtake all of it on every link.

Until a round's seal is signed it may be run again, and then its seal, its snapshot and its aggregate are other ones.
So what was hashed goes with what it was hashed of, a snapshot with the full state that its seal names.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import structlog
import trio

from btard.identity import PeerId
from btard.net import Hub, Loan, RequestHandler, hold
from btard.rules.config import RunConfig
from btard.rules.merkle import MerkleTree, compute_leaves
from btard.swarm.compute import Compute
from btard.swarm.frames import Kind
from btard.swarm.joining.lineage import MAX_PAGE
from btard.swarm.joining.transfer_frames import (
    MAX_CLAIMS,
    MAX_LEAVES,
    MAX_QUESTION,
    MAX_SEGMENT,
    MAX_SNAPSHOTS,
    MAX_TENSORS,
    ChunksAnswer,
    Claim,
    Claims,
    Offer,
    Outline,
    OutlineQuestion,
    RangeQuestion,
    RoundsQuestion,
    Segment,
    Status,
    TensorEntry,
    count_piece_chunks,
)
from btard.swarm.joining.turnstile import Turnstile
from btard.swarm.ledger import Ledger
from btard.swarm.restoring import Snapshots, StoredState
from btard.swarm.state import combine_state_roots
from btard.swarm.updates import Updates
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

PLACES = 8
"""Transfers under way at once, to all peers together."""
PLACES_PER_PEER = 3
STRANGER_PLACES = 2
"""Of all places, those for peers that the hub does not favour: whoever needs a state is a candidate by then."""
NO_CLAIM = Claim(is_applied=False, root=b"")
LOOK_S = 10.0
"""Seconds between looks at what is new, to be hashed, and at what nobody reads any more, to be closed."""


@dataclass(frozen=True)
class Hashed:
    """A vector of ours as it is served: its length, its leaf digests end to end, and its Merkle root."""

    elements: int
    leaves: bytes
    root: bytes


@dataclass(frozen=True)
class HashedState:
    """A snapshot as it is served: the full state that its seal names, and its vectors by name, x under the empty one.

    Nothing is served, so there are no vectors, where it is not that one.
    """

    full_state: bytes
    vectors: Mapping[str, Hashed]


def hash_vector(data: memoryview, chunk_bytes: int) -> Hashed:
    """Return the leaves and root of a vector of raw float32 bytes."""
    leaves = compute_leaves(data, 0, chunk_bytes)
    return Hashed(len(data) // 4, b"".join(leaves), MerkleTree.build(leaves, len(data) // 4).root)


class StateTeller:
    """Serves what one peer has on disk. ``compute`` is a thread of its own: rounds do not wait for it."""

    def __init__(
        self,
        config: RunConfig,
        hub: Hub,
        ledger: Ledger,
        snapshots: Snapshots,
        updates: Updates,
        compute: Compute,
    ) -> None:
        self._config, self._hub, self._ledger = config, hub, ledger
        self._snapshots, self._updates, self._compute = snapshots, updates, compute
        self._chunk_bytes = 4 * config.chunk_size
        self._states: dict[int, HashedState] = {}
        self._aggregates: dict[tuple[int, int], Hashed] = {}  # by round, and how often it had been written anew
        self._open: dict[int, StoredState] = {}
        self._was_read = False
        self._hashing, self._places = trio.Lock(), trio.Semaphore(PLACES)
        self._stranger_places = trio.Semaphore(STRANGER_PLACES)
        self._served: dict[PeerId, int] = {}
        self._turnstile = Turnstile(hub)
        self._serve(Kind.OFFER, self._serve_offer)
        self._serve(Kind.SEGMENT, self._serve_segment)
        self._serve(Kind.OUTLINE, self._serve_outline)
        self._serve(Kind.CLAIMS, self._serve_claims)
        self._serve(Kind.LEAVES, self._serve_leaves)
        self._serve(Kind.CHUNKS, self._serve_chunks)

    def _serve(self, kind: Kind, answer: RequestHandler) -> None:
        """Answer questions of a kind, each in its turn."""

        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            await self._turnstile.enter(peer)
            return await answer(peer, body)

        self._hub.serve[kind] = serve

    async def run(self) -> NoReturn:
        """Hash the newest snapshot before anybody asks for it; close what nobody reads and keeps its room."""
        while True:
            newest = max(self._find_offered(), default=0)
            if newest:
                await self._hash_state(newest)
            await trio.sleep(LOOK_S)
            if not self._was_read and not self._served:
                self._open.clear()
            self._was_read = False
            # The rest is looked at again: where a round was run again, its snapshot is replaced after its seal.
            self._states = {number: state for number, state in self._states.items() if state.vectors}

    # --- what there is ---

    async def _serve_offer(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        return encode(Offer(tuple(self._find_offered()))), None

    def _find_offered(self) -> Sequence[int]:
        """The snapshots that a seal names in full, and after which no aggregate is missing; 0 is x_0, which all know.

        The newest aggregate may still be on its way to the disk: it is there before anybody signs its seal.
        """
        newest = self._ledger.newest_seal()
        if newest is None:
            return []
        held = set(self._ledger.update_rounds())
        number = newest.round if newest.round in held else newest.round - 1
        while number in held:
            number -= 1
        rounds = [finished for finished in self._snapshots.rounds() if max(1, number) <= finished <= newest.round]
        offered = [finished for finished in rounds if finished % self._config.state_interval == 0]
        return [*([] if number else [0]), *offered][-MAX_SNAPSHOTS:]

    async def _serve_segment(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        question: RoundsQuestion = decode(body, RoundsQuestion, limit=MAX_QUESTION)
        count = min(MAX_SEGMENT, max(0, question.last + 1 - question.first))
        page: list[bytes] = []
        size = 0
        for number, seal in self._ledger.encoded_seals_from(question.first, count):
            if size >= MAX_PAGE or number != question.first + len(page):
                break
            page.append(seal)
            size += len(seal)
        return encode(Segment(tuple(page))), None

    async def _serve_outline(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        question: OutlineQuestion = decode(body, OutlineQuestion, limit=MAX_QUESTION)
        hashed = await self._hash_state(question.round)
        stored = self._snapshots.map(question.round) if hashed else None
        if not hashed or stored is None:
            return encode(Outline(0, None, ())), None
        entries = [TensorEntry(name, item.elements, item.root) for name, item in sorted(hashed.items())]
        return encode(Outline(stored.step, entries[0], tuple(entries[1:]))), None  # x has the empty name

    async def _serve_claims(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        question: RoundsQuestion = decode(body, RoundsQuestion, limit=MAX_QUESTION)
        rounds = range(question.first, min(question.last + 1, question.first + MAX_CLAIMS))
        held = set(self._ledger.update_rounds())
        claims = [await self._claim(number) if number in held else NO_CLAIM for number in rounds]
        return encode(Claims(tuple(claims))), None

    async def _claim(self, number: int) -> Claim:
        hashed = await self._hash_aggregate(number)
        is_applied = self._updates.is_applied(number)
        if hashed is None or is_applied is None:  # it was forgotten meanwhile
            return NO_CLAIM
        return Claim(is_applied, hashed.root)

    # --- hashing, once for each vector ---

    async def _hash_state(self, number: int) -> Mapping[str, Hashed]:
        """The vectors of a snapshot by name, x under the empty one; nothing if it is not what its seal names."""
        async with hold(self._hashing):
            while (known := self._states.get(number)) is None or known.full_state != self._find_full_state(number):
                if number not in self._find_offered():
                    return {}
                state = await self._hash_snapshot(number, self._find_full_state(number))
                kept = set(self._snapshots.rounds()) - {number}
                self._open = {key: item for key, item in self._open.items() if key in kept & self._states.keys()}
                self._states = {key: item for key, item in self._states.items() if key in kept}
                self._states[number] = state
            return known.vectors

    async def _hash_snapshot(self, number: int, full_state: bytes) -> HashedState:
        stored = await self._compute.run(lambda: self._snapshots.map(number))
        hashed = await self._compute.run(lambda: self._hash_all(stored)) if stored else {}
        if stored is None or not _is_named(full_state, stored.step, hashed):
            log.error("a snapshot is not what its seal names; it is not handed out", round=number)
            hashed = {}
        return HashedState(full_state, hashed)

    def _hash_all(self, stored: StoredState) -> Mapping[str, Hashed]:
        vectors = {"": stored.parameters, **stored.buffers}
        return {name: hash_vector(data, self._chunk_bytes) for name, data in vectors.items()}

    def _find_full_state(self, number: int) -> bytes:
        """The full state that the seal of a round names by now; nothing if there is none."""
        seal = next((seal for seal in self._ledger.seals_from(number, 1) if seal.round == number), None)
        return seal.full_state if seal else b""

    async def _hash_aggregate(self, number: int) -> Hashed | None:
        async with hold(self._hashing):
            while (key := (number, self._ledger.rewritings[number])) not in self._aggregates:
                data = self._updates.map(number)
                if data is None or len(data) != 4 * self._config.elements:
                    return None
                hashed = await self._compute.run(partial(hash_vector, data, self._chunk_bytes))
                kept = set(self._ledger.update_rounds()) - {number}
                self._aggregates = {old: item for old, item in self._aggregates.items() if old[0] in kept}
                self._aggregates[key] = hashed
            return self._aggregates[key]

    # --- vectors ---

    async def _find_vector(self, number: int, root: bytes) -> tuple[str | None, Hashed] | None:
        """The name, None for an aggregate, and the digests of the vector that has this root."""
        for name, hashed in (await self._hash_state(number)).items():
            if hashed.root == root:
                return name, hashed
        aggregate = await self._hash_aggregate(number)
        return (None, aggregate) if aggregate and aggregate.root == root else None

    async def _serve_leaves(self, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        question: RangeQuestion = decode(body, RangeQuestion, limit=MAX_QUESTION)
        found = await self._find_vector(question.round, question.root)
        if found is None or question.stop - question.first > MAX_LEAVES:
            return b"", None
        leaves = memoryview(found[1].leaves)[32 * question.first : 32 * question.stop]
        return b"", Loan(leaves, trio.move_on_after(self._compute_patience(len(leaves))))

    async def _serve_chunks(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        question: RangeQuestion = decode(body, RangeQuestion, limit=MAX_QUESTION)
        if self._served.get(peer, 0) >= PLACES_PER_PEER:
            return encode(ChunksAnswer(Status.BUSY)), None
        self._served[peer] = self._served.get(peer, 0) + 1
        try:
            return encode(ChunksAnswer(await self._send_chunks(peer, question))), None
        finally:
            self._served[peer] -= 1
            if not self._served[peer]:
                del self._served[peer]

    async def _send_chunks(self, peer: PeerId, question: RangeQuestion) -> Status:
        found = await self._find_vector(question.round, question.root)
        count = question.stop - question.first
        if found is None or not 0 < count <= count_piece_chunks(self._chunk_bytes):
            return Status.GONE
        narrow = hold(self._stranger_places) if self._hub.is_stranger(peer) else nullcontext()
        with trio.move_on_after(self._config.delay_s) as patience:
            async with narrow, hold(self._places):
                patience.deadline = float("inf")
                return await self._send(peer, question)
        return Status.BUSY

    async def _send(self, peer: PeerId, question: RangeQuestion) -> Status:
        found = await self._find_vector(question.round, question.root)  # again: it may be another one by now
        data = self._map_vector(question.round, found[0]) if found else None
        if data is None:
            return Status.GONE
        piece = data[question.first * self._chunk_bytes : question.stop * self._chunk_bytes]
        if not piece:
            return Status.GONE
        with trio.move_on_after(self._compute_patience(len(piece))):
            await self._hub.send_bulk(peer, Kind.CHUNKS, encode(question), piece)
        return Status.SENT

    def _map_vector(self, number: int, name: str | None) -> memoryview | None:
        """A vector; that of a snapshot stays whole while we hold it, whatever becomes of its file's name."""
        if name is None:
            return self._updates.map(number)
        stored = self._open.get(number) or self._snapshots.map(number)
        if stored is None:
            return None
        self._open[number] = stored
        self._was_read = True
        return stored.buffers.get(name) if name else stored.parameters

    def _compute_patience(self, size: int) -> float:
        return 2 * self._config.delay_s + 4 * size / self._config.min_bandwidth


def _is_named(full_state: bytes, step: int, hashed: Mapping[str, Hashed]) -> bool:
    """Return whether a snapshot's vectors, and its optimizer's step, give the full state that a seal names."""
    buffers = {name: item.root for name, item in hashed.items() if name}
    return len(hashed) <= MAX_TENSORS and combine_state_roots(step, hashed[""].root, buffers) == full_state

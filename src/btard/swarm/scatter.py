"""
Scatter: committed slices on their way to the aggregators, proven on arrival (paper, Algorithm 2, steps 3 and 4).

Slices are named by the Merkle root they belong to, not by attempt: after a re-cut an aggregator is
sent only the chunks that it lacks. Bytes that fail their proof count as not received; on a private
link they prove nothing.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import structlog
from torch import Tensor

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net import Hub, Loan
from btard.robust import Layout
from btard.rules.config import RunConfig
from btard.rules.judgement import read_committed
from btard.rules.merkle import compute_leaves, is_in_tree, join_proofs
from btard.swarm.asking import ask_in_turn
from btard.swarm.frames import Kind, SliceHead, SliceRequest
from btard.swarm.lending import Lender
from btard.swarm.memory import empty_vector
from btard.swarm.state import Gradient, as_bytes, empty_part, read_values, scan
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

SLICES_PER_SENDER = 8
"""Largest parts' worth of unasked slices held of one sender; what exceeds it can still be pulled."""


@dataclass(frozen=True)
class Piece:
    """Proven chunks of a committed gradient: float32 values and the Merkle proof of their range.

    They are ``known_to_count`` where they were scanned as they came, and none is NaN, infinite or beyond 1e30.
    """

    chunks: range
    values: Tensor
    proof: tuple[bytes, ...]
    known_to_count: bool = False


class Slices:
    """All slices this peer holds of the rounds in progress, its own gradients among them."""

    def __init__(
        self,
        config: RunConfig,
        hub: Hub,
        notify: Callable[[], None],
        offers: Callable[[int, PeerId], bool],
        admits: Callable[[PeerId], bool],
    ) -> None:
        self._hub, self._notify, self._offers, self._admits = hub, notify, offers, admits
        self._spread_s, self._lender = config.delay_s, Lender(config)
        self._layout = Layout(config.elements, config.chunk_size)
        self._pieces: dict[tuple[int, bytes], list[Piece]] = {}
        self._own: dict[tuple[int, bytes], Gradient] = {}
        self._sent: dict[tuple[int, bytes, PeerId], set[int]] = {}
        self._received: dict[tuple[int, PeerId], int] = {}
        self.chunks = self._layout.chunks
        self._expected = set[tuple[int, PeerId, bytes, range]]()
        self._round, self._largest = 0, self._layout.chunks
        hub.bulk[Kind.SLICE] = self
        hub.serve[Kind.PULL_SLICE] = self._serve

    def begin_round(self, number: int, members: int) -> None:
        """Move the window of rounds; what is older than the round before is dropped, also what is lent of it."""
        self._round = number
        self.begin_attempt(members)
        self._lender.begin_round(number)
        for table in (self._pieces, self._own, self._sent, self._received):
            for key in [key for key in table if key[0] < number - 1]:
                del table[key]  # type: ignore[arg-type]

    def begin_attempt(self, members: int) -> None:
        """Bound the slices by the parts of so many members, and of up to half as many in the next attempt."""
        self._largest = max(1, -(-2 * self._layout.chunks // max(1, members)))
        self._expected.clear()

    def expect(self, number: int, asked: Collection[tuple[PeerId, bytes, range]]) -> None:
        """Take, once each, what complaints of this attempt ask of members: a sender, a root and chunks."""
        self._expected.update((number, *item) for item in asked)

    def keep_own(self, number: int, gradient: Gradient) -> None:
        """Serve slices of a gradient that we hold whole."""
        self._own[number, gradient.tree.root] = gradient

    # --- receiving ---

    def sink(self, peer: PeerId, head: bytes, size: int) -> memoryview | None:
        """Memory for a slice of a round in progress, or None when it is not wanted."""
        if not self._admits(peer):
            return None
        slice_head = decode(head, SliceHead)
        chunks = range(slice_head.first, slice_head.stop)
        used = self._received.get((slice_head.round, peer), 0)
        if not self._round - 1 <= slice_head.round <= self._round + 1 or len(chunks) > self._largest:
            return None
        if size != self._count_bytes(chunks) or self._find_exact(slice_head.round, slice_head.root, chunks) is not None:
            return None
        asked = (slice_head.round, peer, slice_head.root, chunks)
        if asked in self._expected:
            self._expected.remove(asked)
        elif used + len(chunks) > SLICES_PER_SENDER * self._largest:
            return None
        else:
            self._received[slice_head.round, peer] = used + len(chunks)
        return as_bytes(empty_vector(size // 4))

    def done(self, peer: PeerId, head: bytes, payload: memoryview) -> None:
        """Keep a slice that proves itself."""
        self._keep(decode(head, SliceHead), read_values(payload), peer)

    def _keep(self, head: SliceHead, values: Tensor, sender: PeerId) -> bool:
        chunks = range(head.first, head.stop)
        found = scan(values, head.first, self._layout.chunk_size)
        count, elements = self._layout.chunks, self._layout.elements
        if not is_in_tree(head.root, count, elements, chunks, found.leaves, head.proof):
            log.warning("a slice failed its proof", sender=short(sender), round=head.round)
            return False
        piece = Piece(chunks, values, head.proof, found.counts)
        self._pieces.setdefault((head.round, head.root), []).append(piece)
        self._notify()
        return True

    def _count_bytes(self, chunks: range) -> int:
        if not 0 <= chunks.start < chunks.stop <= self._layout.chunks:
            return -1
        where = self._layout.elements_of(chunks)
        return 4 * (int(where.stop) - int(where.start))

    # --- reading ---

    def get(self, number: int, root: bytes, chunks: range) -> Tensor | None:
        """The values of committed chunks, if all of them are held; shape (elements of the chunks,)."""
        if not chunks:
            return empty_part()
        own = self._own.get((number, root))
        if own is not None:
            return own.values[self._layout.elements_of(chunks)]
        piece = self.find_piece(number, root, chunks)
        return piece.values if piece else None

    def read(self, number: int, root: bytes, chunks: range) -> Tensor | None:
        """The same values as they count: zeros if any of them does not."""
        piece = self.find_piece(number, root, chunks)
        if piece is None:
            return None
        return piece.values if piece.known_to_count else read_committed(piece.values)

    def find_piece(self, number: int, root: bytes, chunks: range) -> Piece | None:
        """The piece of exactly these chunks, with its proof, put together from others if need be.

        It is kept in place of what it consists of; so what others name is looked for with ``_find_exact``.
        """
        exact = self._find_exact(number, root, chunks)
        if exact is not None or (joined := self._join(number, root, chunks)) is None:
            return exact
        pieces = self._pieces[number, root]
        pieces[:] = [item for item in pieces if not set(item.chunks) <= set(chunks)] + [joined]
        return joined

    def _find_exact(self, number: int, root: bytes, chunks: range) -> Piece | None:
        """The piece of exactly these chunks as it is held; no proof is needed of no chunks."""
        if not chunks:
            return Piece(chunks, empty_part(), ())
        own = self._own.get((number, root))
        if own is not None:
            return Piece(chunks, own.values[self._layout.elements_of(chunks)], own.tree.prove(chunks))
        return next((item for item in self._pieces.get((number, root), ()) if item.chunks == chunks), None)

    def _join(self, number: int, root: bytes, chunks: range) -> Piece | None:
        held = [item for item in self._pieces.get((number, root), ()) if set(item.chunks) & set(chunks)]
        if not set(chunks) <= {chunk for item in held for chunk in item.chunks}:
            return None
        start = self._layout.elements_of(chunks).start
        values = empty_vector(self._count_bytes(chunks) // 4)
        for item in held:
            common = range(max(item.chunks.start, chunks.start), min(item.chunks.stop, chunks.stop))
            where, offset = self._layout.elements_of(common), self._layout.elements_of(item.chunks).start
            values[where.start - start : where.stop - start] = item.values[where.start - offset : where.stop - offset]
        proven = [(item.chunks, self._compute_leaves(item.chunks.start, item.values), item.proof) for item in held]
        return Piece(chunks, values, join_proofs(self._layout.chunks, proven, chunks))

    def _compute_leaves(self, first: int, values: Tensor) -> list[bytes]:
        return compute_leaves(as_bytes(values), first, 4 * self._layout.chunk_size)

    # --- sending ---

    def send(
        self,
        number: int,
        gradient: Gradient,
        peer: PeerId,
        chunks: range,
        *,
        again: bool = False,
    ) -> None:
        """Send an aggregator the chunks of our gradient that it lacks; ``again`` sends all of them."""
        sent = self._sent.setdefault((number, gradient.tree.root, peer), set())
        for run in find_runs(chunks, set() if again else sent):
            head = SliceHead(number, gradient.tree.root, run.start, run.stop, gradient.tree.prove(run))
            sent.update(run)
            values = gradient.values[self._layout.elements_of(run)]
            loan = self._lender.lend(number, as_bytes(values))
            self._hub.offer_bulk(peer, Kind.SLICE, encode(head), loan)

    def forward(self, number: int, root: bytes, chunks: range, peer: PeerId) -> None:
        """Send somebody chunks of another's gradient, if we hold all of them, in one piece with its proof."""
        piece = self.find_piece(number, root, chunks)
        if piece is not None and chunks:
            head = SliceHead(number, root, chunks.start, chunks.stop, piece.proof)
            loan = self._lender.lend(number, as_bytes(piece.values))
            self._hub.offer_bulk(peer, Kind.SLICE, encode(head), loan)

    def lend_longer(self, patience_s: float) -> None:
        """See ``Lender.lend_longer``."""
        self._lender.lend_longer(patience_s)

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        """Answer a member; strangers have no business here, and nothing bounds what all of them ask for."""
        if not self._admits(peer):
            return b"", None
        request = decode(body, SliceRequest)
        chunks = range(request.first, request.stop)
        if self._count_bytes(chunks) < 0:
            raise RemoteProtocolError("a request for chunks that do not exist", peer)
        piece = self._find_exact(request.round, request.root, chunks) if len(chunks) <= self._largest else None
        if piece is None or not self._offers(request.round, peer):
            return b"", None
        head = SliceHead(request.round, request.root, request.first, request.stop, piece.proof)
        return encode(head), self._lender.lend(request.round, as_bytes(piece.values))

    async def pull(self, number: int, root: bytes, chunks: range, sources: Sequence[PeerId], timeout_s: float) -> bool:
        """Ask sources in turn for published chunks, for at most ``timeout_s``; return whether they are held now."""
        return await ask_in_turn(
            sources,
            lambda peer: self._pull_from(number, root, chunks, peer, timeout_s),
            lambda: self.get(number, root, chunks) is not None,
            spread_s=min(timeout_s / 2, self._spread_s),
            limit_s=timeout_s,
        )

    async def _pull_from(self, number: int, root: bytes, chunks: range, peer: PeerId, timeout_s: float) -> None:
        values = empty_vector(self._count_bytes(chunks) // 4)
        buffer = as_bytes(values)
        request = encode(SliceRequest(number, root, chunks.start, chunks.stop))
        try:
            answer = await self._hub.request(
                peer,
                Kind.PULL_SLICE,
                request,
                timeout_s=timeout_s,
                sink=lambda _, size: buffer if size == len(buffer) else None,
            )
            head = decode(answer.head, SliceHead) if answer.payload is not None else None
        except (NetworkError, RemoteProtocolError) as error:
            log.debug("pulling a slice failed", source=short(peer), reason=str(error))
            return
        if head and (head.round, head.root, head.first, head.stop) == (number, root, chunks.start, chunks.stop):
            self._keep(head, values, peer)


def find_runs(wanted: range, held: set[int]) -> tuple[range, ...]:
    """Return the maximal runs of ``wanted`` that are not ``held``."""
    runs: list[range] = []
    for chunk in wanted:
        if chunk in held:
            continue
        if runs and runs[-1].stop == chunk:
            runs[-1] = range(runs[-1].start, chunk + 1)
        else:
            runs.append(range(chunk, chunk + 1))
    return tuple(runs)

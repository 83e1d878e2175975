"""
Gather: the aggregates of all parts on their way to everyone, checked against their commitments
(paper, Algorithm 2, steps 6 and 7). A part that its aggregator does not deliver is pulled from others.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
import torch
from torch import Tensor

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net import Hub, Loan
from btard.robust import Layout
from btard.rules.config import RunConfig
from btard.rules.judgement import read_committed
from btard.rules.merkle import MerkleTree
from btard.rules.parts import Part
from btard.swarm.asking import ask_in_turn
from btard.swarm.frames import Kind, PartHead
from btard.swarm.lending import Lender
from btard.swarm.memory import empty_vector
from btard.swarm.state import as_bytes, read_values, scan
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

PULL_SOURCES = 3
"""Members asked for a part, one after another, before it is complained about."""
UNPROVEN_PER_SENDER = 2
"""Parts kept of one sender until their commitments are known."""


class _Proven(NamedTuple):
    """An aggregate that is what was committed to; ``known_to_count`` if no value is NaN, infinite or beyond 1e30."""

    values: Tensor
    known_to_count: bool = False


class Whole:
    """The vector ĝ of one attempt, float32 of shape (D,), in which its parts lie side by side where all goes well.

    The place of a part is given away once, to its aggregator, and read only after the bytes in it have proven
    themselves: whatever fills it later would need a second gift. What comes in any other way lies elsewhere.
    """

    def __init__(self, number: int, attempt: int, parts: Sequence[Part]) -> None:
        self._number, self._attempt, self._parts = number, attempt, parts
        self._vector, self._given = empty_vector(sum(part.elements for part in parts)), set[int]()

    def give_place(self, peer: PeerId, head: PartHead, size: int) -> Tensor | None:
        """Return the place of a part of ``size`` bytes that its aggregator sends, the first time."""
        if (head.round, head.attempt) != (self._number, self._attempt) or not 0 <= head.part < len(self._parts):
            return None
        part = self._parts[head.part]
        if part.aggregator != peer or size != 4 * part.elements or part.index in self._given:
            return None
        self._given.add(part.index)
        return self.place_of(part)

    def place_of(self, part: Part) -> Tensor:
        """Return where a part lies."""
        return self._vector[part.start : part.stop]

    def find(self, pieces: Sequence[Tensor]) -> Tensor | None:
        """Return ĝ if these values of all parts are what lies in their places."""
        places = [self.place_of(part).data_ptr() for part in self._parts if part.elements]
        return self._vector if places == [piece.data_ptr() for piece in pieces] else None


class Parts:
    """The aggregates this peer holds of the attempts in progress."""

    def __init__(
        self, config: RunConfig, hub: Hub, notify: Callable[[], None], admits: Callable[[PeerId], bool]
    ) -> None:
        self._config, self._hub, self._notify, self._admits = config, hub, notify, admits
        self._layout, self._lender = Layout(config.elements, config.chunk_size), Lender(config)
        self._held: dict[tuple[int, int, int], dict[PeerId, Tensor]] = {}
        self._proven: dict[tuple[int, int, int], _Proven] = {}
        self._liars: dict[tuple[int, int, int], set[PeerId]] = {}
        self._round, self._attempt, self._largest = 0, 0, 4 * config.elements
        self._whole = Whole(0, 0, ())
        hub.bulk[Kind.PART] = self
        hub.serve[Kind.PULL_PART] = self._serve

    def begin_attempt(self, number: int, attempt: int, members: int) -> None:
        """Move the window; what is older than the round before is dropped, also what is lent of it."""
        self._round, self._attempt = number, attempt
        self._lender.begin_round(number)
        chunks = max(1, -(-2 * self._layout.chunks // max(1, members - 1)))
        self._largest = 4 * chunks * self._config.chunk_size
        for table in (self._held, self._proven, self._liars):
            for key in [key for key in table if key[0] < number - 1]:
                del table[key]

    def expect(self, number: int, attempt: int, parts: Sequence[Part]) -> None:
        """Have the aggregates of an attempt lie side by side, ours too."""
        self._whole = Whole(number, attempt, parts)

    def sink(self, peer: PeerId, head: bytes, size: int) -> memoryview | None:
        """Memory for a part of this or the next attempt; two per sender and attempt, its own and one it passes on.

        What is proven already, or comes from somebody whose first try was worthless, would only wake all who wait.
        """
        if not self._admits(peer) or not 0 < size <= self._largest or size % 4:
            return None
        part = decode(head, PartHead)
        key = (part.round, part.attempt, part.part)
        if key in self._proven or peer in self._liars.get(key, ()):
            return None
        near = self._round <= part.round <= self._round + 1 and self._attempt <= part.attempt <= self._attempt + 1
        waiting = [item for item, senders in self._held.items() if item[:2] == key[:2] and peer in senders]
        if not near or len(waiting) >= UNPROVEN_PER_SENDER or key in waiting:
            return None
        place = self._whole.give_place(peer, part, size)
        return as_bytes(empty_vector(size // 4) if place is None else place)

    def done(self, peer: PeerId, head: bytes, payload: memoryview) -> None:
        """Keep a part until its commitment is known."""
        part = decode(head, PartHead)
        self._held.setdefault((part.round, part.attempt, part.part), {})[peer] = read_values(payload)
        self._notify()

    def own_place(self, part: Part) -> Tensor:
        """Return where the part that we reduce in the attempt that is expected may be written, float32."""
        return self._whole.place_of(part)

    def keep_own(self, number: int, attempt: int, part: Part, aggregate: Tensor) -> None:
        """Hold and serve the part that we reduced."""
        head = PartHead(number, attempt, part.index)
        place = self._whole.give_place(part.aggregator, head, 4 * aggregate.numel())
        if place is not None and place.data_ptr() != aggregate.data_ptr():
            aggregate = place.copy_(aggregate)
        self._proven[number, attempt, part.index] = _Proven(aggregate)

    def get(self, number: int, attempt: int, part: Part, root: bytes) -> Tensor | None:
        """The aggregate of a part, once its bytes match the committed root; float32 of the part's length."""
        key = (number, attempt, part.index)
        if key in self._held:
            for sender, values in self._held.pop(key).items():
                if key in self._proven:
                    continue
                if (proven := self._prove(values, part, root, sender)) is not None:
                    self._proven[key] = proven
                else:
                    self._liars.setdefault(key, set()).add(sender)
        return self._proven[key].values if key in self._proven else None

    def read(self, number: int, attempt: int, part: Part) -> Tensor:
        """The values of a part that is held, as they count: zeros if any of them does not."""
        values, known_to_count = self._proven[number, attempt, part.index]
        return values if known_to_count else read_committed(values)

    def merge(self, pieces: Sequence[Tensor]) -> Tensor:
        """Return ĝ, float32 of shape (D,), from the values of all parts as they count, in order."""
        whole = self._whole.find(pieces)
        return torch.cat(list(pieces), out=empty_vector(self._config.elements)) if whole is None else whole

    def _prove(self, values: Tensor, part: Part, root: bytes, sender: PeerId) -> _Proven | None:
        if values.numel() == part.elements:
            found = scan(values, 0, self._config.chunk_size)
            if MerkleTree.build(found.leaves, values.numel()).root == root:
                return _Proven(values, found.counts)
        log.warning("an aggregate does not match its commitment", sender=short(sender), part=part.index)
        return None

    def send(self, number: int, attempt: int, part: Part, peers: Sequence[PeerId]) -> None:
        """Send members a part that we hold."""
        aggregate = self._proven[number, attempt, part.index].values
        head, payload = encode(PartHead(number, attempt, part.index)), as_bytes(aggregate)
        for peer in peers:
            self._hub.offer_bulk(peer, Kind.PART, head, self._lender.lend(number, payload))

    def lend_longer(self, patience_s: float) -> None:
        """See ``Lender.lend_longer``."""
        self._lender.lend_longer(patience_s)

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        """Answer a member; newcomers ask for updates instead, at a pace."""
        if not self._admits(peer):
            return b"", None
        request = decode(body, PartHead)
        proven = self._proven.get((request.round, request.attempt, request.part))
        return (b"", None) if proven is None else (body, self._lender.lend(request.round, as_bytes(proven.values)))

    async def pull(
        self, number: int, attempt: int, part: Part, root: bytes, sources: Sequence[PeerId], timeout_s: float
    ) -> bool:
        """Ask members in turn for a part, for at most ``timeout_s``; return whether it is held now."""
        return await ask_in_turn(
            sources,
            lambda peer: self._pull_from(number, attempt, part, root, peer, timeout_s),
            lambda: self.get(number, attempt, part, root) is not None,
            spread_s=min(timeout_s / 2, self._config.delay_s),
            limit_s=timeout_s,
        )

    async def _pull_from(
        self, number: int, attempt: int, part: Part, root: bytes, peer: PeerId, timeout_s: float
    ) -> None:
        values = empty_vector(part.elements)
        buffer = as_bytes(values)
        request = encode(PartHead(number, attempt, part.index))
        try:
            answer = await self._hub.request(
                peer,
                Kind.PULL_PART,
                request,
                timeout_s=timeout_s,
                sink=lambda _, size: buffer if size == len(buffer) else None,
            )
        except (NetworkError, RemoteProtocolError) as error:
            log.debug("pulling a part failed", source=short(peer), reason=str(error))
            return
        proven = self._prove(values, part, root, peer) if answer.payload is not None else None
        if proven is not None:
            self._proven[number, attempt, part.index] = proven
            self._notify()

"""How a round's vector is cut: one contiguous part of chunks for each aggregator."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from btard.identity import PeerId
from btard.robust import Layout, compute_parts
from btard.rules.config import RunConfig
from btard.rules.draws import compute_part_order
from btard.rules.roster import Roster


@dataclass(frozen=True)
class Part:
    """The contiguous chunks that one aggregator reduces, with the radii that scale to its length."""

    index: int
    aggregator: PeerId
    chunks: range
    start: int
    stop: int
    tau: float
    delta: float

    def __hash__(self) -> int:
        """Return where it ends, which no other of the same cut does: parts are looked up often."""
        return self.stop

    @cached_property
    def elements(self) -> int:
        """Its length; 0 where there are fewer chunks than members."""
        return self.stop - self.start


def cut_parts(config: RunConfig, q: bytes, roster: Roster, remaining: Roster) -> tuple[Part, ...]:
    """Return the parts of an attempt: the order drawn from q over the round's roster, cut for those who remain."""
    layout = Layout(config.elements, config.chunk_size)
    order = compute_part_order(q, roster, remaining)
    return tuple(
        _part(config, layout, index, aggregator, chunks)
        for index, (aggregator, chunks) in enumerate(zip(order, compute_parts(layout.chunks, len(order)), strict=True))
    )


def _part(config: RunConfig, layout: Layout, index: int, aggregator: PeerId, chunks: range) -> Part:
    where = layout.elements_of(chunks)
    length = where.stop - where.start
    return Part(
        index,
        aggregator,
        chunks,
        where.start,
        where.stop,
        config.scale(config.tau, length),
        config.scale(config.delta, length),
    )


def find_part_of(parts: Sequence[Part], aggregator: PeerId) -> Part:
    """Return the part that ``aggregator`` reduces."""
    return next(part for part in parts if part.aggregator == aggregator)

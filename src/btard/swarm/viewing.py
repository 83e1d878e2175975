"""What a member shows in a recovery: its view, with the messages that others call missing and the proofs it holds."""

from collections.abc import Iterable, Sequence
from itertools import islice

from msgspec.structs import replace

from btard.errors import LocalProtocolError
from btard.identity import Context, PeerId, digest
from btard.rules.evidence import EquivocationProof
from btard.rules.marks import Marks
from btard.rules.messages import (
    MAX_EVIDENCE,
    MAX_HEADER,
    Halt,
    Holding,
    Phase,
    Position,
    Resume,
    SignedMessage,
    Stage,
    View,
)
from btard.rules.recovery import Equivocation, compute_largest, number_pairs
from btard.swarm.broadcast import Broadcast, take_small
from btard.swarm.place import Expectation
from btard.wire import encode

ENVELOPE_COST = MAX_HEADER + 96
"""Bytes of an envelope beside its payload, and of the head of a list in it."""

NOT_DUE = digest(Context.HELD, b"nothing")
"""What is held of a stage from a member that was none yet."""


def build_view(
    broadcast: Broadcast,
    calls: Sequence[SignedMessage],
    evidence: Iterable[Equivocation],
    marks: Marks,
    halt: bytes,
    *,
    resumed: bool,
) -> View:
    """Return our view; ``calls`` are the HALTs and RESUMEs known, ``halt`` is the HALT that it answers, if one.

    It answers RESUMEs if it is ``resumed``: the recovery before decided nothing. Else, without HALT, AGREE is complete.
    """
    place = broadcast.place
    stages = [item for item in (place.last, place.current) if item is not None]
    if not stages:
        raise LocalProtocolError("a recovery before the first round")
    view = View(
        make_position(stages[-1].stage),
        place.overdue,
        (*(_build_holding(broadcast, item) for item in stages), *_find_said_later(broadcast)),
        (),
        encode_proofs(evidence),
        halt,
        number_pairs(place.roster, marks),
        resumed,
    )
    room = compute_largest(Phase.VIEW, len(place.roster)) - len(encode(view)) - ENVELOPE_COST
    return replace(view, supplied=_find_supply(broadcast, calls, stages, room))


def _build_holding(broadcast: Broadcast, expectation: Expectation) -> Holding:
    accepted = {peer: message.digest for peer, message in broadcast.accepted(expectation).items()}
    nothing = {peer: NOT_DUE for peer in broadcast.place.roster.members if peer not in expectation.roster}
    digests = tuple((accepted | nothing).get(peer, b"") for peer in broadcast.place.roster.members)
    return Holding(make_position(expectation.stage), digests)


def _find_said_later(broadcast: Broadcast) -> tuple[Holding, ...]:
    """What shows that we were past the COMMIT in which we are since a restart: what we said after it."""
    place, own = broadcast.place, broadcast.me
    if place.last is not None or place.current is None or place.current.stage.phase is not Phase.COMMIT:
        return ()
    later = (place.current.stage._replace(phase=phase) for phase in (Phase.AGGREGATE, Phase.AGREE))
    said = next((message for stage in later if (message := broadcast.board.of(stage).get(own))), None)
    if said is None:
        return ()
    digests = tuple(said.digest if peer == own else b"" for peer in place.roster.members)
    return (Holding(make_position(said.slot.stage), digests),)


def _find_supply(
    broadcast: Broadcast, calls: Sequence[SignedMessage], stages: Sequence[Expectation], room: int
) -> tuple[bytes, ...]:
    """The bytes of whatever is called missing and we hold, as far as there is room, the small ones first."""
    supplied = set()
    for call in calls:
        assert isinstance(call.payload, Halt | Resume)
        for expectation in stages:
            if expectation.stage == call.payload.position.stage:
                accepted = broadcast.accepted(expectation)
                supplied |= {accepted[PeerId(p)].envelope for p in call.payload.missing if p in accepted}
    return tuple(sorted(take_small(supplied, room)))


def make_position(stage: Stage) -> Position:
    """Return a stage as a value on the wire."""
    return Position(*map(int, stage))


def make_proof(item: Equivocation) -> EquivocationProof:
    """Return an equivocation as evidence."""
    return EquivocationProof(item.first.encoded, item.second.encoded)


def encode_proofs(evidence: Iterable[Equivocation]) -> tuple[bytes, ...]:
    """Return as many proofs as a message may hold; the others follow in the next recovery."""
    return tuple(encode(make_proof(item)) for item in islice(evidence, MAX_EVIDENCE))

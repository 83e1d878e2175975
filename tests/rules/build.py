"""Small rosters, messages and transcripts for tests of the rules, which never look at signatures."""

from collections.abc import Mapping

from btard.identity import Context, PeerId, digest
from btard.rules.config import RunConfig
from btard.rules.messages import AnyPayload, Phase, Position, SignedMessage, Slot, Stage, Transcript
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.wire import encode

FOUNDER = "ab" * 32


def make_peers(count: int) -> tuple[PeerId, ...]:
    """Peers 0, 1, ... in roster order."""
    return tuple(PeerId(bytes([number]) + b"\x77" * 31) for number in range(count))


def make_roster(count: int) -> Roster:
    """The roster of ``make_peers(count)``."""
    return Roster(make_peers(count))


def make_config(**values: object) -> RunConfig:
    """A run of 64 elements in chunks of 4."""
    return RunConfig(**({"founder": FOUNDER, "elements": 64, "chunk_size": 4} | values))  # type: ignore[arg-type]


def make_part(config: RunConfig, index: int, aggregator: PeerId, start: int, stop: int) -> Part:
    """A part with the radii of the run."""
    length = stop - start
    chunks = range(start // config.chunk_size, -(-stop // config.chunk_size))
    tau, delta = config.scale(config.tau, length), config.scale(config.delta, length)
    return Part(index, aggregator, chunks, start, stop, tau, delta)


def make_message(sender: PeerId, stage: Stage, payload: AnyPayload, roster: bytes = b"r" * 32) -> SignedMessage:
    """A message as if its signature had been verified."""
    body = encode(payload)
    return SignedMessage(Slot(stage, sender), roster, b"", payload, b"envelope" + body, digest(Context.MESSAGE, body))


def make_transcript(stage: Stage, payloads: Mapping[PeerId, AnyPayload]) -> Transcript:
    """A transcript with these payloads, in roster order."""
    return Transcript(stage, tuple(make_message(peer, stage, payloads[peer]) for peer in sorted(payloads)))


def make_position(stage: Stage) -> Position:
    """A stage as it stands in a view."""
    return Position(*map(int, stage))


COMMIT, CONFIRM = Stage(5, 2, Phase.COMMIT), Stage(4, 2, Phase.CONFIRM)
REVEAL, CHECK = Stage(5, 2, Phase.REVEAL), Stage(5, 2, Phase.CHECK)

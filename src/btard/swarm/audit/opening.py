"""Opening the envelopes of a proof: every signature verified, every message in its place."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from btard.errors import RemoteProtocolError
from btard.identity import PeerId, short
from btard.rules.evidence import SignedHeader
from btard.rules.marks import Marks, make_pair
from btard.rules.messages import Commit, Phase, SignedMessage, Stage, Transcript
from btard.rules.parts import Part, cut_parts
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.wire import open_header, open_message

T = TypeVar("T")


class Unproven(Exception):
    """A proof does not prove what its departure claims; the message says what is missing."""


def require(condition: object, otherwise: str) -> None:
    """Go on only if ``condition`` holds.

    Raises:
        Unproven: it does not.
    """
    if not condition:
        raise Unproven(otherwise)


def open_envelope(chain: Chain, envelope: bytes) -> SignedMessage:
    """Return the message in an envelope of this run.

    Raises:
        Unproven: malformed, of another run, or badly signed.
    """
    return _open(open_message, chain, envelope)


def open_signed(chain: Chain, header: bytes) -> SignedHeader:
    """Return a signed header of this run.

    Raises:
        Unproven: malformed, of another run, or badly signed.
    """
    return _open(open_header, chain, header)


def _open(read: Callable[[bytes, bytes], T], chain: Chain, data: bytes) -> T:
    try:
        return read(chain.config.run_id, data)
    except RemoteProtocolError as error:
        raise Unproven(f"its evidence holds {error}") from None


def open_stage(chain: Chain, envelopes: Sequence[bytes], phase: Phase) -> Transcript:
    """Return messages of one stage, each of another sender, in roster order.

    Raises:
        Unproven: none, a bad envelope, another phase, mixed stages, or a sender twice.
    """
    messages = sorted((open_envelope(chain, envelope) for envelope in envelopes), key=lambda message: message.sender)
    require(messages, f"it holds no {phase.name} message")
    stages = {message.slot.stage for message in messages}
    require(
        len(stages) == 1 and messages[0].slot.stage.phase is phase, f"its {phase.name} messages are not of one stage"
    )
    senders = [message.sender for message in messages]
    require(len(set(senders)) == len(senders), f"it counts a {phase.name} message twice")
    return Transcript(messages[0].slot.stage, tuple(messages))


def require_roster(transcript: Transcript, roster: Roster) -> None:
    """Go on only if all messages were signed by members, for this very roster.

    Raises:
        Unproven: a stranger, or a message of another roster.
    """
    for message in transcript.messages:
        require(message.sender in roster, f"{short(message.sender)} was not a member")
        require(message.roster == roster.digest, f"{message} belongs to another roster")


def require_commits(chain: Chain, commits: Transcript) -> None:
    """Go on only if all COMMITs are signed for the roster at the start of their round, by its members or by leavers.

    Raises:
        Unproven: one is a stranger's, or of another roster, or there is no seal before that round.
    """
    number = commits.stage.round
    start, leavers = chain.roster_before(number), chain.leavers_in(number)
    if start is None:
        raise Unproven(f"there is no seal before round {number}")
    require_roster(commits.without([PeerId(peer) for peer in leavers - start.everyone]), start)
    for message in commits.messages:
        require(message.roster == start.digest, f"{message} belongs to another roster")


def find_roster(chain: Chain, number: int, attempt: int) -> Roster:
    """Return the roster of an attempt at a round.

    Raises:
        Unproven: there is no seal before that round.
    """
    roster = chain.roster_in(number, attempt)
    if roster is None:
        raise Unproven(f"there is no seal before round {number}")
    return roster


def find_parts(chain: Chain, number: int, attempt: int) -> tuple[Part, ...]:
    """Return the parts of an attempt, cut by the draw of the seal before its round.

    Raises:
        Unproven: there is no such seal, no vector, or nobody left.
    """
    remaining = find_roster(chain, number, attempt)
    seal, first = chain.seal_before(number), chain.roster_before(number)
    require(chain.config.elements and chain.config.chunk_size and len(remaining), "there is no vector or nobody left")
    require(seal and first, f"there is no seal before round {number}")
    assert seal is not None
    assert first is not None
    return cut_parts(chain.config, seal.q, first, remaining)


def open_commits(chain: Chain, envelopes: Sequence[bytes], number: int) -> Transcript:
    """Return COMMITs of a round, which belong to its first attempt and to the roster at its start.

    Raises:
        Unproven: some do not.
    """
    commits = open_stage(chain, envelopes, Phase.COMMIT)
    seal = chain.seal_before(number)
    require(seal, f"there is no seal before round {number}")
    assert seal is not None
    require(commits.stage == Stage(number, seal.attempt, Phase.COMMIT), "the commitments are of another round")
    require_commits(chain, commits)
    return commits


def find_contributors(commits: Transcript) -> tuple[PeerId, ...]:
    """Return the members that stand for a gradient; validators and those who say goodbye commit to none."""
    return tuple(m.sender for m in commits.messages if isinstance(m.payload, Commit) and m.payload.root)


def read_marks(pairs: Sequence[tuple[bytes, bytes]]) -> Marks:
    """Return the marked pairs of a proof.

    Raises:
        Unproven: a pair of one.
    """
    require(all(one != other for one, other in pairs), "it marks somebody with itself")
    return Marks(frozenset(make_pair(PeerId(one), PeerId(other)) for one, other in pairs))


def is_majority_certain(against: int, roster: Roster) -> bool:
    """Return whether so many members said no that no majority can have said yes, whoever is left out."""
    return against > len(roster) - roster.majority


def is_from(transcript: Transcript, peer: bytes) -> bool:
    """Return whether a message of ``peer`` is in the transcript."""
    return any(message.sender == PeerId(peer) for message in transcript.messages)

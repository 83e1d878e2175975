"""Proofs by majority that rest on answers to a question: votes on disputes, attestations about complaints."""

from collections.abc import Sequence

from btard.identity import PeerId
from btard.rules.charges import find_loss
from btard.rules.disputes import Dispute, DisputeKind, settle
from btard.rules.evidence import AttestProof, Cause, ChargeProof, Departure, DepartureKind, VoteProof
from btard.rules.messages import Attest, Opinion, Phase, Transcript, Vote
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import (
    find_roster,
    is_majority_certain,
    open_stage,
    require,
    require_roster,
)
from btard.swarm.audit.questions import find_complaints, find_disputes

ACCUSED_OF = {
    DisputeKind.GRADIENT: {Cause.FALSE_GRADIENT, Cause.FALSE_REPORT},
    DisputeKind.REPORT: {Cause.FALSE_REPORT},
    DisputeKind.COLUMN: {Cause.WRONG_AGGREGATE, Cause.FALSE_REPORT},
}
"""For what the accused of a dispute can be banned."""
ACCUSER_OF = {
    DisputeKind.GRADIENT: {Cause.FALSE_ACCUSATION},
    DisputeKind.REPORT: {Cause.FALSE_NAMING},
    DisputeKind.COLUMN: set[Cause](),
}
"""For what the accuser can."""
BYSTANDER_OF = {
    DisputeKind.GRADIENT: set[Cause](),
    DisputeKind.REPORT: set[Cause](),
    DisputeKind.COLUMN: {Cause.FALSE_REPORT},
}
"""For what others can: an opened column shows every contributor's report."""


def check_votes(chain: Chain, departure: Departure, proof: VoteProof) -> None:
    """Return if the agreed votes on a dispute ban or remove the departed, for the cause given.

    Raises:
        Unproven: they do not, or it was another dispute.
    """
    votes, roster = _open_votes(chain, departure, proof.votes)
    disputes = find_disputes(chain, votes, proof)
    require(proof.index < len(disputes), "the votes know no such dispute")
    dispute = disputes[proof.index]
    described = (proof.kind, proof.round, proof.accused, proof.accuser)
    actual = (dispute.kind.value, dispute.round, dispute.accused, dispute.accuser or b"")
    require(described == actual, "that dispute was another one")
    opinions = _read_opinions(votes, proof.index, len(disputes))
    if departure.kind is DepartureKind.BAN:
        _require_ban(departure, dispute, opinions, len(votes.messages), roster)
    else:
        removed = settle(dispute, opinions, roster).removed
        require(departure.kind is DepartureKind.REMOVAL and departure.peer in removed, "the votes do not remove it")


def check_charge(chain: Chain, departure: Departure, proof: ChargeProof) -> None:
    """Return if the agreed answers to a charge ban or remove the departed, for the cause given.

    Raises:
        Unproven: they do not, or it is about somebody else.
    """
    confirms, _ = _open_answers(chain, departure, proof.confirms, Phase.CONFIRM)
    electorate = chain.electorate_in(departure.round, departure.attempt)
    assert electorate is not None
    loss = find_loss(confirms, proof.candidate, proof.checker, electorate)
    require(loss is not None, "the answers convict nobody")
    require(loss == (departure.peer, departure.kind, departure.cause), "the answers do not convict it of that")


def _open_votes(chain: Chain, departure: Departure, envelopes: Sequence[bytes]) -> tuple[Transcript, Roster]:
    """The votes that count, and who had one: newcomers have none on what was before them."""
    votes, roster = _open_answers(chain, departure, envelopes, Phase.VOTE)
    electorate = chain.electorate_in(departure.round, departure.attempt) if votes.stage.serial == 0 else roster
    assert electorate is not None
    return votes.without([peer for peer in roster.members if peer not in electorate]), electorate


def _open_answers(
    chain: Chain, departure: Departure, envelopes: Sequence[bytes], phase: Phase
) -> tuple[Transcript, Roster]:
    """The answers of a departure's attempt, and who was to answer."""
    answers = open_stage(chain, envelopes, phase)
    where = (departure.round, departure.attempt)
    require(answers.stage[:2] == where, f"its {phase.name} messages are of another round or attempt")
    roster = find_roster(chain, *where)
    require_roster(answers, roster)
    return answers, roster


def _read_opinions(votes: Transcript, index: int, disputes: int) -> list[Opinion]:
    """The opinions on one dispute; a vote on another number of disputes does not count."""
    cast = [message.payload.opinions for message in votes.messages if isinstance(message.payload, Vote)]
    return [opinions[index] for opinions in cast if len(opinions) == disputes]


def _require_ban(
    departure: Departure, dispute: Dispute, opinions: Sequence[Opinion], votes: int, roster: Roster
) -> None:
    peer, kind = PeerId(departure.peer), dispute.kind
    guilty = sum(peer in opinion.guilty for opinion in opinions) >= roster.majority
    if peer == dispute.accused:
        require(guilty, "the votes do not convict it")
        allowed = ACCUSED_OF[kind]
    elif peer == dispute.accuser:
        against = votes - sum(dispute.accused in opinion.guilty for opinion in opinions)
        require(guilty or is_majority_certain(against, roster), "the votes uphold its accusation")
        require(peer in settle(dispute, opinions, roster).banned, "the votes do not convict it")
        allowed = ACCUSER_OF[kind]
    else:
        require(guilty, "the votes do not convict it")
        allowed = BYSTANDER_OF[kind]
    require(departure.cause in allowed, f"a dispute about a {kind} does not ban it for {departure.cause}")


def check_attestations(chain: Chain, departure: Departure, proof: AttestProof) -> None:
    """Return if not even half of the roster held what a complaint asked the departed for.

    Raises:
        Unproven: enough did, too few of them are heard, or the complaint was about somebody else.
    """
    attests, roster = _open_answers(chain, departure, proof.attests, Phase.ATTEST)
    complaints = find_complaints(chain, attests, proof)
    require(proof.index < len(complaints), "there was no such complaint")
    require(complaints[proof.index].accused == departure.peer, "that complaint was about somebody else")
    held = [message.payload.held for message in attests.messages if isinstance(message.payload, Attest)]
    without = sum(len(answers) == len(complaints) and not answers[proof.index] for answers in held)
    require(is_majority_certain(without, roster), "enough members may have held what it was asked for")

"""Proofs by majority: the signed word of more than half of a roster."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from btard.errors import RemoteProtocolError
from btard.identity import PeerId
from btard.rules.disputes import Dispute, DisputeKind, settle
from btard.rules.evidence import (
    AttestProof,
    Cause,
    CertificateProof,
    Departure,
    DepartureKind,
    EquivocationProof,
    StateProof,
    VoteProof,
)
from btard.rules.messages import Attest, Commit, Opinion, Phase, SignedMessage, Transcript, View, Vote
from btard.rules.recovery import (
    Decision,
    Equivocation,
    compute_views_digest,
    decide,
    find_certificate,
    is_equivocation,
)
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import (
    Unproven,
    find_roster,
    is_from,
    is_majority_certain,
    open_envelope,
    open_stage,
    require,
    require_roster,
)
from btard.wire import decode

ACCUSED_OF = {
    DisputeKind.GRADIENT: {Cause.FALSE_GRADIENT, Cause.FALSE_REPORT},
    DisputeKind.REPORT: {Cause.FALSE_REPORT},
    DisputeKind.COLUMN: {Cause.WRONG_AGGREGATE},
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
        Unproven: they do not.
    """
    votes = open_stage(chain, proof.votes, Phase.VOTE)
    require(votes.stage[:2] == (departure.round, departure.attempt), "the votes are of another round or attempt")
    roster = find_roster(chain, votes.stage.round, votes.stage.attempt)
    require_roster(votes, roster)
    dispute = _read_dispute(chain, departure, proof)
    opinions = _read_opinions(votes, proof.index)
    if departure.kind is DepartureKind.BAN:
        _require_ban(departure, dispute, opinions, len(votes.messages), roster)
    else:
        removed = settle(dispute, opinions, roster).removed
        require(departure.kind is DepartureKind.REMOVAL and departure.peer in removed, "the votes do not remove it")


def _read_dispute(chain: Chain, departure: Departure, proof: VoteProof) -> Dispute:
    require(proof.kind in set(DisputeKind), f"there are no disputes about {proof.kind!r}")
    kind = DisputeKind(proof.kind)
    about = departure.round - proof.round
    require(
        about in {DisputeKind.GRADIENT: {1}, DisputeKind.REPORT: {0}}.get(kind, {0, 1}), "it disputes another round"
    )
    members = chain.roster_before(proof.round)
    require(members and proof.accused in members, "the accused was not a member")
    require(bool(proof.accuser) == (kind is not DisputeKind.COLUMN), "its accuser is missing or out of place")
    require(not proof.accuser or (members and proof.accuser in members), "the accuser was not a member")
    accuser = PeerId(proof.accuser) if proof.accuser else None
    return Dispute(kind, proof.round, PeerId(proof.accused), accuser)


def _read_opinions(votes: Transcript, index: int) -> list[Opinion]:
    """The opinions on one dispute; a vote on another number of disputes than most others does not count."""
    cast = [message.payload.opinions for message in votes.messages if isinstance(message.payload, Vote)]
    usual = Counter(map(len, cast)).most_common(1)[0][0]
    require(index < usual, "the votes know no such dispute")
    return [opinions[index] for opinions in cast if len(opinions) == usual]


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


def check_certificate(chain: Chain, departure: Departure, proof: CertificateProof) -> None:
    """Return if a recovery's certificate decides that the departed leaves.

    Raises:
        Unproven: no certificate, or another decision.
    """
    ballots, views = open_stage(chain, proof.ballots, Phase.BALLOT), open_stage(chain, proof.views, Phase.VIEW)
    require(ballots.stage == views.stage._replace(phase=Phase.BALLOT), "ballots and views are of two recoveries")
    require(ballots.stage[:2] == (0, departure.attempt), "the recovery was of another attempt")
    roster = find_roster(chain, departure.round, departure.attempt)
    require_roster(ballots, roster)
    require_roster(views, roster)
    found = find_certificate(roster, {message.sender: message for message in ballots.messages})
    held = {message.sender: message for message in views.messages}
    require(found is not None and compute_views_digest(held) == found[1], "its ballots are no certificate")
    decision = _decide(chain, roster, views)
    leaving = decision.banned if departure.kind is DepartureKind.BAN else decision.removed
    require(departure.peer in leaving, "the recovery decided otherwise")
    require(decision.resume_round == departure.round, "the recovery was of another round")


def _decide(chain: Chain, roster: Roster, views: Transcript) -> Decision:
    payloads: Mapping[PeerId, View] = {
        message.sender: message.payload for message in views.messages if isinstance(message.payload, View)
    }
    found = {item.culprit: item for view in payloads.values() for item in _open_equivocations(chain, view)}
    tolerated = roster.tolerated(chain.config.byzantine_bound)
    return decide(roster, payloads, tuple(found.values()), tolerated, _read_supplied(chain, payloads.values()))


def _read_supplied(chain: Chain, views: Iterable[View]) -> list[SignedMessage]:
    """The messages that views supply; what is no message counts for nothing."""
    messages = []
    for envelope in sorted({envelope for view in views for envelope in view.supplied}):
        with suppress(RemoteProtocolError, Unproven):
            messages.append(open_envelope(chain, envelope))
    return messages


def _open_equivocations(chain: Chain, view: View) -> Iterator[Equivocation]:
    for data in view.evidence:
        try:
            pair: EquivocationProof = decode(data, EquivocationProof)
            first, second = open_envelope(chain, pair.first), open_envelope(chain, pair.second)
        except (RemoteProtocolError, Unproven):
            continue  # a member may put anything into its view; what does not open has no effect
        if is_equivocation(first, second):
            yield Equivocation(first, second)


def check_attestations(chain: Chain, departure: Departure, proof: AttestProof) -> None:
    """Return if fewer than half of the roster held what the departed was asked to publish.

    Raises:
        Unproven: enough did, or too few of them are heard.
    """
    attests = open_stage(chain, proof.attests, Phase.ATTEST)
    require(
        attests.stage[:2] == (departure.round, departure.attempt), "the attestations are of another round or attempt"
    )
    roster = find_roster(chain, attests.stage.round, attests.stage.attempt)
    require_roster(attests, roster)
    held = [message.payload.held for message in attests.messages if isinstance(message.payload, Attest)]
    require(any(proof.index < len(answers) for answers in held), "nobody attests about that complaint")
    without = sum(not any(answers[proof.index : proof.index + 1]) for answers in held)
    require(is_majority_certain(without, roster), "enough members may have held what it was asked for")


def check_state(chain: Chain, departure: Departure, proof: StateProof) -> None:
    """Return if more than half of the roster committed to one state, and the departed to another.

    Raises:
        Unproven: no majority, or the departed is part of it.
    """
    commits = open_stage(chain, proof.commits, Phase.COMMIT)
    require(commits.stage.round == departure.round, "the commitments are of another round")
    require(commits.stage.attempt <= departure.attempt, "the commitments are of a later attempt")
    start, roster = chain.roster_before(departure.round), find_roster(chain, departure.round, departure.attempt)
    assert start is not None
    require_roster(commits, start)
    require(is_from(commits, departure.peer), "it holds no commitment of the departed")
    states = {
        message.sender: message.payload.state for message in commits.messages if isinstance(message.payload, Commit)
    }
    state, count = Counter(states[peer] for peer in states if peer in roster).most_common(1)[0]
    require(count >= roster.majority, "no state has a majority")
    require(states[PeerId(departure.peer)] != state, "the departed holds the state of the majority")

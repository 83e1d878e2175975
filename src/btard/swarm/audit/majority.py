"""Proofs by majority: the signed word of more than half of a roster."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from btard.errors import RemoteProtocolError
from btard.identity import PeerId
from btard.rules.evidence import (
    CertificateProof,
    Departure,
    DepartureKind,
    EquivocationProof,
    MarksProof,
    StateProof,
)
from btard.rules.marks import compute_marks_digest
from btard.rules.messages import Agree, Commit, Phase, SignedMessage, Transcript, View
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
    open_envelope,
    open_stage,
    read_marks,
    require,
    require_roster,
)
from btard.wire import decode


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
    supplied, is_first = _read_supplied(chain, payloads.values()), views.stage.serial == 0
    return decide(roster, payloads, tuple(found.values()), tolerated, supplied, is_first=is_first)


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


def check_marks(chain: Chain, departure: Departure, proof: MarksProof) -> None:
    """Return if more than half of the roster agreed on marked pairs of which the departed has more than f.

    Raises:
        Unproven: they did not, or it has fewer.
    """
    agrees = open_stage(chain, proof.agrees, Phase.AGREE)
    require(agrees.stage[:2] == (departure.round, departure.attempt), "it was agreed on in another attempt")
    roster, marks = find_roster(chain, departure.round, departure.attempt), read_marks(proof.marks)
    require_roster(agrees, roster)
    expected = compute_marks_digest(marks)
    agreed = sum(isinstance(m.payload, Agree) and m.payload.marks == expected for m in agrees.messages)
    require(agreed >= roster.majority, "too few members agree on these pairs")
    overmarked = marks.find_overmarked(roster, roster.tolerated(chain.config.byzantine_bound))
    require(departure.peer in overmarked, "it is marked with at most f members")


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

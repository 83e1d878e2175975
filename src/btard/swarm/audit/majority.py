"""Proofs by majority: the signed word of more than half of a roster."""

from collections import Counter

from btard.identity import PeerId
from btard.rules.evidence import (
    Departure,
    MarksProof,
    StateProof,
)
from btard.rules.marks import compute_marks_digest
from btard.rules.messages import Agree, Commit, Phase
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import (
    find_roster,
    is_from,
    open_stage,
    read_marks,
    require,
    require_commits,
    require_roster,
)


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
    roster = find_roster(chain, departure.round, departure.attempt)
    require_commits(chain, commits)
    require(is_from(commits, departure.peer), "it holds no commitment of the departed")
    states = {
        message.sender: message.payload.state for message in commits.messages if isinstance(message.payload, Commit)
    }
    state, count = Counter(states[peer] for peer in states if peer in roster).most_common(1)[0]
    require(count >= roster.majority, "no state has a majority")
    require(states[PeerId(departure.peer)] != state, "the departed holds the state of the majority")

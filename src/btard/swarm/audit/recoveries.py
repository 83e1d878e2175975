"""Proofs by majority that a recovery decided: a certificate, or equal conclusions, and the views they name."""

from collections.abc import Callable

from btard.identity import PeerId
from btard.rules.evidence import Cause, CertificateProof, ConclusionProof, Departure
from btard.rules.messages import Phase, SignedMessage, Transcript
from btard.rules.recovery import Decision
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import find_roster, open_stage, require, require_roster
from btard.swarm.settlement import Messages, Settlement, draw_decision, settle_by_ballots, settle_by_conclusions

Settle = Callable[[Roster, Messages, Messages], Settlement | None]


def check_certificate(chain: Chain, departure: Departure, proof: CertificateProof) -> None:
    """Return if a recovery's certificate decides that the departed leaves.

    Raises:
        Unproven: no certificate, or another decision.
    """
    ballots, views = open_stage(chain, proof.ballots, Phase.BALLOT), open_stage(chain, proof.views, Phase.VIEW)
    settlement = _settle(chain, departure, ballots, views, settle_by_ballots)
    require(settlement is not None, "its ballots are no certificate")
    _check_decision(chain, departure, settlement)


def check_conclusion(chain: Chain, departure: Departure, proof: ConclusionProof) -> None:
    """Return if more than half of the roster concluded from views which decide that the departed leaves.

    Raises:
        Unproven: no such majority, or another decision.
    """
    concludes = open_stage(chain, proof.conclusions, Phase.CONCLUDE)
    settlement = _settle(chain, departure, concludes, open_stage(chain, proof.views, Phase.VIEW), settle_by_conclusions)
    require(settlement is not None, "its conclusions are not those of a majority")
    _check_decision(chain, departure, settlement)


def _settle(
    chain: Chain, departure: Departure, votes: Transcript, views: Transcript, settle: Settle
) -> Settlement | None:
    phase = votes.stage.phase
    require(votes.stage == views.stage._replace(phase=phase), "ballots and views are of two recoveries")
    require(votes.stage[:2] == (0, departure.attempt), "the recovery was of another attempt")
    roster = find_roster(chain, departure.round, departure.attempt)
    require_roster(votes, roster)
    require_roster(views, roster)
    return settle(roster, _by_sender(votes), _by_sender(views))


def _by_sender(transcript: Transcript) -> dict[PeerId, SignedMessage]:
    return {message.sender: message for message in transcript.messages}


def _check_decision(chain: Chain, departure: Departure, settlement: Settlement | None) -> None:
    assert settlement is not None
    decision = draw_decision(chain.config, find_roster(chain, departure.round, departure.attempt), settlement)
    require(departure.peer in _find_leaving(decision, departure.cause), "the recovery decided otherwise")
    require(decision.resume_round == departure.round, "the recovery was of another round")


def _find_leaving(decision: Decision, cause: Cause) -> tuple[PeerId, ...]:
    """Who leaves by a decision for this cause."""
    leaving = {
        Cause.EQUIVOCATION: decision.banned,
        Cause.SILENCE: decision.removed,
        Cause.TOO_MANY_MARKS: decision.overmarked,
    }
    return leaving.get(cause, ())

"""Proofs that convict by themselves: two messages for one slot, a broken promise."""

from btard.rules.draws import commit_to_nonce
from btard.rules.evidence import Departure, EquivocationProof, RevealProof
from btard.rules.messages import Aggregate, Check, Confirm, Phase, Reveal
from btard.rules.recovery import is_equivocation
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import open_envelope, open_signed, require

PROMISES = {Phase.REVEAL: Phase.AGGREGATE, Phase.CONFIRM: Phase.CHECK}
"""Where the nonce that a phase reveals was committed to."""


def check_equivocation(chain: Chain, departure: Departure, proof: EquivocationProof) -> None:
    """Return if the departed signed two different messages for one slot.

    Raises:
        Unproven: it did not.
    """
    first, second = open_signed(chain, proof.first), open_signed(chain, proof.second)
    require(first.sender == departure.peer, "the messages are somebody else's")
    require(is_equivocation(first, second), "the two messages do not contradict each other")


def check_reveal(chain: Chain, departure: Departure, proof: RevealProof) -> None:
    """Return if the departed revealed another nonce than it had committed to in the same attempt.

    Raises:
        Unproven: it did not.
    """
    commitment, reveal = open_envelope(chain, proof.commitment), open_envelope(chain, proof.reveal)
    promised, given = commitment.payload, reveal.payload
    stage = reveal.slot.stage
    require(commitment.sender == reveal.sender == departure.peer, "the messages are somebody else's")
    require(stage.phase in PROMISES, f"{stage.phase.name} reveals nothing")
    require(commitment.slot.stage == stage._replace(phase=PROMISES[stage.phase]), "the messages do not belong together")
    require((stage.round, stage.attempt) == (departure.round, departure.attempt), "it happened in another attempt")
    assert isinstance(promised, Aggregate | Check)
    assert isinstance(given, Reveal | Confirm)
    require(commit_to_nonce(reveal.slot, given.nonce) != promised.nonce, "the nonce is the promised one")

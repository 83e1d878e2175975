"""
Live adversaries for demonstrations and tests: each changes one thing that an honest peer does.

Nothing but the command line and the simulator may import this package: the protocol is told nothing
of who attacks, and finds out by its own checks.
"""

from btard.attacks.accusing import FalseAccusation, FalseNaming, LazyValidator
from btard.attacks.aggregates import LyingProjection, WrongAggregate
from btard.attacks.attacker import Attacker
from btard.attacks.catalogue import EXEMPT, KINDS, draw_mixed, make_attacker
from btard.attacks.coalition import Coalition, DirectoryCoalition, SharedCoalition
from btard.attacks.collusion import Collude
from btard.attacks.equivocation import Equivocate
from btard.attacks.gradients import RandomDirection, SignFlip
from btard.attacks.withholding import Withhold, WithholdReveal

__all__ = [
    "EXEMPT",
    "KINDS",
    "Attacker",
    "Coalition",
    "Collude",
    "DirectoryCoalition",
    "Equivocate",
    "FalseAccusation",
    "FalseNaming",
    "LazyValidator",
    "LyingProjection",
    "RandomDirection",
    "SharedCoalition",
    "SignFlip",
    "Withhold",
    "WithholdReveal",
    "WrongAggregate",
    "draw_mixed",
    "make_attacker",
]

"""
Live adversaries for demonstrations and tests: each changes one thing that an honest peer does.

Nothing but the command line and the simulator may import this package: the protocol is told nothing
of who attacks, and finds out by its own checks.
"""

from btard.attacks.accusing import FalseAccusation, FalseNaming, LazyValidator
from btard.attacks.adversaries import ADVERSARIES, SIMULATED, Post, draw_adversaries, make_adversary
from btard.attacks.aggregates import LyingProjection, WrongAggregate
from btard.attacks.attacker import Attacker, Vanished
from btard.attacks.catalogue import EXEMPT, KINDS, draw_mixed, make_attacker
from btard.attacks.coalition import Coalition, DirectoryCoalition, SharedCoalition
from btard.attacks.collusion import Collude
from btard.attacks.composed import Composed
from btard.attacks.equivocation import Equivocate
from btard.attacks.gradients import RandomDirection, SignFlip
from btard.attacks.withholding import Withhold, WithholdReveal

__all__ = [
    "ADVERSARIES",
    "EXEMPT",
    "KINDS",
    "SIMULATED",
    "Attacker",
    "Coalition",
    "Collude",
    "Composed",
    "DirectoryCoalition",
    "Equivocate",
    "FalseAccusation",
    "FalseNaming",
    "LazyValidator",
    "LyingProjection",
    "Post",
    "RandomDirection",
    "SharedCoalition",
    "SignFlip",
    "Vanished",
    "Withhold",
    "WithholdReveal",
    "WrongAggregate",
    "draw_adversaries",
    "draw_mixed",
    "make_adversary",
    "make_attacker",
]

"""
Live adversaries for demonstrations and tests: each changes one thing that an honest peer does.

Nothing but the command line and the simulator may import this package: the protocol is told nothing
of who attacks, and finds out by its own checks.
"""

from btard.attacks.accusing import FalseAccusation, FalseNaming, LazyValidator
from btard.attacks.adversaries import ADVERSARIES, CANDIDATES, SIMULATED, Post, make_adversary
from btard.attacks.aggregates import LyingProjection, WrongAggregate
from btard.attacks.attacker import Attacker, Vanished
from btard.attacks.catalogue import EXEMPT, IDLE_CANDIDATE, KINDS, draw_mixed, make_attacker
from btard.attacks.coalition import Coalition, DirectoryCoalition, SharedCoalition
from btard.attacks.collusion import Collude, ColludeWithNorms
from btard.attacks.complaining import ComplainAtGather, ComplainAtScatter, ComplainInCheck, HaltAlways
from btard.attacks.composed import Composed
from btard.attacks.concluding import LateChains, LieInConclude, ReplayChains
from btard.attacks.conspiring import Conspire
from btard.attacks.equivocation import Equivocate, EquivocateInHalves
from btard.attacks.flooding import FloodGarbage, FloodWithinTheRules
from btard.attacks.forging import Forge, Impersonate, Replay, SignElsewhere
from btard.attacks.gatekeeping import CloseTheDoor, OverlookCandidates, SlanderCandidates
from btard.attacks.gradients import RandomDirection, SignFlip
from btard.attacks.resuming import ResumeAlways
from btard.attacks.shirking import IdleCandidate, LyingSample, StaleTicket
from btard.attacks.strangers import SIEGES, besiege
from btard.attacks.timing import Crash, Flap, LastMoment
from btard.attacks.values import POISONS, PoisonAggregate, PoisonGradient, PoisonReports
from btard.attacks.whims import Whims
from btard.attacks.withholding import Deaf, Withhold, WithholdFrames, WithholdFromOne, WithholdPart, WithholdWord
from btard.attacks.words import (
    BadSeal,
    BreakPromise,
    LieAboutPosition,
    LieInAttest,
    LieInBallot,
    LieInView,
    OtherState,
    VoteAgainst,
)

__all__ = [
    "ADVERSARIES",
    "CANDIDATES",
    "EXEMPT",
    "IDLE_CANDIDATE",
    "KINDS",
    "POISONS",
    "SIEGES",
    "SIMULATED",
    "Attacker",
    "BadSeal",
    "BreakPromise",
    "CloseTheDoor",
    "Coalition",
    "Collude",
    "ColludeWithNorms",
    "ComplainAtGather",
    "ComplainAtScatter",
    "ComplainInCheck",
    "Composed",
    "Conspire",
    "Crash",
    "Deaf",
    "DirectoryCoalition",
    "Equivocate",
    "EquivocateInHalves",
    "FalseAccusation",
    "FalseNaming",
    "Flap",
    "FloodGarbage",
    "FloodWithinTheRules",
    "Forge",
    "HaltAlways",
    "IdleCandidate",
    "Impersonate",
    "LastMoment",
    "LateChains",
    "LazyValidator",
    "LieAboutPosition",
    "LieInAttest",
    "LieInBallot",
    "LieInConclude",
    "LieInView",
    "LyingProjection",
    "LyingSample",
    "OtherState",
    "OverlookCandidates",
    "PoisonAggregate",
    "PoisonGradient",
    "PoisonReports",
    "Post",
    "RandomDirection",
    "Replay",
    "ReplayChains",
    "ResumeAlways",
    "SharedCoalition",
    "SignElsewhere",
    "SignFlip",
    "SlanderCandidates",
    "StaleTicket",
    "Vanished",
    "VoteAgainst",
    "Whims",
    "Withhold",
    "WithholdFrames",
    "WithholdFromOne",
    "WithholdPart",
    "WithholdWord",
    "WrongAggregate",
    "besiege",
    "draw_mixed",
    "make_adversary",
    "make_attacker",
]

"""
The adversaries of the simulator: every kind by name, and several kinds in one peer.

``KINDS`` of the catalogue can be ordered from the command line; all others exist for simulation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from btard.attacks.attacker import Attacker, choose
from btard.attacks.catalogue import IDLE_CANDIDATE, KINDS, make_attacker
from btard.attacks.coalition import Coalition, SharedCoalition
from btard.attacks.collusion import ColludeWithNorms
from btard.attacks.complaining import ComplainAtGather, ComplainAtScatter, ComplainInCheck, HaltAlways
from btard.attacks.composed import Composed
from btard.attacks.concluding import LateChains, LieInConclude, ReplayChains
from btard.attacks.conspiring import TACTICS, Conspire
from btard.attacks.equivocation import EquivocateInHalves
from btard.attacks.flooding import FloodGarbage, FloodWithinTheRules
from btard.attacks.forging import Forge, Impersonate, Replay, SignElsewhere
from btard.attacks.gatekeeping import CloseTheDoor, ForgePlaces, OverlookCandidates, QuoteFalsely, SlanderCandidates
from btard.attacks.resuming import ResumeAlways
from btard.attacks.shirking import (
    FalseTicket,
    FloodingStranger,
    IdleCandidate,
    LeavingCandidate,
    LyingSample,
    StaleTicket,
    TwoFacedCandidate,
)
from btard.attacks.timing import Crash, Flap, LastMoment
from btard.attacks.values import PoisonAggregate, PoisonGradient, PoisonReports
from btard.attacks.whims import Whims
from btard.attacks.withholding import Deaf, WithholdFrames, WithholdFromOne, WithholdPart, WithholdWord
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
from btard.identity import PeerId
from btard.rules.config import RunConfig
from btard.rules.messages import Phase
from btard.swarm.frames import Kind


@dataclass(frozen=True)
class Post:
    """Where an adversary is placed: the run, its own id, from which round on, and the board of its coalition.

    It knows the slowest gradient that was promised at genesis, from which the deadlines follow.
    """

    config: RunConfig
    me: PeerId
    seed: int
    first_round: int
    coalition: Coalition = field(default_factory=SharedCoalition)
    gradient_ms: int = 100

    @property
    def run_id(self) -> bytes:
        """The run that its messages belong to."""
        return self.config.run_id


Maker = Callable[[Post], Attacker]

CHAINS = frozenset({Kind.CHAIN})
RESUMES = frozenset({Kind.RESUME, Kind.SEAL, Kind.CERTIFICATE})
"""What halted members say, and what they are answered."""


def _from_catalogue(kind: str) -> Maker:
    return lambda post: make_attacker(
        kind,
        seed=post.seed,
        first_round=post.first_round,
        config=post.config,
        me=post.me,
        coalition=post.coalition,
    )


def _crash_in(phase: Phase) -> Maker:
    """Halt a round without need, and vanish in the midst of the recovery with ``phase`` half sent."""

    def make(post: Post) -> Attacker:
        told = choose(range(post.config.genesis_size), "told", post.seed, post.me)
        return Composed([HaltAlways(post.first_round, post.seed), Crash(post.first_round, phase=phase, told=told)])

    return make


def _crash_anywhere(post: Post) -> Attacker:
    told = choose(range(post.config.genesis_size), "told", post.seed, post.me)
    phase = choose((Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM), post.seed, post.me)
    return Crash(post.first_round, phase=phase, told=told)


def _conspire(post: Post) -> Attacker:
    roles = {name: ADVERSARIES[name](post) for tactic in TACTICS for name in tactic if name}
    return Conspire(post.first_round, post.seed, post.me, post.coalition, roles)


ADVERSARIES: Mapping[str, Maker] = {
    **{kind: _from_catalogue(kind) for kind in KINDS},
    "collude-with-norms": lambda p: ColludeWithNorms(p.first_round, p.seed, p.me, p.coalition, p.config.delay_s),
    "equivocate-in-halves": lambda p: EquivocateInHalves(p.first_round, p.seed),
    "late": lambda p: LastMoment(p.first_round, p.seed, p.config, gradient_ms=p.gradient_ms),
    "replay": lambda p: Replay(p.first_round, p.run_id, p.seed),
    "sign-elsewhere": lambda p: SignElsewhere(p.first_round, p.run_id, p.seed),
    "forge": lambda p: Forge(p.first_round, p.seed),
    "impersonate": lambda p: Impersonate(p.first_round, p.run_id),
    "withhold-from-one": lambda p: WithholdFromOne(p.first_round, p.seed),
    "withhold-part": lambda p: WithholdPart(p.first_round, p.seed, is_from_all=True),
    "withhold-part-from-one": lambda p: WithholdPart(p.first_round, p.seed),
    "deaf": lambda p: Deaf(p.first_round),
    "complain-at-scatter": lambda p: ComplainAtScatter(p.first_round, p.run_id),
    "complain-at-gather": lambda p: ComplainAtGather(p.first_round),
    "complain-in-check": lambda p: ComplainInCheck(p.first_round, p.me),
    "halt-always": lambda p: HaltAlways(p.first_round, p.seed),
    "lie-in-view": lambda p: LieInView(p.first_round, p.seed, p.me),
    "lie-about-position": lambda p: LieAboutPosition(p.first_round, p.seed, p.me),
    "lie-in-ballot": lambda p: LieInBallot(p.first_round, p.seed, p.me),
    "lie-in-conclude": lambda p: LieInConclude(p.first_round, p.seed, p.me),
    "withhold-ballot": lambda p: WithholdWord(p.first_round, Phase.BALLOT),
    "withhold-conclude": lambda p: WithholdWord(p.first_round, Phase.CONCLUDE),
    "withhold-chains": lambda p: WithholdFrames(p.first_round, p.seed, CHAINS),
    "chains-to-half": lambda p: WithholdFrames(p.first_round, p.seed, CHAINS, to_half=True),
    "late-chains": lambda p: LateChains(p.first_round, p.seed, p.coalition, p.config.delay_s),
    "replay-chains": lambda p: ReplayChains(p.first_round),
    "resume-always": lambda p: ResumeAlways(p.first_round, p.seed),
    "resume-absurdly": lambda p: ResumeAlways(p.first_round, p.seed, is_absurd=True),
    "withhold-resume": lambda p: WithholdFrames(p.first_round, p.seed, RESUMES),
    "attest-all": lambda p: LieInAttest(p.first_round, p.seed, p.me),
    "attest-nothing": lambda p: LieInAttest(p.first_round, p.seed, p.me, denies=True),
    "vote-against": lambda p: VoteAgainst(p.first_round, p.seed, p.me),
    "other-state": lambda p: OtherState(p.first_round, p.seed, p.me),
    "bad-seal": lambda p: BadSeal(p.first_round, p.seed, p.me),
    "break-promise": lambda p: BreakPromise(p.first_round, p.seed, p.me),
    "crash": _crash_anywhere,
    "crash-in-view": _crash_in(Phase.VIEW),
    "crash-in-ballot": _crash_in(Phase.BALLOT),
    "flap": lambda p: Flap(p.first_round, p.seed),
    "flood-garbage": lambda p: FloodGarbage(p.first_round, p.seed),
    "flood-within-the-rules": lambda p: FloodWithinTheRules(p.first_round, p.seed),
    "poison-gradient": lambda p: PoisonGradient(p.first_round, p.seed),
    "poison-aggregate": lambda p: PoisonAggregate(p.first_round, p.seed),
    "poison-reports": lambda p: PoisonReports(p.first_round, p.seed),
    "slander-candidates": lambda p: SlanderCandidates(p.first_round),
    "overlook-candidates": lambda p: OverlookCandidates(p.first_round),
    "quote-falsely": lambda p: QuoteFalsely(p.first_round, p.seed),
    "close-the-door": lambda p: CloseTheDoor(p.first_round),
    "forge-places": lambda p: ForgePlaces(p.first_round, p.config.elements),
    "plan": _conspire,
    "whims": lambda p: Whims(p.first_round, p.seed, p.me, p.config.rounds, p.config.delay_s),
}
"""Every kind of adversary: those of the command line first."""

CANDIDATES: Mapping[str, Maker] = {
    IDLE_CANDIDATE: _from_catalogue(IDLE_CANDIDATE),
    "half-idle-candidate": lambda p: IdleCandidate(p.first_round, p.seed, p.me, p.config.projections, every=2),
    "lying-sample": lambda p: LyingSample(p.first_round, 0.5),
    "different-sample": lambda p: LyingSample(p.first_round, 0.01),
    "two-faced-candidate": lambda p: TwoFacedCandidate(p.first_round),
    "leaving-candidate": lambda p: LeavingCandidate(p.first_round, choose(range(4), "leaves", p.seed, p.me)),
    "false-ticket": lambda p: FalseTicket(p.first_round, p.seed),
    "foreign-ticket": lambda p: FalseTicket(p.first_round, p.seed, is_foreign=True),
    "stale-ticket": lambda p: StaleTicket(p.first_round),
    "flooding-stranger": lambda p: FloodingStranger(p.first_round),
}
"""What Byzantine strangers do on their way in; as members they may do anything else."""

SIMULATED = tuple(kind for kind in ADVERSARIES if kind not in KINDS)
"""The kinds that only the simulator orders."""


def make_adversary(kinds: Sequence[str], post: Post) -> Attacker:
    """Return an adversary that does all of ``kinds`` at once; its ``kind`` is their names, joined by ``+``."""
    members = []
    for kind in kinds:
        member = (ADVERSARIES.get(kind) or CANDIDATES[kind])(post)
        member.kind = kind
        members.append(member)
    return members[0] if len(members) == 1 else Composed(members)

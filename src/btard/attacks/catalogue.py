"""The attackers by name, as the command line and the simulator order them."""

from collections.abc import Callable
from pathlib import Path

from btard.attacks.accusing import FalseAccusation, FalseNaming, LazyValidator
from btard.attacks.aggregates import LyingProjection, WrongAggregate
from btard.attacks.attacker import Attacker
from btard.attacks.coalition import Coalition, DirectoryCoalition
from btard.attacks.collusion import Collude
from btard.attacks.equivocation import Equivocate
from btard.attacks.gradients import RandomDirection, SignFlip
from btard.attacks.shirking import IdleCandidate
from btard.attacks.withholding import Withhold, WithholdWord
from btard.errors import ConfigError
from btard.identity import Context, PeerId, digest
from btard.rules.config import RunConfig
from btard.rules.messages import Phase

_MAKERS: dict[str, Callable[[int, int, PeerId], Attacker]] = {
    "sign-flip": lambda first, seed, me: SignFlip(first),
    "random-direction": lambda first, seed, me: RandomDirection(first, seed),
    "wrong-aggregate": lambda first, seed, me: WrongAggregate(first, seed),
    "lying-projection": lambda first, seed, me: LyingProjection(first, seed),
    "equivocate": lambda first, seed, me: Equivocate(first),
    "withhold": lambda first, seed, me: Withhold(first),
    "withhold-reveal": lambda first, seed, me: WithholdWord(first, Phase.REVEAL),
    "false-accusation": lambda first, seed, me: FalseAccusation(first),
    "false-naming": FalseNaming,
    "lazy-validator": lambda first, seed, me: LazyValidator(first),
}

COLLUDE = "collude"
KINDS = (*_MAKERS, COLLUDE)
"""All kinds of attackers."""

IDLE_CANDIDATE = "idle-candidate"
"""What a Sybil of a demo does; not among the kinds, for only a candidate can do it."""

EXEMPT = frozenset({"lazy-validator"})
"""Kinds that nobody can prove and that harm nobody by themselves: they may stay."""


def make_attacker(
    kind: str,
    *,
    seed: int,
    first_round: int,
    config: RunConfig,
    me: PeerId,
    coalition: Coalition | Path | None = None,
) -> Attacker:
    """Return an attacker of this kind, honest before ``first_round``.

    Attackers of one run share ``seed``; colluders also the ``coalition``, a directory if they are processes.

    Raises:
        ConfigError: an unknown kind, or a colluder without a coalition.
    """
    if kind == COLLUDE:
        if coalition is None:
            raise ConfigError("colluders need a directory to agree in")
        board = DirectoryCoalition(coalition) if isinstance(coalition, Path) else coalition
        return Collude(first_round, seed, me, board, config.delay_s)
    if kind == IDLE_CANDIDATE:
        return IdleCandidate(first_round, seed, me, config.projections)
    if kind not in _MAKERS:
        raise ConfigError(f"unknown attack {kind!r}; known are {', '.join(KINDS)}")
    return _MAKERS[kind](first_round, seed, me)


def draw_mixed(seed: int, byzantine: int) -> list[str]:
    """Return the kinds of ``byzantine`` attackers, drawn without repetition; colluders come as a pair.

    Raises:
        ConfigError: more attackers than kinds.
    """
    drawn: list[str] = []
    for kind in sorted(KINDS, key=lambda kind: digest(Context.EXPAND, b"mixed", str(seed).encode(), kind.encode())):
        places = 2 if kind == COLLUDE else 1
        if len(drawn) + places <= byzantine:
            drawn += places * [kind]
    if len(drawn) < byzantine:
        raise ConfigError(f"a mixed attack has at most {len(drawn)} attackers, not {byzantine}")
    return drawn

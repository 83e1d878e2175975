"""
The adversaries of the simulator: every kind by name, and whole coalitions drawn from a seed.

``KINDS`` of the catalogue can be ordered from the command line; all others exist for simulation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from btard.attacks.attacker import Attacker, choose
from btard.attacks.catalogue import KINDS, make_attacker
from btard.attacks.coalition import Coalition, SharedCoalition
from btard.attacks.composed import Composed
from btard.identity import Context, PeerId, digest
from btard.rules.config import RunConfig


@dataclass(frozen=True)
class Post:
    """Where an adversary is placed: the run, its own id, from which round on, and the board of its coalition."""

    config: RunConfig
    me: PeerId
    seed: int
    first_round: int
    coalition: Coalition = field(default_factory=SharedCoalition)


Maker = Callable[[Post], Attacker]


def _from_catalogue(kind: str) -> Maker:
    return lambda post: make_attacker(
        kind,
        seed=post.seed,
        first_round=post.first_round,
        config=post.config,
        me=post.me,
        coalition=post.coalition,
    )


ADVERSARIES: Mapping[str, Maker] = {
    **{kind: _from_catalogue(kind) for kind in KINDS},
}
"""Every kind of adversary: those of the command line first."""

SIMULATED = tuple(kind for kind in ADVERSARIES if kind not in KINDS)
"""The kinds that only the simulator orders."""


def make_adversary(kinds: Sequence[str], post: Post) -> Attacker:
    """Return an adversary that does all of ``kinds`` at once; its ``kind`` is their names, joined by ``+``."""
    members = []
    for kind in kinds:
        member = ADVERSARIES[kind](post)
        member.kind = kind
        members.append(member)
    return members[0] if len(members) == 1 else Composed(members)


def draw_adversaries(seed: int, config: RunConfig, peers: Sequence[PeerId], byzantine: int) -> dict[int, Attacker]:
    """Return who of ``peers`` attacks and how, by index; equal arguments give equal adversaries.

    All share one board, whether or not their kinds use it, and begin between round 1 and a third of
    the run. Each does one or two things.
    """
    order = sorted(
        range(len(peers)), key=lambda index: digest(Context.EXPAND, b"adversary", f"{seed}/{index}".encode())
    )
    board, first = SharedCoalition(), 1 + choose(range(max(1, config.rounds // 3)), "first round", seed)
    drawn = {}
    for index in sorted(order[:byzantine]):
        kinds = sorted({choose(tuple(ADVERSARIES), "kind", seed, index, place) for place in range(2)})
        kinds = kinds[: choose((1, 1, 2), "how many", seed, index)]
        drawn[index] = make_adversary(kinds, Post(config, peers[index], seed, first, board))
    return drawn

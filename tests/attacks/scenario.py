"""
Scenarios: a swarm, who attacks and how, and what must hold whatever they do.

The task is least squares in 200 dimensions with minibatches of 32, so honest slices lie well inside
the radii below, and the loss tells whether an attack went through.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from btard.attacks import Attacker, Post, SharedCoalition, make_adversary
from btard.net import Delivery, deliver_at_once
from btard.rules.evidence import Cause, DepartureKind
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Event
from btard.swarm.workload import Workload

FIRST_ROUND = 2
Maker = Callable[[SimulatedSwarm, int], Conduct]


@dataclass(frozen=True)
class Scenario:
    """A swarm that ran to its end: what became of it, the conducts given to some, and the ledgers."""

    outcome: Outcome
    conducts: Mapping[int, Conduct]
    directory: Path
    rounds: int

    def attacker(self, index: int) -> Attacker:
        """The attacker with an index."""
        conduct = self.conducts[index]
        assert isinstance(conduct, Attacker)
        return conduct

    def departures(self, index: int) -> list[Departed]:
        """How a peer left, as the first honest peer saw it; all of them saw the same."""
        peer = self.outcome.peers[index].peer
        seen = [[event for event in other.departures if event.peer == peer] for other in self.outcome.honest]
        assert all(events == seen[0] for events in seen)
        return seen[0]

    def departure(self, index: int) -> Departed:
        """The only departure of a peer."""
        (departed,) = self.departures(index)
        return departed

    def require_sound(self) -> None:
        """What must hold in every scenario: no honest peer left, all finished with one state, every ledger audits."""
        for peer in self.outcome.honest:
            assert peer.error is None
            assert len({done.round for done in peer.rounds}) == self.rounds
            assert self.departures(peer.index) == []
            audit = audit_ledger(self.directory / f"peer-{peer.index}")
            assert audit.problems == ()
            assert audit.ok
        assert len(self.outcome.state_roots) == 1

    def require_banned(self, index: int, *causes: Cause, within: int = 1) -> None:
        """The attacker acted and was banned for one of these causes, at most ``within`` rounds later."""
        departed, acted = self.departure(index), self.attacker(index).acted_in_round
        assert acted is not None
        assert departed.kind is DepartureKind.BAN
        assert departed.cause in causes
        assert acted <= departed.round <= acted + within

    def require_stays(self, *indices: int) -> None:
        """The attackers acted, and nobody left."""
        for index in indices:
            assert self.attacker(index).acted_in_round is not None
            assert self.departures(index) == []

    def require_removed(self, index: int, cause: Cause) -> None:
        """The attacker acted and was removed without a ban in that round or the next."""
        departed, acted = self.departure(index), self.attacker(index).acted_in_round
        assert acted is not None
        assert departed.kind is DepartureKind.REMOVAL
        assert departed.cause is cause
        assert acted <= departed.round <= acted + 1

    @property
    def loss(self) -> float:
        """The distance of the honest peers' parameters from the solution; 14 at the start."""
        state = self.outcome.honest[0].state
        assert state is not None
        return LinearTask().loss(state.parameters)


async def run_scenario(
    directory: Path,
    attackers: Mapping[int, str | Maker],
    *,
    size: int = 7,
    rounds: int = 6,
    seed: int = 0,
    first_round: int = FIRST_ROUND,
    delivery: Delivery = deliver_at_once,
    make_workload: Callable[[], Workload] = LinearTask,
    watch: Callable[[SimulatedSwarm, int, Event], None] | None = None,
    options: Mapping[str, object] | None = None,
) -> Scenario:
    """Run a swarm in which the peers with these indices attack, each of a kind (or several, with +) or as made."""
    config = {"genesis_size": size, "rounds": rounds, "tau": 3.0, "delta": 40.0, **(options or {})}
    conducts: dict[int, Conduct] = {}
    swarm = SimulatedSwarm(
        config,
        make_workload,
        directory,
        seed=seed,
        conducts=dict.fromkeys(attackers, Conduct()),
        delivery=delivery,
        watch=lambda index, event: watch(swarm, index, event) if watch else None,
    )
    board = SharedCoalition()
    for index, attack in attackers.items():
        post = Post(swarm.config, swarm.identities[index].peer_id, seed, first_round, board)
        conducts[index] = make_adversary(attack.split("+"), post) if isinstance(attack, str) else attack(swarm, index)
    swarm.conducts.update(conducts)
    return Scenario(await swarm.run(), conducts, directory, rounds)


def every_other(kinds: Sequence[str]) -> dict[int, str]:
    """Give each kind to every other peer, the founder among them."""
    return {2 * place: kind for place, kind in enumerate(kinds)}

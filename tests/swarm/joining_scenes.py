"""Runs that strangers come to: six members, a round of 0.3 s, and whoever is number 6 or more joins midway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from btard.identity import PeerId
from btard.net import Message
from btard.net.memory import Delivery
from btard.rules.messages import Report
from btard.sim import LinearTask, Outcome, SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.sim.joining import CHEAP
from btard.swarm.audit import audit_ledger
from btard.swarm.conduct import Conduct

SETTINGS = {"tau": 5.0, "delta": 50.0, "rounds": 40, "probation": 5, "check_rate": 1.0, "state_interval": 8, **CHEAP}
MEMBERS = 6
STRANGER, SECOND = 6, 7
COMES_S = 3.0


class Idle(Conduct):
    """A candidate that says anything rather than work."""

    def sample(self, round_number: int, compute: Any) -> Report:
        """Say what no gradient gives."""
        return Report((0.0,) * 10, 1.0)


def slowly(_sender: PeerId, _receiver: PeerId, _message: Message) -> float:
    """Every message takes 50 ms: a round takes 0.3 s, and the strangers find one in progress."""
    return 0.05


def build(
    directory: Path,
    joins: Mapping[int, float],
    conducts: Mapping[int, Conduct] | None = None,
    delivery: Delivery = slowly,
    **settings: object,
) -> SimulatedSwarm:
    """A swarm of six, and strangers."""
    values = {"genesis_size": MEMBERS, **SETTINGS, **settings}
    return SimulatedSwarm(values, LinearTask, directory, joins=joins, conducts=conducts, delivery=delivery)


def play(swarm: SimulatedSwarm) -> Outcome:
    """What comes of it."""
    return run_deterministically(swarm.run, 1)


def require_sound(swarm: SimulatedSwarm, outcome: Outcome) -> None:
    """One state at all honest peers, and ledgers that an audit accepts."""
    assert len(outcome.state_roots) == 1
    for peer in outcome.honest:
        if peer.rounds:
            audit = audit_ledger(swarm.data_dir(peer.index))
            assert audit.ok, (peer.index, audit.problems)


def find(outcome: Outcome, index: int, kind: type) -> list[Any]:
    """The events of a kind that a peer observed."""
    return [event for event in outcome.peers[index].events if isinstance(event, kind)]

"""Whole swarms of the real peer code in one process, on a virtual clock, over the in-memory transport."""

from btard.sim.swarm import Outcome, PeerOutcome, SimulatedSwarm, run_swarm
from btard.sim.tasks import LinearTask

__all__ = ["LinearTask", "Outcome", "PeerOutcome", "SimulatedSwarm", "run_swarm"]

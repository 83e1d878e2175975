"""How a stranger of a simulation comes into a run that has begun: by the means of a real one, with less work."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio
from torch import Tensor

from btard.identity import Identity, JoinTicket, Puzzle
from btard.identity.work import find_identity_nonce
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.seal import Seal
from btard.swarm.compute import Compute
from btard.swarm.joining.stranger import FindSeal, Stranger
from btard.swarm.restoring import NoSnapshots, StoredState, Vectors
from btard.swarm.state import State, as_bytes
from btard.swarm.workload import OptimizerState, Workload

CHEAP = {"identity_bits": 2, "ticket_bits": 2, "ticket_memory_kib": 8}
"""Work that a simulation can afford for any number of strangers."""


KEPT = 4
"""Newest states that a peer keeps."""


class KeptStates(NoSnapshots):
    """The states that a peer wrote down; they outlive its process as checkpoints do."""

    def __init__(self) -> None:
        self._states: dict[int, Vectors] = {}

    def keep(self, state: State) -> None:
        """Write down where a round begins."""
        self._states[state.round - 1] = state.parameters, state.optimizer
        for number in sorted(self._states)[:-KEPT]:
            del self._states[number]

    def rounds(self) -> Sequence[int]:
        """Return which there are, oldest first."""
        return sorted(self._states)

    def load(self, finished: int) -> tuple[Tensor, OptimizerState] | None:  # type: ignore[override]
        """Return the state after so many rounds."""
        return self._states.get(finished)

    def map(self, finished: int) -> StoredState | None:  # type: ignore[override]
        """Return the raw bytes of the state after so many rounds."""
        if finished not in self._states:
            return None
        parameters, optimizer = self._states[finished]
        buffers = {name: as_bytes(values) for name, values in optimizer.buffers.items()}
        return StoredState(optimizer.step, as_bytes(parameters), buffers)


async def solve(config: RunConfig, identity: Identity, seal: Seal) -> JoinTicket:
    """Return a ticket on the draw of a seal; the work is real, and takes no virtual time."""
    terms, me = config.ticket_terms, identity.peer_id
    await trio.lowlevel.checkpoint()
    first = find_identity_nonce(me, terms.identity_bits, 0, 1 << 40)
    assert first is not None
    puzzle = Puzzle(terms.run_id, me, first, seal.round, seal.q, terms.memory_kib, seal.ticket_bits)
    nonce = 0
    while not puzzle.is_solved_by(nonce):
        nonce += 1
    return puzzle.make_ticket(nonce)


def make_stranger(
    config: RunConfig,
    identity: Identity,
    hub: Hub,
    workload: Workload,
    data_dir: Path,
    compute: Compute,
    kept: KeptStates,
    reach: Callable[[], Awaitable[None]],
) -> Stranger:
    """Return the application of one peer of a simulation."""

    async def work(seal: Seal, _find_newer: FindSeal) -> JoinTicket:
        return await solve(config, identity, seal)

    return Stranger(config, hub, workload, data_dir, compute, reach, work, kept.keep)

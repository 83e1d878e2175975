"""The run whose state is transferred: its keys and settings, its task, and every member's ledger and checkpoint."""

from pathlib import Path

import torch
from torch import Tensor

from btard.identity import Context, Identity, digest
from btard.rules.config import RunConfig
from btard.rules.seal import Seal, SealSignature
from btard.swarm.joining.fetching_state import Memory
from btard.swarm.ledger import Ledger
from btard.swarm.state import compute_full_state_root, compute_state_root
from btard.swarm.workload import OptimizerState
from btard.training.checkpoints import save_checkpoint
from btard.training.optimizer import OptimizerState as StoredOptimizer
from btard.wire import compute_seal_digest, sign_seal

VECTORS = 3  # x and the two of Adam
CHUNK = 65_536
NEWEST = 4


class StillTask:
    """A job of which the joiner only needs the state."""

    def __init__(self, elements: int) -> None:
        self.elements = elements

    def initial_parameters(self) -> Tensor:
        return torch.zeros(self.elements)

    def initial_optimizer(self) -> OptimizerState:
        return Memory()

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        raise NotImplementedError

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        raise NotImplementedError


def make_identities(sources: int) -> list[Identity]:
    """The members' keys, the founder's first."""
    return [Identity(digest(Context.RUN_SEED, bytes([index]))) for index in range(sources)]


def make_config(megabytes: int, sources: int) -> RunConfig:
    """A run whose state has so many megabytes (10^6 bytes)."""
    founder = make_identities(sources)[0].peer_id.hex()
    elements = megabytes * 1_000_000 // (4 * VECTORS)
    return RunConfig(
        founder=founder, genesis_size=sources, elements=elements, chunk_size=CHUNK, state_interval=NEWEST, delay_s=2.0
    )


def write_run(directory: Path, config: RunConfig, sources: int) -> None:
    """Write every member's ledger and checkpoint of the newest round."""
    generator = torch.Generator().manual_seed(1)
    x, mean, square = (torch.randn(config.elements, generator=generator) for _ in range(VECTORS))
    optimizer = StoredOptimizer(NEWEST, {"mean": mean, "square": square})
    seals = make_seals(config, make_identities(sources), x, optimizer)
    for index, identity in enumerate(make_identities(sources)):
        place = directory / f"peer-{index}"
        with Ledger.create(place, config, identity.peer_id) as ledger:
            for seal, signatures in seals:
                ledger.record_seal(seal)
                ledger.record_signatures(seal.round, signatures)
        save_checkpoint(place / "checkpoints", NEWEST, x, optimizer, {})


def make_seals(
    config: RunConfig, identities: list[Identity], x: Tensor, optimizer: StoredOptimizer
) -> list[tuple[Seal, list[SealSignature]]]:
    """Seal 0 and those of the rounds up to the newest, which names the state."""
    roster = tuple(sorted(each.peer_id for each in identities))
    root = compute_state_root(x, CHUNK)
    full = compute_full_state_root(root, optimizer, CHUNK)
    seals: list[tuple[Seal, list[SealSignature]]] = []
    for number in range(NEWEST + 1):
        is_last, previous = number == NEWEST, compute_seal_digest(seals[-1][0]) if seals else b""
        transcript = bytes(32) if number else b""
        named = full if is_last else b""
        seal = Seal(config.run_id, number, 0, transcript, root, named, roster, (), previous, bytes(32), 1)
        signers = identities if number else identities[:1]
        seals.append((seal, [SealSignature(each.peer_id, sign_seal(each, seal)) for each in signers]))
    return seals

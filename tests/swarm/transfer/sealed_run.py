"""A finished stretch of a run, made by hand: states, seals with signatures, aggregates and snapshots of its members."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from btard.identity import Context, Identity, digest
from btard.rules.config import RunConfig
from btard.rules.seal import Seal, SealSignature
from btard.swarm.frames import SignedTuple
from btard.swarm.joining.fetching_state import Memory
from btard.swarm.ledger import Ledger
from btard.swarm.restoring import StoredState
from btard.swarm.state import as_bytes, compute_full_state_root, compute_state_root
from btard.swarm.updates import Updates
from btard.swarm.workload import OptimizerState
from btard.wire import compute_seal_digest, encode_seal, sign_seal

CHUNK = 16


class MomentumTask:
    """x moves against a momentum that the aggregates feed: a state of two vectors and a step."""

    def __init__(self, elements: int) -> None:
        self.elements = elements

    def initial_parameters(self) -> Tensor:
        return torch.linspace(-1.0, 1.0, self.elements)

    def initial_optimizer(self) -> OptimizerState:
        return Memory(0, {"speed": torch.zeros(self.elements)})

    def gradient(self, parameters: Tensor, seed: bytes) -> Tensor:
        raise AssertionError

    def step(self, parameters: Tensor, aggregate: Tensor, state: OptimizerState) -> tuple[Tensor, OptimizerState]:
        speed = 0.5 * state.buffers["speed"] + aggregate
        return parameters - 0.1 * speed, Memory(state.step + 1, {"speed": speed})


class HeldSnapshots:
    """Snapshots in memory; ``spoil`` changes one as a bad disk would."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Tensor, OptimizerState]] = {}

    def rounds(self) -> Sequence[int]:
        return sorted(self.held)

    def load(self, finished: int) -> tuple[Tensor, OptimizerState] | None:
        return self.held.get(finished)

    def map(self, finished: int) -> StoredState | None:
        if finished not in self.held:
            return None
        parameters, optimizer = self.held[finished]
        buffers = {name: as_bytes(buffer) for name, buffer in optimizer.buffers.items()}
        return StoredState(optimizer.step, as_bytes(parameters), buffers)


class SealedRun:
    """A run of ``rounds`` rounds. ``rosters`` gives the members after a round, by number, where they change."""

    def __init__(
        self,
        *,
        members: int = 7,
        rounds: int = 10,
        elements: int = 500,
        rosters: Mapping[int, Sequence[int]] | None = None,
        unapplied: Sequence[int] = (),
    ) -> None:
        everybody = {*range(members), *(index for roster in (rosters or {}).values() for index in roster)}
        self.identities = [Identity(digest(Context.RUN_SEED, bytes([index]))) for index in sorted(everybody)]
        self.founder = self.identities[0]
        self.config = RunConfig(
            founder=self.founder.peer_id.hex(),
            genesis_size=members,
            rounds=1000,
            elements=elements,
            chunk_size=CHUNK,
            state_interval=4,
            delay_s=1.0,
        )
        self.task, self.snapshots = MomentumTask(elements), HeldSnapshots()
        self.states: list[tuple[Tensor, OptimizerState]] = []
        self.aggregates: dict[int, Tensor] = {}
        self.seals: list[Seal] = []
        self._unapplied, roster = unapplied, list(range(members))
        for number in range(rounds + 1):
            roster = list((rosters or {}).get(number, roster))
            self._finish(number, roster)

    def _finish(self, number: int, roster: Sequence[int]) -> None:
        if number == 0:
            self.states.append((self.task.initial_parameters(), self.task.initial_optimizer()))
        else:
            aggregate = torch.randn(self.task.elements, generator=torch.Generator().manual_seed(number))
            self.aggregates[number] = aggregate
            before = self.states[-1]
            self.states.append(before if number in self._unapplied else self.task.step(before[0], aggregate, before[1]))
        self.seals.append(self._build_seal(number, roster))
        if number and number % self.config.state_interval == 0:
            self.snapshots.held[number] = self.states[-1]

    def _build_seal(self, number: int, roster: Sequence[int]) -> Seal:
        parameters, optimizer = self.states[-1]
        root = compute_state_root(parameters, CHUNK)
        is_full = number and number % self.config.state_interval == 0
        return Seal(
            run_id=self.config.run_id,
            round=number,
            attempt=0,
            transcript=bytes(32) if number else b"",
            state=root,
            full_state=compute_full_state_root(root, optimizer, CHUNK) if is_full else b"",
            roster=tuple(sorted(self.identities[index].peer_id for index in roster)),
            banned=(),
            previous=compute_seal_digest(self.seals[-1]) if number else b"",
            q=digest(Context.VALIDATORS, bytes([number])),
            gradient_ms=1,
        )

    def sign(self, seal: Seal, signers: Sequence[Identity] | None = None) -> tuple[SealSignature, ...]:
        """Signatures over a seal: of its own roster, of the founder for seal 0, or of ``signers``."""
        if signers is None:
            signers = [each for each in self.identities if each.peer_id in seal.roster]
            signers = [self.founder] if seal.round == 0 else signers
        return tuple(SealSignature(each.peer_id, sign_seal(each, seal)) for each in signers)

    def tuple_of(self, seal: Seal, signers: Sequence[Identity] | None = None) -> SignedTuple:
        """A seal as it travels."""
        return SignedTuple(encode_seal(seal), self.sign(seal, signers))

    def digest_of(self, number: int) -> bytes:
        """The digest of a seal of this run."""
        return compute_seal_digest(self.seals[number])

    def fill(self, ledger: Ledger, *, up_to: int | None = None) -> Updates:
        """Write the run into a ledger, as a member of it would have, up to a signed round."""
        for seal in self.seals[: None if up_to is None else up_to + 1]:
            ledger.record_seal(seal)
            ledger.record_signatures(seal.round, self.sign(seal))
            if seal.round:
                data = bytes(as_bytes(self.aggregates[seal.round]))
                ledger.record_update(seal.round, data, is_applied=seal.round not in self._unapplied)
        return Updates(ledger._directory, ledger, None)  # type: ignore[arg-type]  # nothing is written here

    def fork(self, number: int, roster: Sequence[Identity], **changes: object) -> Seal:
        """Another seal of a round, with another roster."""
        seal = self.seals[number]
        values = {"roster": tuple(sorted(each.peer_id for each in roster)), **changes}
        return msgspec.structs.replace(seal, **values)

    def open_ledger(self, directory: Path, index: int = 0) -> Ledger:
        """An empty ledger of a member."""
        return Ledger.create(directory, self.config, self.identities[index].peer_id)

    def with_config(self, **changes: object) -> RunConfig:
        """The run's configuration with other values: another run."""
        return replace(self.config, **changes)

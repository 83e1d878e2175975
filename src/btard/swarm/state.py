"""
The state between two rounds, and the work of one round.

A ``State`` is a value: the round starts from it and may be started again from it. ``Work`` collects
what one peer computes and receives during one round; the previous round's work is kept until its
validators have reported.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btard.errors import LocalProtocolError
from btard.identity import Context, PeerId, digest
from btard.robust import MAX_VALUE, Directions
from btard.rules.admission import Check
from btard.rules.checks import Reports
from btard.rules.config import RunConfig
from btard.rules.disputes import Dispute
from btard.rules.draws import Assignment
from btard.rules.marks import Marks, Pair
from btard.rules.merkle import MerkleTree, compute_leaves
from btard.rules.messages import Commit, Phase, Report, Stage, Transcript, Verdict
from btard.rules.parts import Part, cut_parts, find_part_of
from btard.rules.relays import Relays
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature, has_quorum
from btard.swarm.workload import OptimizerState

SCAN_ELEMENTS = 1 << 16
"""What is hashed before it is looked at: 256 KiB, or one chunk."""


@dataclass(frozen=True)
class State:
    """Everything that a round starts from; equal at every honest peer but for the seal's signatures.

    ``round`` is the next round to run, ``seal`` the tuple of the one before, whose draw q gave this
    round its seeds, part order and ``assignments`` (who validates whom of the previous round).
    ``newcomers`` become members in this round, once all that its COMMITs lead to is settled: the roster of an attempt
    never changes, so members that are a phase apart hold one and the same recovery.
    ``checks`` of candidates' samples are made in this round; those ``due`` may lead to charges in its COMMIT.
    """

    round: int
    attempt: int
    roster: Roster
    parameters: Tensor
    optimizer: OptimizerState
    seal: Seal
    seal_digest: bytes
    chain: bytes
    banned: frozenset[PeerId] = frozenset()
    assignments: tuple[Assignment, ...] = ()
    exempt: Mapping[int, int] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    newcomers: frozenset[PeerId] = frozenset()
    checks: tuple[Check, ...] = ()
    due: tuple[Check, ...] = ()

    @property
    def q(self) -> bytes:
        """The draw that fixed this round's seeds and part order."""
        return self.seal.q


@dataclass(frozen=True)
class Gradient:
    """Our own committed gradient: float32 of shape (D,), and the Merkle tree over its chunks."""

    values: Tensor
    tree: MerkleTree
    overflow: bool


class Work:
    """One peer's work on one round, through all its attempts."""

    def __init__(self, config: RunConfig, state: State, previous: "Work | None") -> None:
        self.config, self.state, self.previous = config, state, previous
        self.round = state.round
        parting = previous.parting if previous else frozenset()
        self.roster = Roster.of(state.roster.everyone - state.newcomers | parting)
        self.banned = state.banned
        self.dismissed: frozenset[PeerId] = frozenset()
        self.marks = state.marks
        self.common: Marks = previous.common if previous else state.marks
        self.gathered: frozenset[Pair] = frozenset()
        self.later_pairs: frozenset[Pair] = previous.awaited_pairs if previous else frozenset()
        self.awaited_pairs: frozenset[Pair] = frozenset()
        self.attempt = self.first_attempt = state.attempt
        self.chain, self.reason = state.chain, b""
        self.gradient: Gradient | None = None
        self.commits: Transcript | None = None
        self.aggregates: Transcript | None = None
        self.lacking: tuple[int, ...] = ()
        self.checks: Transcript | None = None
        self.reveals: Transcript | None = None
        self.confirms: Transcript | None = None
        self.aggregate: Tensor | None = None
        self._parts: tuple[Part, ...] | None = None
        self._contributors: tuple[Transcript, tuple[PeerId, ...]] | None = None
        self.directions: Directions | None = None
        self.column: list[Tensor] | None = None
        self.sealed = False
        self.signatures: Sequence[SealSignature] = ()
        self.settled: set[Dispute] = set()
        self.verdicts: tuple[Verdict, ...] | None = None
        self.column_reports: dict[PeerId, Report] = {}
        self.serving_s = 0.0
        self.is_resumed = False
        self.reopen: list[int] = []

    def stage(self, phase: Phase, serial: int = 0) -> Stage:
        """The stage of a phase in the current attempt; COMMIT belongs to the first one."""
        return Stage(self.round, self.first_attempt if phase is Phase.COMMIT else self.attempt, phase, serial)

    def begin_attempt(self, roster: Roster, banned: frozenset[PeerId], attempt: int, reason: bytes) -> None:
        """Begin a new attempt with those who remain: its draws are void, the commitments stand (design section 4)."""
        gone = [peer for peer in self.roster.members if peer not in roster]
        self.roster, self.banned, self.attempt = roster, banned, attempt
        self.marks = self.marks.within(roster)
        self.common = self.marks.with_pairs(self.later_pairs | self.awaited_pairs).within(roster)
        self.gathered = frozenset()
        self.reason = digest(Context.TRANSCRIPT, self.reason, reason)
        self.commits = self.commits and self.commits.without(gone)
        self.aggregates = self.checks = self.reveals = self.confirms = None
        self.aggregate = self.directions = self.column = self._parts = None
        self.lacking = ()
        self.serving_s = 0.0

    def forget_signatures(self, peers: Collection[PeerId]) -> None:
        """Do without what those who were thrown out signed, where the rest suffices: some here may never have seen it.

        Where it does not, nobody could go on who has not seen it either.
        """
        kept = tuple(item for item in self.signatures if item.signer not in peers)
        signers = frozenset(item.signer for item in kept)
        if self.previous is not None and has_quorum(signers, self.previous.state.roster):
            self.signatures = kept

    def mark(self, pairs: frozenset[Pair], decided_in: int) -> None:
        """Mark pairs by a recovery that resumes round ``decided_in``, from the round after it on.

        Members are at most one phase apart when they take up a decision. Whoever is already in the round after is
        in its COMMIT: nobody has used its marks yet, and all begin to at the same place. Whoever is in the round
        before hands them on to the next.
        """
        if decided_in > self.round:
            self.awaited_pairs |= pairs
        elif decided_in == self.round:
            self.later_pairs |= pairs
        else:
            self.marks = self.marks.with_pairs(pairs).within(self.roster)
            if self.previous is not None:
                self.previous.later_pairs |= pairs

    def reopen_previous(self) -> "Work | None":
        """The round before, to be run again, with all pairs that recoveries have marked since; None if it is gone."""
        if self.previous is not None:
            self.previous.awaited_pairs |= self.later_pairs
            self.previous.later_pairs |= self.marks.pairs - self.state.marks.pairs
        return self.previous

    def close_previous(self) -> None:
        """Let go of what the round before began with: it is not run again, and no gradient of it is redone any more."""
        if self.previous is not None:
            ours = self.state.optimizer  # of the round before there is none any more
            self.previous.state = replace(self.previous.state, parameters=empty_part(), optimizer=ours)

    @property
    def next_marks(self) -> Marks:
        """The marked pairs with which the next round starts: those that its gather and its recoveries added too."""
        return self.marks.with_pairs(self.gathered | self.later_pairs).within(self.roster)

    def share(self, pairs: frozenset[Pair]) -> None:
        """Have pairs in common with all members of the attempt, for a recovery of it has marked or shown them.

        ``common`` are those, and the pairs that were marked when the attempt began: by them alone HALTs count.
        """
        self.common = self.common.with_pairs(pairs).within(self.roster)

    @property
    def electorate(self) -> Roster:
        """The members that said a COMMIT: they saw the rounds before, and decide what is disputed about them."""
        return self.roster.without(self.state.newcomers)

    @property
    def parting(self) -> frozenset[PeerId]:
        """The members that say goodbye in this round: its seal is without them, and they stay to sign it."""
        said = self.commits.messages if self.commits is not None else ()
        return frozenset(m.sender for m in said if isinstance(m.payload, Commit) and m.payload.goodbye) - self.leavers

    @property
    def staying(self) -> Roster:
        """The members that say no goodbye in this round."""
        return self.roster.without(self.parting)

    @property
    def leavers(self) -> frozenset[PeerId]:
        """The members that said goodbye in the round before: this round's state is without them."""
        return self.roster.everyone - self.state.roster.everyone

    @property
    def awaited(self) -> tuple[PeerId, ...]:
        """The newcomers that are to be members from the next attempt on."""
        gone = self.banned | self.dismissed | frozenset(self.roster.members)
        return tuple(sorted(self.state.newcomers - gone))

    @property
    def relays(self) -> Relays:
        """Who passes on what marked pairs have for each other in the current attempt."""
        return Relays(self.state.q, self.roster, self.marks)

    @property
    def contributors(self) -> tuple[PeerId, ...]:
        """The one contributor set of every column: members with an agreed commitment, validators aside (attacks A4)."""
        if self.commits is None:
            raise LocalProtocolError("contributors are known only after COMMIT")
        if self._contributors is None or self._contributors[0] is not self.commits:
            committed = [m.sender for m in self.commits.messages if isinstance(m.payload, Commit) and m.payload.root]
            self._contributors = self.commits, tuple(peer for peer in committed if peer not in self.validators)
        return self._contributors[1]

    @cached_property
    def validators(self) -> frozenset[PeerId]:
        """Members who recompute a target's gradient this round and contribute none."""
        return frozenset(pair.validator for pair in self.state.assignments)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the current attempt: the round's order, cut for those who remain."""
        if self._parts is None:
            self._parts = cut_parts(self.config, self.state.q, self.state.roster, self.roster)
        return self._parts

    def part_of(self, peer: PeerId) -> Part:
        """The part that ``peer`` reduces in the current attempt."""
        return find_part_of(self.parts, peer)

    def root_of(self, peer: PeerId) -> bytes:
        """The Merkle root that ``peer`` committed to this round."""
        assert self.commits is not None
        commit = self.commits[peer].payload
        assert isinstance(commit, Commit)
        return commit.root

    def aggregate_root_of(self, peer: PeerId) -> bytes:
        """The Merkle root of the aggregate that ``peer`` committed to in the current attempt."""
        assert self.aggregates is not None
        return self.aggregates[peer].payload.root  # type: ignore[union-attr]

    @property
    def aggregate_norms(self) -> tuple[float, ...]:
        """The norms that aggregators claim for their parts, by part; they only choose a tolerance within its cap."""
        assert self.aggregates is not None
        return tuple(self.aggregates[part.aggregator].payload.norm for part in self.parts)  # type: ignore[union-attr]

    @property
    def is_update_due(self) -> bool:
        """Whether the optimizer steps: not where more than half overflow (attacks B5) or nobody contributes."""
        assert self.commits is not None
        overflows = sum(isinstance(m.payload, Commit) and m.payload.overflow for m in self.commits.messages)
        return 2 * overflows <= len(self.roster) and bool(self.contributors)

    @property
    def reports(self) -> Reports:
        """The agreed reports of this attempt, by contributor."""
        assert self.checks is not None
        return {peer: self.checks[peer].payload.reports for peer in self.contributors}  # type: ignore[union-attr]


class Scan(NamedTuple):
    """What one reading of values tells: the leaves of their chunks, and the largest magnitude, NaN if one is NaN."""

    leaves: list[bytes]
    largest: float

    @property
    def counts(self) -> bool:
        """Whether the values count as they are: none is NaN, infinite or beyond 1e30 (attacks B5)."""
        return self.largest <= MAX_VALUE


def scan(values: Tensor, first: int, chunk_size: int) -> Scan:
    """Read a float32 vector that begins with chunk number ``first``, once: what was hashed is still in the cache."""
    step = max(1, SCAN_ELEMENTS // chunk_size) * chunk_size
    leaves, extremes = list[bytes](), [torch.zeros(())]
    for at, stretch in zip(range(0, values.numel(), step), torch.split(values, step), strict=False):
        leaves += compute_leaves(as_bytes(stretch), first + at // chunk_size, 4 * chunk_size)
        extremes += torch.aminmax(stretch)
    return Scan(leaves, torch.stack(extremes).abs().max().item())


def commit_to(values: Tensor, chunk_size: int, *, overflow: bool = False) -> Gradient:
    """Return the commitment to a float32 vector of shape (D,)."""
    leaves = compute_leaves(as_bytes(values), 0, 4 * chunk_size)
    return Gradient(values, MerkleTree.build(leaves, values.numel()), overflow)


def as_bytes(values: Tensor) -> memoryview:
    """The raw bytes of a contiguous tensor, without a copy."""
    if not values.numel():
        return memoryview(b"")
    array: NDArray[np.float32] = values.numpy()
    return array.data.cast("B")


def read_values(payload: memoryview) -> Tensor:
    """The float32 vector in received bytes, without a copy; ``payload`` is the memory of that transfer alone."""
    return torch.frombuffer(payload, dtype=torch.float32)


def compute_state_root(parameters: Tensor, chunk_size: int) -> bytes:
    """Return the Merkle root over the chunks of x, signed in every seal."""
    return commit_to(parameters, chunk_size).tree.root


def compute_full_state_root(parameters_root: bytes, optimizer: OptimizerState, chunk_size: int) -> bytes:
    """Return the digest of x, by its root, the optimizer's buffers by name, and its step, signed in every K-th seal."""
    buffers = {name: compute_state_root(buffer, chunk_size) for name, buffer in optimizer.buffers.items()}
    return combine_state_roots(optimizer.step, parameters_root, buffers)


def is_named_by(seal: Seal, parameters: Tensor, optimizer: OptimizerState, chunk_size: int) -> bool:
    """Return whether x and, where the seal says so, the optimizer's memory are those that a seal names."""
    root = compute_state_root(parameters, chunk_size)
    full = compute_full_state_root(root, optimizer, chunk_size) if seal.full_state else b""
    return (root, full) == (seal.state, seal.full_state)


def combine_state_roots(step: int, parameters: bytes, buffers: Mapping[str, bytes]) -> bytes:
    """Return the digest of a full state from the Merkle roots of x and of the optimizer's buffers."""
    roots = [parameters]
    for name, root in sorted(buffers.items()):
        roots += [name.encode(), root]
    return digest(Context.STATE, step.to_bytes(8, "little"), *roots)


def empty_part() -> Tensor:
    """A part of no chunks."""
    return torch.empty(0, dtype=torch.float32)

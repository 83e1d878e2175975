"""
Verification 3: redo another peer's gradient and hold its reports against it (paper: CheckComputations).

The same routine serves the drawn validator, the voters of a dispute, and nobody sees who is accused
of what: it looks only at commitments, reports and the recomputation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.identity import PeerId
from btard.robust import compute_norm
from btard.rules.checks import Recomputation, find_false_parts
from btard.rules.draws import compute_minibatch_seed
from btard.rules.judgement import compute_part_report
from btard.rules.merkle import MerkleTree
from btard.rules.messages import Commit, Report
from btard.swarm.services import Services
from btard.swarm.state import Gradient, Work, commit_to, scan
from btard.swarm.workload import Workload

OVERFLOW = 1e30
"""Elements beyond this, or not finite, make a gradient `overflow`: its sender commits to zeros instead."""
NEAR_OVERFLOW = 1e29
"""A verifier whose own largest element exceeds this accepts either flag."""
ACCUSE, CONVICT = 2.0, 1.0
"""Validators accuse beyond twice the tolerance, voters convict beyond it: an honest accuser never loses."""


@dataclass(frozen=True)
class Finding:
    """What a verifier found about a target; ``parts`` are those whose report is false though the gradient is true."""

    guilty: bool
    parts: tuple[int, ...] = ()
    gradient: Gradient | None = None


def compute_gradient(workload: Workload, work: Work, peer: PeerId, chunk_size: int) -> tuple[Gradient, float]:
    """Return the commitment that ``peer`` owes this round, and the largest magnitude of its gradient."""
    seed = compute_minibatch_seed(work.state.q, work.round, peer)
    values = workload.gradient(work.state.parameters, seed).contiguous()
    leaves, largest = scan(values, 0, chunk_size)
    if not largest <= OVERFLOW:
        return commit_to(torch.zeros_like(values), chunk_size, overflow=True), largest
    return Gradient(values, MerkleTree.build(leaves, values.numel()), overflow=False), largest


async def compute_own_gradient(services: Services, work: Work) -> Gradient:
    """Compute g_i from (x_t, xi_i^t) and its Merkle tree, through the seam for heavy work."""
    chunk_size = services.config.chunk_size

    def compute() -> Gradient:
        gradient, _ = compute_gradient(services.workload, work, services.me, chunk_size)
        return services.conduct.commitment(work.round, gradient, chunk_size)

    return await services.compute.run(compute)


def inspect(services: Services, work: Work, target: PeerId, slack: float) -> Finding:
    """Recompute what ``target`` committed to and reported in the finished round ``work``."""
    config = services.config
    own, largest = compute_gradient(services.workload, work, target, config.chunk_size)
    assert work.commits is not None and work.checks is not None
    commit = work.commits[target].payload
    assert isinstance(commit, Commit)
    if commit.overflow != own.overflow and not largest > NEAR_OVERFLOW:
        return Finding(guilty=True)
    recomputed = recompute_reports(work, own)
    claimed = work.reports[target]
    false = find_false_parts(config, work.parts, claimed, recomputed, commit.root, slack)
    is_exact = commit.root == own.tree.root
    return Finding(bool(false), false if is_exact else (), own if is_exact else None)


async def inspect_in_compute(services: Services, work: Work, target: PeerId, slack: float) -> Finding:
    """The same, through the seam for heavy work."""
    return await services.compute.run(lambda: inspect(services, work, target, slack))


def recompute_reports(work: Work, gradient: Gradient) -> Recomputation:
    """Return the reports that a committed gradient gives against the round's aggregates."""
    norms = tuple(compute_norm(part) for part in _cut(work, gradient.values))
    return Recomputation(gradient.tree.root, gradient.overflow, compute_part_reports(work, gradient), norms)


def compute_part_reports(work: Work, gradient: Gradient) -> tuple[Report, ...]:
    """Return the true reports of a committed gradient against the round's aggregates, one for every part."""
    directions, aggregate = work.directions, work.aggregate
    assert directions is not None and aggregate is not None
    slices = zip(work.parts, _cut(work, gradient.values), _cut(work, aggregate), strict=True)
    return tuple(compute_part_report(directions, part, mine, common) for part, mine, common in slices)


def _cut(work: Work, vector: Tensor) -> Sequence[Tensor]:
    """The slices of a whole vector, one for every part."""
    return vector.split_with_sizes([part.elements for part in work.parts])

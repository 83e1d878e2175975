"""An opened column of a synthetic run, with everything that proves it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tests.swarm.audit.world import CHUNK, ELEMENTS, World, collect
from torch import Tensor

from btard.identity import Context, PeerId, digest
from btard.robust import Directions, compute_centered_clip
from btard.rules.draws import combine_nonces
from btard.rules.evidence import ColumnProof, SliceProof
from btard.rules.judgement import compute_part_report, read_committed
from btard.rules.merkle import MerkleTree, compute_leaves, compute_root
from btard.rules.messages import Aggregate, Check, Phase, Report, Reveal

Bend = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OpenedColumn:
    """A column as a proof and its blobs; the second member is a validator and no contributor."""

    proof: ColumnProof
    blobs: dict[bytes, bytes]
    aggregator: PeerId

    @classmethod
    def build(cls, world: World, index: int, bend: Bend | None = None, liar: PeerId | None = None) -> "OpenedColumn":
        """Run a round honestly but for ``bend`` and ``liar``, and keep what a column's opening shows."""
        config, roster = world.config, world.roster
        parts = world.parts
        part = parts[index]
        gradients = {peer: _draw_gradient(world, peer) for peer in roster.members}
        trees = {peer: _build_tree(gradient) for peer, gradient in gradients.items()}
        idle = roster.members[1:2]
        commits = world.say_all(
            Phase.COMMIT, lambda peer: world.commit(peer, b"" if peer in idle else trees[peer].root)
        )
        contributors = [peer for peer in roster.members if peer not in idle]
        rows = {peer: gradients[peer][part.start : part.stop].clone() for peer in contributors}
        right = compute_centered_clip(list(rows.values()), part.tau, config.epsilon).aggregate
        aggregate = bend(right) if bend else right
        root, norm = compute_root(_bytes(aggregate), 4 * CHUNK), float(aggregate.double().norm())
        aggregates = world.say_all(
            Phase.AGGREGATE,
            lambda peer: Aggregate(root, norm, (), world.promise(peer, Phase.REVEAL), ()),
            digest(Context.TRANSCRIPT, b"", commits.digest),
        )
        reveals = world.say_all(
            Phase.REVEAL, lambda peer: Reveal(world.nonce(peer, Phase.REVEAL), ()), aggregates.digest
        )
        directions = Directions(combine_nonces(reveals), config.elements, config.projections)

        def report(peer: PeerId) -> tuple[Report, ...]:
            true = compute_part_report(directions, part, rows[peer], read_committed(aggregate))
            told = Report(tuple(value + 1.0 for value in true.projections), true.norm) if peer == liar else true
            return tuple(told if other is part else Report(true.projections, 0.0) for other in parts)

        checks = world.say_all(Phase.CHECK, lambda peer: Check(() if peer in idle else report(peer), b"n" * 32))
        blobs = {peer: bytes(_bytes(row)) for peer, row in rows.items()}
        proof = ColumnProof(
            world.round,
            world.attempt,
            index,
            world.seals[-1].q,
            world.start.members,
            roster.members,
            b"",
            collect(commits),
            collect(aggregates),
            collect(reveals),
            collect(checks),
            tuple(SliceProof(peer, _name(blobs[peer]), trees[peer].prove(part.chunks)) for peer in contributors),
            _name(bytes(_bytes(aggregate))),
        )
        contents = [*blobs.values(), bytes(_bytes(aggregate))]
        return cls(proof, {_name(data): data for data in contents}, part.aggregator)


def _draw_gradient(world: World, peer: PeerId) -> Tensor:
    seed = torch.Generator().manual_seed(sorted(world.keys).index(peer) + 100 * world.round)
    return torch.randn(ELEMENTS, generator=seed) / CHUNK**0.5


def _build_tree(values: Tensor) -> MerkleTree:
    return MerkleTree.build(compute_leaves(_bytes(values), 0, 4 * CHUNK), ELEMENTS)


def _bytes(values: Tensor) -> memoryview:
    return memoryview(values.contiguous().numpy()).cast("B")


def _name(data: bytes) -> bytes:
    return digest(Context.EVIDENCE, data)

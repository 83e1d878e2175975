"""An opened column, settled again from its commitments by the same routine as in the live dispute."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from btard.identity import PeerId, short
from btard.robust import Directions, Layout
from btard.rules.checks import is_well_formed
from btard.rules.draws import combine_nonces
from btard.rules.evidence import Cause, ColumnProof, Departure, SliceProof
from btard.rules.judgement import Column, find_liars, is_wrong_aggregate
from btard.rules.merkle import compute_leaves, compute_root, is_in_tree
from btard.rules.messages import Aggregate, Check, Commit, Phase, Report, SignedMessage, Stage, Transcript
from btard.rules.parts import Part, cut_parts
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import find_roster, open_envelope, open_stage, require, require_roster


@dataclass(frozen=True)
class _Attempt:
    """Where a column belongs, as the seals say: the rosters of its round and attempt, and the cut."""

    chain: Chain
    stage: Stage
    first: Roster
    remaining: Roster
    parts: tuple[Part, ...]


def check_column(chain: Chain, departure: Departure, proof: ColumnProof) -> None:
    """Return if the opened column shows that the departed cheated in the way given.

    Raises:
        Unproven: a commitment, proof or blob does not fit, or the departed is right.
    """
    attempt = _locate(chain, departure, proof)
    require(proof.part < len(attempt.parts), "there is no such part")
    part = attempt.parts[proof.part]
    require(part.elements, "its part is empty")
    commitment, aggregate = _open_aggregate(attempt, part, proof)
    roots = _open_roots(attempt, proof) if proof.slices else {}
    slices = {PeerId(item.contributor): _open_slice(chain, part, item, roots) for item in proof.slices}
    require(len(slices) == len(proof.slices), "it shows a slice twice")
    column = Column(part, slices, aggregate, commitment.norm)
    reports = _open_reports(attempt, proof) if proof.checks else {}
    directions = _open_directions(attempt, proof) if proof.reveals else None
    peer = PeerId(departure.peer)
    if departure.cause is Cause.WRONG_AGGREGATE:
        require(peer == part.aggregator, "it did not aggregate this part")
        require(set(slices) == set(proof.contributors), "a contributor's slice is missing")
        require(is_wrong_aggregate(chain.config, column), "the aggregate is right")
    else:
        require(peer in slices and peer in reports and directions, "its slice, report or directions are missing")
        assert directions
        require(
            is_well_formed(reports[peer], len(attempt.parts), chain.config.projections), "its report does not count"
        )
        own = replace(column, slices={peer: slices[peer]})
        require(find_liars(own, directions, {peer: reports[peer][part.index]}), "its report is true")


def _locate(chain: Chain, departure: Departure, proof: ColumnProof) -> _Attempt:
    require(departure.round - proof.round in {0, 1}, "it is about another round")
    require(proof.round < departure.round or proof.attempt == departure.attempt, "it is about another attempt")
    seal, first = chain.seal_before(proof.round), chain.roster_before(proof.round)
    remaining = find_roster(chain, proof.round, proof.attempt)
    assert seal is not None
    assert first is not None
    require(proof.q == seal.q, "its draw is not that of the seal")
    require(proof.first == first.members, "its first roster is not that of the seal")
    require(proof.remaining == remaining.members, "its roster is not that of the attempt")
    require(chain.config.elements and chain.config.chunk_size and len(remaining), "there is no vector or nobody left")
    stage = Stage(proof.round, proof.attempt, Phase.COMMIT)
    return _Attempt(chain, stage, first, remaining, cut_parts(chain.config, proof.q, first, remaining))


def _require_stage(attempt: _Attempt, transcript: Transcript, phase: Phase) -> None:
    require(
        transcript.stage == attempt.stage._replace(phase=phase), f"its {phase.name} messages are of another attempt"
    )
    require_roster(transcript, attempt.remaining)


def _open_aggregate(attempt: _Attempt, part: Part, proof: ColumnProof) -> tuple[Aggregate, Tensor]:
    """The aggregator's commitment and the float32 vector it stands for."""
    message = open_envelope(attempt.chain, proof.aggregate_message)
    _require_stage(attempt, Transcript(message.slot.stage, (message,)), Phase.AGGREGATE)
    require(message.sender == part.aggregator, "the aggregate is not that of its aggregator")
    assert isinstance(message.payload, Aggregate)
    data = _find_blob(attempt.chain, proof.aggregate, part)
    root = compute_root(memoryview(data), 4 * attempt.chain.config.chunk_size)
    require(root == message.payload.root, "the aggregate is not the committed one")
    return message.payload, _read_vector(data)


def _find_blob(chain: Chain, name: bytes, part: Part) -> bytes:
    data = chain.evidence.get(name)
    require(data is not None, f"evidence {short(name)} is missing or altered")
    assert data is not None
    require(len(data) == 4 * part.elements, f"evidence {short(name)} has the wrong length")
    return data


def _read_vector(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def _open_roots(attempt: _Attempt, proof: ColumnProof) -> Mapping[PeerId, bytes]:
    """The roots in the commitments shown; members who are no contributors have none, or are validators."""
    commits = open_stage(attempt.chain, proof.commits, Phase.COMMIT)
    require(commits.stage.round == proof.round, "its commitments are of another round")
    require(commits.stage.attempt <= proof.attempt, "its commitments are of a later attempt")
    require_roster(commits, attempt.first)
    roots = {message.sender: _root_of(message) for message in commits.messages}
    contributors = set(proof.contributors)
    require(contributors <= set(attempt.remaining.members), "a contributor was not a member")
    left_out = [peer for peer in attempt.remaining.members if peer not in contributors and roots.get(peer) != b""]
    require(len(left_out) <= attempt.chain.config.validators, "it leaves out contributors")
    return {peer: root for peer, root in roots.items() if peer in contributors}


def _root_of(message: SignedMessage) -> bytes:
    assert isinstance(message.payload, Commit)
    return message.payload.root


def _open_slice(chain: Chain, part: Part, item: SliceProof, roots: Mapping[PeerId, bytes]) -> Tensor:
    """A contributor's float32 slice, proven against its root."""
    root = roots.get(PeerId(item.contributor))
    require(root, f"{short(item.contributor)} is no contributor, or its commitment is missing")
    assert root
    data = _find_blob(chain, item.blob, part)
    layout = Layout(chain.config.elements, chain.config.chunk_size)
    leaves = compute_leaves(memoryview(data), part.chunks.start, 4 * layout.chunk_size)
    proven = is_in_tree(root, layout.chunks, layout.elements, part.chunks, leaves, item.proof)
    require(proven, f"the slice of {short(item.contributor)} is not the committed one")
    return _read_vector(data)


def _open_reports(attempt: _Attempt, proof: ColumnProof) -> Mapping[PeerId, tuple[Report, ...]]:
    checks = open_stage(attempt.chain, proof.checks, Phase.CHECK)
    _require_stage(attempt, checks, Phase.CHECK)
    return {
        message.sender: message.payload.reports for message in checks.messages if isinstance(message.payload, Check)
    }


def _open_directions(attempt: _Attempt, proof: ColumnProof) -> Directions:
    reveals = open_stage(attempt.chain, proof.reveals, Phase.REVEAL)
    _require_stage(attempt, reveals, Phase.REVEAL)
    require(len(reveals.messages) == len(attempt.remaining), "a reveal is missing")
    return Directions(combine_nonces(reveals), attempt.chain.config.elements, attempt.chain.config.projections)

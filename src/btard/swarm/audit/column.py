"""An opened column, settled again from its commitments by the same routine as in the live dispute."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from btard.identity import Context, PeerId, digest, short
from btard.robust import Directions, Layout
from btard.rules.checks import is_well_formed
from btard.rules.draws import combine_nonces, find_broken_reveals
from btard.rules.evidence import Cause, ColumnProof, Departure, SliceProof
from btard.rules.judgement import Column, find_liars, is_wrong_aggregate
from btard.rules.merkle import compute_leaves, compute_root, is_in_tree
from btard.rules.messages import Aggregate, Check, Commit, Phase, Report, Stage, Transcript
from btard.rules.parts import Part
from btard.rules.roster import Roster
from btard.swarm.audit.chain import Chain
from btard.swarm.audit.opening import (
    find_contributors,
    find_parts,
    find_roster,
    open_commits,
    open_stage,
    require,
    require_roster,
)


@dataclass(frozen=True)
class _Attempt:
    """Where a column belongs, as the seals say: the roster of its attempt, and the cut."""

    chain: Chain
    stage: Stage
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
    commits = _open_commits(attempt, proof)
    aggregates = _open_aggregates(attempt, proof, commits)
    roots = {peer: _root_of(commits, peer) for peer in find_contributors(commits)}
    slices = {PeerId(item.contributor): _open_slice(chain, part, item, roots) for item in proof.slices}
    require(len(slices) == len(proof.slices), "it shows a slice twice")
    promise = _promise_of(aggregates, part)
    column = Column(part, slices, _open_aggregate(chain, part, proof, promise), promise.norm)
    directions, reports = _open_directions(attempt, proof, aggregates), _open_reports(attempt, proof)
    peer = PeerId(departure.peer)
    if departure.cause is Cause.WRONG_AGGREGATE:
        require(peer == part.aggregator, "it did not aggregate this part")
        require(set(slices) == set(roots), "a contributor's slice is missing")
        require(is_wrong_aggregate(chain.config, column), "the aggregate is right")
    else:
        require(peer in slices and peer in reports, "its slice or report is missing")
        count = chain.config.projections
        require(is_well_formed(reports[peer], len(attempt.parts), count), "its report does not count")
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
    stage = Stage(proof.round, proof.attempt, Phase.COMMIT)
    return _Attempt(chain, stage, remaining, find_parts(chain, proof.round, proof.attempt))


def _require_stage(attempt: _Attempt, transcript: Transcript, phase: Phase) -> None:
    require(
        transcript.stage == attempt.stage._replace(phase=phase), f"its {phase.name} messages are of another attempt"
    )
    require_roster(transcript, attempt.remaining)


def _open_commits(attempt: _Attempt, proof: ColumnProof) -> Transcript:
    """The COMMITs of all who remain; a newcomer has said none in its first round."""
    commits = open_commits(attempt.chain, proof.commits, proof.round)
    electorate = attempt.chain.electorate_in(proof.round, proof.attempt)
    assert electorate is not None
    _require_all(electorate, commits)
    return commits


def _require_all(roster: Roster, transcript: Transcript) -> None:
    senders = [message.sender for message in transcript.messages]
    phase = transcript.stage.phase.name
    require(senders == list(roster.members), f"a member's {phase} is missing or one too many")


def _open_aggregates(attempt: _Attempt, proof: ColumnProof, commits: Transcript) -> Transcript:
    """The AGGREGATEs of all who remain; every aggregator has signed from which commitments it reduced."""
    aggregates = open_stage(attempt.chain, proof.aggregates, Phase.AGGREGATE)
    _require_stage(attempt, aggregates, Phase.AGGREGATE)
    _require_all(attempt.remaining, aggregates)
    followed = digest(Context.TRANSCRIPT, proof.reason, commits.digest)
    follows = all(message.previous == followed for message in aggregates.messages)
    require(follows, "the aggregates follow other commitments than those shown")
    return aggregates


def _promise_of(aggregates: Transcript, part: Part) -> Aggregate:
    payload = aggregates[part.aggregator].payload
    assert isinstance(payload, Aggregate)
    return payload


def _root_of(commits: Transcript, peer: PeerId) -> bytes:
    payload = commits[peer].payload
    assert isinstance(payload, Commit)
    return payload.root


def _open_aggregate(chain: Chain, part: Part, proof: ColumnProof, promise: Aggregate) -> Tensor:
    """The float32 vector that the aggregator committed to; of an empty part nothing is told by a root."""
    if not part.elements:
        return torch.empty(0)
    data = _find_blob(chain, proof.aggregate, part)
    root = compute_root(memoryview(data), 4 * chain.config.chunk_size)
    require(root == promise.root, "the aggregate is not the committed one")
    return _read_vector(data)


def _find_blob(chain: Chain, name: bytes, part: Part) -> bytes:
    data = chain.evidence.get(name)
    require(data is not None, f"evidence {short(name)} is missing or altered")
    assert data is not None
    require(len(data) == 4 * part.elements, f"evidence {short(name)} has the wrong length")
    return data


def _read_vector(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def _open_slice(chain: Chain, part: Part, item: SliceProof, roots: Mapping[PeerId, bytes]) -> Tensor:
    """A contributor's float32 slice, proven against its root; of an empty part there is nothing to prove."""
    root = roots.get(PeerId(item.contributor))
    require(root, f"{short(item.contributor)} is no contributor")
    assert root
    if not part.elements:
        return torch.empty(0)
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


def _open_directions(attempt: _Attempt, proof: ColumnProof, aggregates: Transcript) -> Directions:
    """The directions of the attempt; everyone, the departed too, revealed a nonce after these very AGGREGATEs."""
    reveals = open_stage(attempt.chain, proof.reveals, Phase.REVEAL)
    _require_stage(attempt, reveals, Phase.REVEAL)
    _require_all(attempt.remaining, reveals)
    follows = all(message.previous == aggregates.digest for message in reveals.messages)
    require(follows, "the reveals follow other aggregates than those shown")
    require(not find_broken_reveals(aggregates, reveals), "a nonce is not the promised one")
    return Directions(combine_nonces(reveals), attempt.chain.config.elements, attempt.chain.config.projections)

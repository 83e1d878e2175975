"""
One round, top to bottom, in the order of the paper's Algorithm 1 (BTARD-SGD).

    COMMIT     g_i is computed and committed to; round t-1 is sealed and its validations settled
    AGGREGATE  slices are scattered; each aggregator reduces its part by CenteredClip and commits to it
    REVEAL     aggregates are gathered; the draw r fixes the directions of Verification 1
    CHECK      everyone reports projections and norms
    CONFIRM    the draw q fixes who validates whom; aggregators name false reports
    verify     Verifications 1 and 2; what they open is settled
    update     x_{t+1}

Whatever makes somebody leave raises NewAttempt: the round runs again, from AGGREGATE on, with those
who remain and under the same commitments. Every step below may therefore be entered again.
"""

from collections import Counter
from collections.abc import Sequence

import torch

from btard.errors import Undecided
from btard.identity import PeerId
from btard.robust import Directions, compute_centered_clip, compute_reports
from btard.rules.checks import (
    find_false_reports,
    find_loud_contributors,
    find_suspicious_part,
    find_unbalanced_part,
)
from btard.rules.complaints import find_gather_complaints, find_scatter_complaints
from btard.rules.disputes import Dispute, DisputeKind, Ruling, find_accusations, find_namings
from btard.rules.draws import combine_nonces, commit_to_nonce, derive_nonce, draw_validators, find_broken_reveals
from btard.rules.evidence import Cause, DepartureKind, RevealProof, StateProof
from btard.rules.merkle import compute_root
from btard.rules.messages import (
    Aggregate,
    Check,
    Commit,
    Confirm,
    Phase,
    Report,
    Reveal,
    Transcript,
    Verdict,
)
from btard.rules.parts import Part
from btard.rules.seal import Seal, SealSignature, has_quorum
from btard.rules.validity import (
    is_valid_aggregate,
    is_valid_check,
    is_valid_commit,
    is_valid_confirm,
    is_valid_reveal,
)
from btard.swarm.exchange import NewAttempt, compute_opening_chain
from btard.swarm.gather import PULL_SOURCES
from btard.swarm.services import Services
from btard.swarm.settling import hold_disputes, settle_gather_complaints, settle_scatter_complaints
from btard.swarm.state import State, Work, as_bytes, compute_full_state_root, compute_state_root, empty_part
from btard.swarm.validation import ACCUSE, compute_gradient, inspect, recompute_reports
from btard.wire import compute_seal_digest, is_seal_signed_by, sign_seal


async def run_round(services: Services, work: Work) -> State:
    """Return the state after one step of BTARD-SGD.

    Raises:
        NewAttempt: somebody leaves; run again with what ``work`` keeps.
        Undecided: the previous round has no majority behind one state or seal.
    """
    await commit(services, work)
    await settle_previous(services, work)
    await aggregate(services, work)
    await reveal(services, work)
    await check(services, work)
    confirms = await confirm(services, work)
    return await update(services, work, *await verify(services, work, confirms))


async def close_run(services: Services, work: Work) -> None:
    """One COMMIT without a gradient after the last round, so that no round stays unsealed or unvalidated."""
    await commit(services, work, is_closing=True)
    await settle_previous(services, work)


# --- COMMIT ---


async def commit(services: Services, work: Work, *, is_closing: bool = False) -> None:
    """Commit to our gradient, or as a validator to our verdicts on the previous round (Algorithm 2, steps 1 and 2)."""
    if work.commits is None:
        payload = await _prepare_commit(services, work, is_closing=is_closing)
        if work.gradient is not None:
            scatter(services, work)
        work.commits = await services.exchange.run(
            work,
            Phase.COMMIT,
            payload,
            wait_s=services.deadlines.commit(work.round),
            is_valid=lambda message: is_valid_commit(message, work.validators, is_closing=is_closing),
        )
    work.chain = compute_opening_chain(work)


async def _prepare_commit(services: Services, work: Work, *, is_closing: bool) -> Commit:
    if services.me in work.validators:
        work.verdicts = work.verdicts or await _validate(services, work)
    elif not is_closing and work.gradient is None:
        await _compute_own_gradient(services, work)
    own = work.gradient
    return Commit(
        root=own.tree.root if own else b"",
        overflow=bool(own and own.overflow),
        verdicts=work.verdicts or (),
        state=work.state.seal.state,
        seal=sign_seal(services.identity, work.state.seal),
        goodbye=is_closing,
    )


async def _compute_own_gradient(services: Services, work: Work) -> None:
    """Compute g_i from (x_t, xi_i^t) and its Merkle tree."""
    chunk_size = services.config.chunk_size

    def compute() -> None:
        gradient, _ = compute_gradient(services.workload, work, services.me, chunk_size)
        work.gradient = services.conduct.commitment(work.round, gradient, chunk_size)

    await services.compute.run(compute)
    assert work.gradient is not None
    services.slices.keep_own(work.round, work.gradient)


async def _validate(services: Services, work: Work) -> tuple[Verdict, ...]:
    """Redo the gradients of our targets of the previous round (Verification 3)."""
    previous = work.previous
    assert previous is not None
    verdicts = []
    for pair in work.state.assignments:
        if pair.validator == services.me:
            target = pair.target
            finding = await services.compute.run(lambda target=target: inspect(services, previous, target, ACCUSE))
            verdicts.append(Verdict(target, services.conduct.verdict(previous.round, target, finding.guilty)))
    return tuple(verdicts)


# --- the previous round: its seal, its validations ---


async def settle_previous(services: Services, work: Work) -> None:
    """Seal the previous round, then settle the accusations of its validators and the columns these reopen.

    Raises:
        NewAttempt: somebody computes another state, or was convicted.
    """
    if not work.sealed:
        work.sealed = True
        seal_previous(services, work)
    if not work.validations_settled:
        work.validations_settled = True
        await _settle_accusations(services, work)
    while work.reopen:
        part = work.reopen.pop(0)
        assert work.previous is not None
        dispute = Dispute(DisputeKind.COLUMN, work.round - 1, work.previous.parts[part].aggregator, part=part)
        await _rule_on(services, work, [dispute], serial=0)


def seal_previous(services: Services, work: Work) -> None:
    """Collect the signatures over the previous round's tuple; whoever computed another state leaves without blame.

    Raises:
        NewAttempt: somebody computed another state.
        Undecided: no majority for one state, or too few signatures.
    """
    assert work.commits is not None
    commits = {m.sender: m.payload for m in work.commits.messages if isinstance(m.payload, Commit)}
    states = Counter(commit.state for commit in commits.values())
    common, count = states.most_common(1)[0]
    if count < work.roster.majority:
        raise Undecided(f"round {work.round - 1}: no state has a majority; the swarm stops")
    seal = work.state.seal
    signed = [
        SealSignature(peer, commit.seal)
        for peer, commit in commits.items()
        if is_seal_signed_by(peer, seal, commit.seal)
    ]
    if common == seal.state:
        _record_signatures(services, work, signed)
    others = tuple(peer for peer, commit in commits.items() if commit.state != common)
    if others:
        proof = StateProof(tuple(message.envelope for message in work.commits.messages))
        for peer in others:
            services.record(work, peer, DepartureKind.REMOVAL, Cause.OTHER_STATE, proof)
        raise NewAttempt(work.round, work.commits.digest, removed=others)


def _record_signatures(services: Services, work: Work, signed: Sequence[SealSignature]) -> None:
    if work.previous is None:
        return  # seal 0 is the founder's alone
    if not has_quorum(frozenset(item.signer for item in signed), work.previous.state.roster):
        raise Undecided(f"round {work.round - 1}: its seal has no majority of signatures; the swarm stops")
    services.ledger.record_signatures(work.round - 1, signed)


async def _settle_accusations(services: Services, work: Work) -> None:
    assert work.commits is not None
    accusations = find_accusations(work.commits, work.state.assignments, work.round - 1)
    if accusations:
        await _rule_on(services, work, accusations, serial=0)


async def _rule_on(services: Services, work: Work, disputes: Sequence[Dispute], serial: int) -> tuple[Ruling, ...]:
    """Hold disputes; whoever loses leaves, and columns on which a false report was convicted are opened next."""
    rulings = await hold_disputes(services, work, disputes, serial)
    work.reopen += sorted({part for ruling in rulings for part in ruling.parts} - set(work.reopen))
    banned = tuple(sorted({peer for ruling in rulings for peer in ruling.banned}))
    removed = tuple(sorted({peer for ruling in rulings for peer in ruling.removed} - set(banned)))
    if banned or removed or serial == 0:
        raise NewAttempt(work.round, work.chain, banned=banned, removed=removed)
    return rulings


# --- AGGREGATE ---


def scatter(services: Services, work: Work) -> None:
    """Send every aggregator the chunks of our gradient that it lacks (Algorithm 2, step 3)."""
    if work.gradient is None:
        return
    for part in work.parts:
        wanted = part.elements and part.aggregator != services.me
        if wanted and services.conduct.sends_slice(work.round, part.aggregator):
            services.spawn(services.slices.send, work.round, work.gradient, part.aggregator, part.chunks)


async def aggregate(services: Services, work: Work) -> None:
    """Reduce our part by CenteredClip and commit to the result (Algorithm 2, steps 4 and 5)."""
    services.parts.begin_attempt(work.round, work.attempt, len(work.roster))
    scatter(services, work)
    mine = work.part_of(services.me)
    missing = await _collect_slices(services, work, mine)
    root, norm = (b"", 0.0) if missing else await _reduce(services, work, mine)
    slot = services.slot(work, Phase.REVEAL)
    payload = Aggregate(root, norm, missing, commit_to_nonce(slot, derive_nonce(services.identity.seed, slot)))
    work.aggregates = await services.exchange.run(
        work,
        Phase.AGGREGATE,
        payload,
        wait_s=services.deadlines.bulk,
        is_valid=lambda message: is_valid_aggregate(message, work.contributors),
    )
    complaints = find_scatter_complaints(work.aggregates, work.parts)
    if complaints:
        await settle_scatter_complaints(services, work, complaints)


async def _collect_slices(services: Services, work: Work, part: Part) -> tuple[PeerId, ...]:
    """Wait for every contributor's slice of our part; return whose did not come, in order."""

    def lacking() -> tuple[PeerId, ...]:
        get = services.slices.get
        return tuple(p for p in work.contributors if get(work.round, work.root_of(p), part.chunks) is None)

    if not part.elements or await services.exchange.wait_for(lambda: not lacking(), services.deadlines.bulk_s):
        return ()
    complained = {complaint.accused for _, complaint in work.complaints if complaint.complainer == services.me}
    for peer in lacking():
        if peer in complained:  # it was published meanwhile: attesters serve it
            root, sources = work.root_of(peer), services.others(work)
            await services.slices.pull(work.round, root, part.chunks, sources, services.config.delay_s)
    return tuple(sorted(lacking()))


async def _reduce(services: Services, work: Work, part: Part) -> tuple[bytes, float]:
    config = services.config
    rows = [services.slices.get(work.round, work.root_of(peer), part.chunks) for peer in work.contributors]

    def compute() -> tuple[torch.Tensor, bytes, float]:
        own = empty_part()
        if part.elements:
            own = compute_centered_clip([row for row in rows if row is not None], part.tau, config.epsilon).aggregate
        own = services.conduct.aggregate(work.round, work.attempt, part, own)
        norm = float(torch.linalg.vector_norm(own, dtype=torch.float64))
        return own, compute_root(as_bytes(own), 4 * config.chunk_size), norm

    own, root, norm = await services.compute.run(compute)
    services.parts.keep_own(work.round, work.attempt, part, own)
    return root, norm


# --- REVEAL ---


async def reveal(services: Services, work: Work) -> None:
    """Gather the aggregates, then toss the coin r that fixes the directions (Algorithm 2, steps 6 and 7; MPRNG)."""
    assert work.aggregates is not None
    missing = await _gather(services, work)
    nonce = derive_nonce(services.identity.seed, services.slot(work, Phase.REVEAL))
    work.reveals = await services.exchange.run(
        work,
        Phase.REVEAL,
        Reveal(nonce, missing),
        wait_s=services.deadlines.bulk,
        is_valid=lambda message: is_valid_reveal(message, len(work.parts)),
    )
    _ban_broken_reveals(services, work, work.aggregates, work.reveals)
    complaints = find_gather_complaints(work.reveals, work.parts)
    if complaints:
        await settle_gather_complaints(services, work, complaints)
        await _pull_parts(services, work, services.others(work))
    work.aggregate = _merge_parts(services, work)
    work.directions = Directions(combine_nonces(work.reveals), services.config.elements, services.config.projections)


async def _gather(services: Services, work: Work) -> tuple[int, ...]:
    """Send our aggregate to all and wait for theirs; return the parts that nobody gave us."""
    mine = work.part_of(services.me)
    for peer in services.others(work):
        if mine.elements and services.conduct.sends_part(work.round, peer):
            services.spawn(services.parts.send, work.round, work.attempt, mine, peer)
    if await services.exchange.wait_for(lambda: not _lacking_parts(services, work), services.deadlines.bulk_s):
        return ()
    await _pull_parts(services, work, services.others(work)[:PULL_SOURCES])
    return tuple(part.index for part in _lacking_parts(services, work))


def _lacking_parts(services: Services, work: Work) -> list[Part]:
    roots, get = work.aggregate_roots, services.parts.get
    return [p for p in work.parts if p.elements and get(work.round, work.attempt, p, roots[p.aggregator]) is None]


async def _pull_parts(services: Services, work: Work, sources: Sequence[PeerId]) -> None:
    for part in _lacking_parts(services, work):
        root = work.aggregate_roots[part.aggregator]
        await services.parts.pull(work.round, work.attempt, part, root, sources, services.config.delay_s)


def _merge_parts(services: Services, work: Work) -> torch.Tensor:
    """Return ĝ, float32 of shape (D,), from all parts."""
    merged = torch.empty(services.config.elements, dtype=torch.float32)
    for part in work.parts:
        values = services.parts.get(work.round, work.attempt, part, work.aggregate_roots[part.aggregator])
        if part.elements:
            if values is None:
                raise Undecided(f"round {work.round}: part {part.index} was attested but nobody serves it")
            merged[part.start : part.stop] = values
    return merged


def _ban_broken_reveals(services: Services, work: Work, commitments: Transcript, reveals: Transcript) -> None:
    broken = find_broken_reveals(commitments, reveals)
    for peer in broken:
        proof = RevealProof(commitments[peer].envelope, reveals[peer].envelope)
        services.record(work, peer, DepartureKind.BAN, Cause.BROKEN_REVEAL, proof)
    if broken:
        raise NewAttempt(work.round, reveals.digest, banned=broken)


# --- CHECK ---


async def check(services: Services, work: Work) -> None:
    """Report on every part: projections of the clipped difference, and its norm (Verifications 1 and 2)."""
    mine = work.part_of(services.me)
    work.column_reports = await services.compute.run(lambda: _report_on_column(services, work, mine))
    await services.conduct.found(work.round, work.attempt, mine, work.column_reports)
    reports = await _report_on_all_parts(services, work)
    slot = services.slot(work, Phase.CONFIRM)
    contributors, parts = work.contributors, len(work.parts)
    work.checks = await services.exchange.run(
        work,
        Phase.CHECK,
        Check(reports, commit_to_nonce(slot, derive_nonce(services.identity.seed, slot))),
        wait_s=services.deadlines.check,
        is_valid=lambda message: is_valid_check(message, contributors, parts, services.config.projections),
    )


async def _report_on_all_parts(services: Services, work: Work) -> tuple[Report, ...]:
    own = work.gradient
    if own is None or services.me not in work.contributors:
        return ()
    reports = await services.compute.run(lambda: recompute_reports(work, own).reports)
    return await services.conduct.reports(work.round, work.attempt, work.parts, reports)


def _report_on_column(services: Services, work: Work, part: Part) -> dict[PeerId, Report]:
    """Return the true reports of all contributors on our own part, from their slices."""
    if not part.elements:
        return {}
    assert work.directions is not None and work.aggregate is not None
    rows = [services.slices.get(work.round, work.root_of(peer), part.chunks) for peer in work.contributors]
    held = [row for row in rows if row is not None]
    aggregate = work.aggregate[part.start : part.stop]
    projections, norms = compute_reports(work.directions, held, aggregate, part.tau, part.start)
    return {
        peer: Report(tuple(map(float, values)), float(norm))
        for peer, values, norm in zip(work.contributors, projections, norms, strict=True)
    }


# --- CONFIRM ---


async def confirm(services: Services, work: Work) -> Transcript:
    """Toss the coin q; as aggregators, name the reports on our part that are false."""
    assert work.checks is not None
    mine = work.part_of(services.me)
    false = tuple(p for p in find_false_reports(work.reports, work.column_reports, mine) if p != services.me)
    named = services.conduct.namings(work.round, false, work.contributors)
    nonce = derive_nonce(services.identity.seed, services.slot(work, Phase.CONFIRM))
    confirms = await services.exchange.run(
        work,
        Phase.CONFIRM,
        Confirm(nonce, tuple(sorted(named))),
        wait_s=services.deadlines.check,
        is_valid=lambda message: is_valid_confirm(message, work.contributors),
    )
    _ban_broken_reveals(services, work, work.checks, confirms)
    return confirms


# --- verification and update ---


async def verify(
    services: Services, work: Work, confirms: Transcript
) -> tuple[Transcript, dict[int, int], tuple[PeerId, ...]]:
    """Settle proven false reports, then Verification 1, then 2; return what the update needs.

    Raises:
        NewAttempt: somebody was convicted.
    """
    config, parts = services.config, work.parts
    exempt = {part: until for part, until in work.state.exempt.items() if until >= work.round}
    disputes = find_namings(confirms, parts, work.contributors, work.round)
    if disputes:
        await _rule_on(services, work, disputes, serial=1)
    opened = None if disputes else find_unbalanced_part(config, parts, work.reports, work.aggregate_norms)
    if opened is None and not disputes:
        tolerated = work.roster.tolerated(config.byzantine_bound)
        opened = find_suspicious_part(parts, work.reports, tolerated, tuple(exempt))
    if opened is None:
        return confirms, exempt, ()
    await _rule_on(
        services, work, [Dispute(DisputeKind.COLUMN, work.round, parts[opened].aggregator, part=opened)], serial=1
    )
    exempt[opened] = work.round + config.exemption
    return confirms, exempt, find_loud_contributors(work.reports, parts[opened])


async def update(
    services: Services, work: Work, confirms: Transcript, exempt: dict[int, int], loud: tuple[PeerId, ...]
) -> State:
    """Apply the optimizer to ĝ; provisional until the next COMMITs agree."""
    config, state = services.config, work.state
    parameters, optimizer = state.parameters, state.optimizer
    assert work.commits is not None and work.aggregate is not None
    overflows = sum(isinstance(m.payload, Commit) and m.payload.overflow for m in work.commits.messages)
    merged = work.aggregate
    if 2 * overflows <= len(work.roster):
        parameters, optimizer = await services.compute.run(
            lambda: services.workload.step(state.parameters, merged, state.optimizer)
        )
    q = combine_nonces(confirms)
    banned = work.banned
    is_full = work.round % config.state_interval == 0
    seal = Seal(
        config.run_id,
        work.round,
        work.attempt,
        confirms.digest,
        compute_state_root(parameters, config.chunk_size),
        compute_full_state_root(parameters, optimizer, config.chunk_size) if is_full else b"",
        work.roster.members,
        tuple(sorted(banned)),
        state.seal_digest,
        q,
        state.seal.gradient_ms,
    )
    services.ledger.record_seal(seal)
    return State(
        work.round + 1,
        work.attempt,
        work.roster,
        parameters,
        optimizer,
        seal,
        compute_seal_digest(seal),
        work.chain,
        banned,
        draw_validators(q, work.roster, work.contributors, config.validators, loud),
        exempt,
    )

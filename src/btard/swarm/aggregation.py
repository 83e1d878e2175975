"""AGGREGATE and REVEAL: ButterflyClip (paper, Algorithm 2), and the first draw."""

from collections.abc import Callable
from functools import partial

import structlog
import trio
from torch import Tensor

from btard.errors import Undecided
from btard.identity import PeerId
from btard.robust import Directions, compute_centered_clip, compute_norm
from btard.rules.complaints import find_gather_complaints, find_scatter_complaints
from btard.rules.draws import combine_nonces, commit_to_nonce, derive_nonce, find_broken_reveals
from btard.rules.evidence import Cause, DepartureKind, RevealProof
from btard.rules.merkle import compute_root
from btard.rules.messages import Aggregate, Check, Phase, Reveal, Transcript
from btard.rules.parts import Part
from btard.rules.validity import is_valid_aggregate, is_valid_reveal
from btard.swarm.binding import bind_part_errands, bind_slice_errands
from btard.swarm.collecting import collect_slices
from btard.swarm.complaining import settle_gather_complaints, settle_scatter_complaints
from btard.swarm.exchange import NewAttempt
from btard.swarm.gather import PULL_SOURCES
from btard.swarm.hastening import ask_and_hasten
from btard.swarm.pulling import compute_pull_bound, pull_part, pull_together
from btard.swarm.recovery import PATIENCE_S
from btard.swarm.refetching import await_returning, refetch_parts
from btard.swarm.relaying import (
    compute_hop_bound,
    compute_relay_bound,
    pass_on_part,
    relay_parts,
    relay_slices,
    scatter_to_relays,
)
from btard.swarm.services import Services
from btard.swarm.state import Work, as_bytes

log = structlog.get_logger(__name__)


def scatter(services: Services, work: Work) -> None:
    """Send every aggregator the chunks of our gradient that it lacks (Algorithm 2, step 3), marked pairs aside."""
    gradient, relays, me = work.gradient, work.relays, services.me
    if gradient is None:
        return
    for part in work.parts:
        peer = part.aggregator
        is_wanted = part.elements and peer != me and relays.between(me, peer) is None
        if is_wanted and services.conduct.sends_slice(work.round, peer):
            services.slices.send(work.round, gradient, peer, part.chunks)


async def aggregate(services: Services, work: Work) -> None:
    """Reduce our part by CenteredClip and commit to the result (Algorithm 2, steps 4 and 5)."""
    services.parts.begin_attempt(work.round, work.attempt, len(work.roster))
    services.parts.expect(work.round, work.attempt, work.parts)
    services.slices.begin_attempt(len(work.roster))
    scatter(services, work)
    scatter_to_relays(services, work)
    relay_slices(services, work)
    said = services.find_committed(work)
    payload = await (_reduce(services, work) if said is None else _recall(services, work, said))
    errands = work.relays.find_slice_errands(work.parts, work.contributors)
    work.aggregates = await services.exchange.run(
        work,
        Phase.AGGREGATE,
        payload,
        wait_s=services.deadlines.bulk + compute_relay_bound(services, work),
        is_valid=lambda message: is_valid_aggregate(message, work.contributors, errands),
    )
    complaints = find_scatter_complaints(work.aggregates, work.parts, work.relays)
    if complaints:
        await settle_scatter_complaints(services, work, complaints)


def read_column(services: Services, work: Work) -> list[Tensor]:
    """The contributors' slices of our part that we hold, in roster order; what is not finite counts as zeros."""
    if work.column is None:
        chunks = work.part_of(services.me).chunks
        held = (services.slices.read(work.round, work.root_of(peer), chunks) for peer in work.contributors)
        column = [values for values in held if values is not None]
        if len(column) < len(work.contributors):
            return column  # a restart lost some, which may come yet
        work.column = column
    return work.column


async def _reduce(services: Services, work: Work) -> Aggregate:
    """Return what we commit to: our part, or whose slices did not come; the nonce of the draw; what we cannot relay."""
    part, slot = work.part_of(services.me), services.slot(work, Phase.REVEAL)
    missing, unrelayed = await collect_slices(services, work, part)
    await bind_slice_errands(services, work, unrelayed)
    root, norm = (b"", 0.0) if missing else await _clip(services, work, part)
    promise = commit_to_nonce(slot, derive_nonce(services.nonce_secret, slot))
    return Aggregate(root, norm, missing, promise, unrelayed)


async def _clip(services: Services, work: Work, part: Part) -> tuple[bytes, float]:
    """Return root and norm of the aggregate of our part, which is held then, and on disk with our next message."""
    config, rows = services.config, read_column(services, work) if part.elements else []
    place = services.parts.own_place(part)

    def compute() -> tuple[Tensor, bytes, float]:
        own = compute_centered_clip(rows, part.tau, config.epsilon, place).aggregate if rows else place.zero_()
        own = services.conduct.aggregate(work.round, work.attempt, part, own)
        return own, compute_root(as_bytes(own), 4 * config.chunk_size), compute_norm(own)

    own, root, norm = await services.compute.run(compute)
    later = services.updates.keep_part(work.round, work.attempt, own)
    if later is not None:
        await services.exchange.attend(work, later)
    services.parts.keep_own(work.round, work.attempt, part, own)
    return root, norm


async def _recall(services: Services, work: Work, said: Aggregate) -> Aggregate:
    """Return what we committed to before a restart; the aggregate is held again, and goes out once more."""
    part = work.part_of(services.me)
    own = services.updates.load_part(work.round, work.attempt, part.elements)
    size = 4 * services.config.chunk_size
    if own is not None and await services.compute.run(lambda: compute_root(as_bytes(own), size)) == said.root:
        services.parts.keep_own(work.round, work.attempt, part, own)
    elif said.root and part.elements:
        log.error("the aggregate that we committed to before the restart is not on disk", round=work.round)
    return said


async def reveal(services: Services, work: Work) -> None:
    """Gather the aggregates, then toss the coin r that fixes the directions (Algorithm 2, steps 6 and 7; MPRNG)."""
    assert work.aggregates is not None
    missing = await _gather(services, work)
    await bind_part_errands(services, work)
    nonce = derive_nonce(services.nonce_secret, services.slot(work, Phase.REVEAL))
    work.reveals = await services.exchange.run(
        work,
        Phase.REVEAL,
        Reveal(nonce, missing),
        wait_s=services.deadlines.bulk + compute_relay_bound(services, work),
        is_valid=lambda message: is_valid_reveal(message, len(work.parts)),
    )
    await ban_broken_reveals(services, work, work.aggregates, work.reveals)
    complaints = find_gather_complaints(work.reveals, work.parts, work.relays)
    if complaints:
        await settle_gather_complaints(services, work, complaints)
    said = services.broadcast.find_said(work.stage(Phase.CHECK))
    if isinstance(said, Check):
        await _recall_all(services, work, said)
    else:
        work.lacking = await _obtain_all(services, work)
    if work.aggregate is None and not work.lacking:
        work.aggregate = _merge_parts(services, work)
    work.directions = Directions(combine_nonces(work.reveals), services.config.elements, services.config.projections)


async def _gather(services: Services, work: Work) -> tuple[int, ...]:
    """Send our aggregate to all and wait for theirs; return the parts that nobody gave us."""
    mine, relays = work.part_of(services.me), work.relays
    if mine.elements:
        direct = [peer for peer in services.others(work) if relays.between(services.me, peer) is None]
        given = [peer for peer in direct if services.conduct.sends_part(work.round, peer)]
        pass_on_part(services, work, mine, given)
    relay_parts(services, work)
    if services.has_said(work, Phase.REVEAL):
        return ()
    overdue = set[int]()  # what others wait for no longer, whether it comes yet or not
    await services.exchange.wait_out(
        work, lambda: _has_all_parts(services, work), lambda: _collect_parts(services, work, overdue)
    )
    return tuple(sorted({part.index for part in _lacking_parts(services, work)} | overdue))


async def _collect_parts(services: Services, work: Work, overdue: set[int]) -> None:
    """Wait for parts, then ask for them: some others, who may have them, and who is to give them to us.

    What aggregators have not given us by then is ``overdue``; what comes through relays may come later.
    """
    overdue.clear()
    if await services.exchange.wait_for(work, lambda: _has_all_parts(services, work), services.deadlines.bulk_s):
        return
    await ask_and_hasten(services, work, lambda: _find_holders(services, work), lambda: _ask_for_parts(services, work))
    await await_returning(services, work, lambda: _find_aggregators(services, work))
    between, me = work.relays.between, services.me
    late = {part.index for part in _lacking_parts(services, work) if between(me, part.aggregator) is None}
    await _await_relayed_parts(services, work)
    overdue.update(late)


async def _ask_for_parts(services: Services, work: Work) -> None:
    """Ask the aggregator last: a member that could not send its part yet has it, and serves it already."""
    some = services.others(work)[:PULL_SOURCES]
    async with trio.open_nursery() as nursery:
        for part in _lacking_parts(services, work):
            source = work.relays.between(services.me, part.aggregator) or part.aggregator
            nursery.start_soon(pull_part, services, work, part, tuple(dict.fromkeys((*some, source))))


def _lacking_parts(services: Services, work: Work) -> list[Part]:
    return [part for part in work.parts if part.elements and not _is_held(services, work, part)]


def _has_all_parts(services: Services, work: Work) -> bool:
    return all(_is_held(services, work, part) for part in work.parts if part.elements)


def _is_held(services: Services, work: Work, part: Part) -> bool:
    return services.parts.get(work.round, work.attempt, part, work.aggregate_root_of(part.aggregator)) is not None


def _find_aggregators(services: Services, work: Work) -> list[PeerId]:
    return [part.aggregator for part in _lacking_parts(services, work)]


def _find_holders(services: Services, work: Work) -> set[PeerId]:
    """Whoever is to give us what we lack: aggregators, and relays between us and them."""
    lacking = _find_aggregators(services, work)
    return {work.relays.between(services.me, peer) or peer for peer in lacking} | set(lacking)


async def _await_relayed_parts(services: Services, work: Work) -> None:
    """Give relays the time they may need for what still lacks, then ask them."""

    def lacking() -> list[tuple[Part, PeerId]]:
        relays = ((part, work.relays.between(services.me, part.aggregator)) for part in _lacking_parts(services, work))
        return [(part, relay) for part, relay in relays if relay is not None]

    bound = compute_hop_bound(services)
    if not lacking() or await services.exchange.wait_for(work, lambda: not lacking(), bound):
        return
    pulls = [partial(pull_part, services, work, part, (relay,)) for part, relay in lacking()]
    await pull_together(services, work, pulls)


async def _obtain_all(services: Services, work: Work) -> tuple[int, ...]:
    """Return the parts that nobody gave us, though we asked for as long as our CHECK is waited for: it complains.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    await services.exchange.wait_out(
        work, lambda: _has_all_parts(services, work), lambda: _ask_for_rest(services, work)
    )
    return tuple(part.index for part in _lacking_parts(services, work))


async def _recall_all(services: Services, work: Work, said: Check) -> None:
    """Hold what our CHECK said before a restart that we had: it is on disk, and none of a later attempt is yet.

    A complaint needs nothing more. An aggregate that counts as zeros is not there as it was committed to.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
        Undecided: the disk has lost it, and nobody served a part for PATIENCE_S.
    """
    work.lacking, elements = said.missing, services.config.elements
    update = None if said.missing else services.updates.load(work.round, elements)
    if update is not None:
        work.aggregate = update.aggregate
        await services.compute.run(lambda: _hold_parts(services, work, update.aggregate))
    elif not said.missing:
        log.error("the aggregate that we reported on before the restart is not on disk", round=work.round)
        await _ask_in_turn(services, work, lambda: PATIENCE_S)
        for part in _lacking_parts(services, work):
            raise Undecided(f"round {work.round}: nobody served part {part.index} for a day; start again")


def _hold_parts(services: Services, work: Work, aggregate: Tensor) -> None:
    """Hold and serve the parts of ĝ that are what their aggregators committed to."""
    for part in _lacking_parts(services, work):
        values = aggregate[part.start : part.stop]
        if compute_root(as_bytes(values), 4 * services.config.chunk_size) == work.aggregate_root_of(part.aggregator):
            services.parts.keep_own(work.round, work.attempt, part, values)


async def _ask_for_rest(services: Services, work: Work) -> None:
    """Ask for what still lacks; after a recovery also at once for all that a restart lost, as before it."""
    if services.broadcast.place.serial:
        refetch_parts(services, work)
    await _ask_in_turn(services, work, lambda: _compute_obtaining_bound(services, work))


def _compute_obtaining_bound(services: Services, work: Work) -> float:
    """Return the seconds after which every honest member has all parts that another has, or that their owner has.

    That is what a restart lost, beside what was complained about: a vector, as in REVEAL. Whose link was lost gets the
    time that ``await_returning`` gives it. The others wait as long for our CHECK.
    """
    deadlines, place = services.deadlines, services.broadcast.place
    bound = work.serving_s + deadlines.bulk_s + compute_pull_bound(services)
    if not any(map(services.broadcast.was_away, _find_aggregators(services, work))):
        return bound
    return bound + deadlines.returning_s + (0.0 if place.serial else deadlines.warm_up_s)


async def _ask_in_turn(services: Services, work: Work, compute_limit: Callable[[], float]) -> None:
    """Ask all for one part after another, again and again, until none is lacking, or for as long as the limit is.

    At least one honest member has each that was attested. It may be the only one, and slow, or have no link to us: each
    of us begins with another part, passes on what it got, and has them all within ``compute_serving_bound``.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    turn, begun = work.part_of(services.me).index, trio.current_time()
    while lacking := _lacking_parts(services, work):
        left_s = begun + compute_limit() - trio.current_time()
        if left_s <= 0:
            break
        part = lacking[turn % len(lacking)]
        with trio.move_on_after(left_s):
            await services.exchange.attend(work, partial(pull_part, services, work, part, services.others(work)))
        is_held = partial(_is_held, services, work, part)
        if not is_held():
            await services.exchange.wait_for(work, is_held, services.config.delay_s / 2)
            turn += 1


def _merge_parts(services: Services, work: Work) -> Tensor:
    """Return ĝ, float32 of shape (D,), from all parts."""
    parts = [part for part in work.parts if part.elements]
    return services.parts.merge([services.parts.read(work.round, work.attempt, part) for part in parts])


async def ban_broken_reveals(services: Services, work: Work, commitments: Transcript, reveals: Transcript) -> None:
    """Ban whoever revealed another nonce than it had promised: no draw can stand on it.

    Raises:
        NewAttempt: somebody did.
    """
    broken = find_broken_reveals(commitments, reveals)
    if broken:
        await services.exchange.agree(work, services.deadlines.check)
    for peer in broken:
        proof = RevealProof(commitments[peer].envelope, reveals[peer].envelope)
        services.record(work, peer, DepartureKind.BAN, Cause.BROKEN_REVEAL, proof)
    if broken:
        raise NewAttempt(work.round, reveals.digest, banned=broken)

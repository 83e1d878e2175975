"""
Charges against candidates, from the answers to what follows (design section 6, Joining 4).

COMMITs charge, CONFIRMs answer: no message is sent for it. A member that loses leaves as by any ruling, with a new
attempt. A candidate changes no roster by going, so it is written down with the seal that says so.
"""

from collections.abc import Collection

from btard.identity import PeerId
from btard.rules.admission import Check
from btard.rules.charges import Loss, find_charges, settle_charges
from btard.rules.evidence import Cause, Departure, DepartureKind
from btard.rules.messages import Answer
from btard.swarm.events import DisputeOpened
from btard.swarm.exchange import NewAttempt
from btard.swarm.proving import prove_charge
from btard.swarm.services import Services
from btard.swarm.state import Work


def find_open_charges(work: Work) -> tuple[Check, ...]:
    """Return the charges in a round's COMMITs against its candidates, and those whom it began with as members.

    Whoever left in this round is judged all the same; a checker that left has dropped its charge.
    """
    assert work.commits is not None
    known = {*work.state.roster.members, *find_candidates(work)} - work.banned
    return find_charges(work.commits, work.state.due, known)


def find_candidates(work: Work) -> tuple[PeerId, ...]:
    """Return who is on probation in a round."""
    return tuple(PeerId(item.peer) for item in work.state.seal.candidates)


async def answer_charges(services: Services, work: Work, charges: tuple[Check, ...]) -> tuple[Answer, ...]:
    """Redo every sample that somebody is charged with, and say what we find."""
    for charge in charges:
        services.observe(DisputeOpened("sample", charge.work.round, charge.work.candidate, charge.checker))
    findings = [await services.reception.judge(charge) for charge in charges]
    return tuple(
        Answer(charge.work.candidate, charge.checker, finding)
        for charge, finding in zip(charges, findings, strict=True)
    )


def find_losses(work: Work) -> tuple[Loss, ...]:
    """Return who leaves by the answers; of members none is left among them once ``part_with_losers`` has returned."""
    assert work.confirms is not None
    return settle_charges(find_open_charges(work), work.confirms, work.electorate)


async def part_with_losers(services: Services, work: Work) -> None:
    """Let members go that charged falsely, or were charged as candidates and are none any more.

    Raises:
        NewAttempt: somebody does.
    """
    losses = [loss for loss in find_losses(work) if loss.peer in work.roster]
    if losses:
        await services.exchange.agree(work, services.deadlines.check)
        for loss in losses:
            services.record(work, loss.peer, loss.kind, loss.cause, prove_charge(work, loss.charge))
        banned = tuple(loss.peer for loss in losses if loss.kind is DepartureKind.BAN)
        removed = tuple(loss.peer for loss in losses if loss.kind is DepartureKind.REMOVAL)
        raise NewAttempt(work.round, work.chain, banned=banned, removed=removed)


def find_sealed_departures(work: Work) -> tuple[Departure, ...]:
    """Return who leaves with this round's seal, and why: candidates, whoever left in it and is banned now, goodbyes."""
    guests = find_candidates(work)
    losses = tuple(
        Departure(loss.peer, work.round, work.attempt, loss.kind, loss.cause, prove_charge(work, loss.charge))
        for loss in find_losses(work)
        if loss.kind is DepartureKind.BAN or loss.peer in guests
    )
    return (*losses, *find_goodbyes(work.round, work.attempt, work.parting))


def find_goodbyes(round_number: int, attempt: int, parting: Collection[PeerId]) -> tuple[Departure, ...]:
    """Return the departures of those who said goodbye in a round, with its seal."""
    kind, cause = DepartureKind.GOODBYE, Cause.GOODBYE
    return tuple(Departure(peer, round_number, attempt, kind, cause, None) for peer in sorted(parting))

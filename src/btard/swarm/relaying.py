"""
Relaying: what a marked pair has for each other goes through a member marked with neither (attacks B1).

The owner sends to the relay in place of the recipient, and the relay passes on what it gets, as it
gets it. Where nobody is marked nothing here sends a byte or waits.
"""

from collections.abc import Callable, Sequence

from btard.identity import PeerId
from btard.rules.parts import Part
from btard.rules.relays import Errand
from btard.swarm.pulling import compute_pull_bound, send_whole
from btard.swarm.services import Services
from btard.swarm.state import Work


def compute_hop_bound(services: Services) -> float:
    """Return the seconds after which a relay has what it is to pass on, or knows that it will not get it.

    It enters a phase at most 3Δ after the recipient, waits for a transfer, waits 8Δ more for an owner whose link was
    lost, and asks. After a restart of ours it need not have been restarted, and gets no more time.
    """
    deadlines = services.deadlines
    return deadlines.bulk_s + compute_pull_bound(services) + deadlines.messages_s + deadlines.returning_s


def compute_relay_bound(services: Services, work: Work) -> float:
    """Return the seconds by which two hops may take longer than one; 0 without marks.

    That is until the relay is asked too, and 8Δ more where the link to it was lost.
    """
    if not work.marks.pairs:
        return 0.0
    return compute_hop_bound(services) + compute_pull_bound(services) + services.deadlines.returning_s


def find_slice_errands(services: Services, work: Work) -> tuple[Errand, ...]:
    """Return the slices that we pass on in this attempt."""
    errands = work.relays.find_slice_errands(work.parts, work.contributors)
    return tuple(errand for errand in errands if errand.relay == services.me)


def find_part_errands(services: Services, work: Work) -> tuple[Errand, ...]:
    """Return the aggregates that we pass on in this attempt."""
    errands = work.relays.find_part_errands(work.parts)
    return tuple(errand for errand in errands if errand.relay == services.me)


def scatter_to_relays(services: Services, work: Work) -> None:
    """Send our slices for those with whom we are marked to the relays; whole, for that is how relays serve them."""
    if work.gradient is None:
        return
    relays = work.relays
    for part in work.parts:
        relay = relays.between(services.me, part.aggregator) if part.elements else None
        if relay is not None and services.conduct.sends_slice(work.round, relay):
            send_whole(services, work, relay, part)


def relay_slices(services: Services, work: Work) -> None:
    """Pass on slices as they come."""
    for errand in find_slice_errands(services, work):
        if services.conduct.sends_slice(work.round, errand.recipient):
            pass_on_slice(services, work, errand.owner, work.part_of(errand.recipient), [errand.recipient])


def pass_on_slice(services: Services, work: Work, owner: PeerId, part: Part, recipients: Sequence[PeerId]) -> None:
    """Send a member's slice to others, as soon as we hold it in this attempt."""
    what = work.round, work.root_of(owner), part.chunks

    def send() -> None:
        for peer in recipients:
            services.slices.forward(*what, peer)

    services.spawn(_do_once, services, lambda: services.slices.find_piece(*what) is not None, send)


def relay_parts(services: Services, work: Work) -> None:
    """Pass on aggregates as they come."""
    for errand in find_part_errands(services, work):
        if services.conduct.sends_part(work.round, errand.recipient):
            pass_on_part(services, work, work.part_of(errand.owner), [errand.recipient])


def pass_on_part(services: Services, work: Work, part: Part, recipients: Sequence[PeerId]) -> None:
    """Send an aggregate to others: at once where we hold it, else as soon as we do in this attempt."""
    number, attempt, root = work.round, work.attempt, work.aggregate_root_of(part.aggregator)

    def is_held() -> bool:
        return services.parts.get(number, attempt, part, root) is not None

    def send() -> None:
        services.parts.send(number, attempt, part, recipients)

    if is_held():
        send()
    else:
        services.spawn(_do_once, services, is_held, send)


async def _do_once(services: Services, is_held: Callable[[], bool], send: Callable[[], None]) -> None:
    """Send what we hold, once we do, as long as the attempt lasts: a recovery may hold its owner up."""
    place = services.broadcast.place
    begun = place.round, place.attempt
    while not is_held():
        await services.exchange.board.changed()
        if (place.round, place.attempt) != begun:
            return
    send()

"""
Relaying: what a marked pair has for each other goes through a member marked with neither (attacks B1).

The owner sends to the relay in place of the recipient, and the relay passes on what it gets, as it
gets it. Where nobody is marked nothing here sends a byte or waits.
"""

from collections.abc import Callable

from btard.identity import PeerId
from btard.rules.parts import Part
from btard.rules.relays import Errand
from btard.swarm.pulling import compute_pull_bound, send_whole
from btard.swarm.services import Services
from btard.swarm.state import Work


def compute_hop_bound(services: Services) -> float:
    """Return the seconds after which a relay has what it is to pass on, or knows that it will not get it.

    It enters a phase at most 3Δ after the recipient, waits for a transfer, waits 4Δ more for an owner
    whose link was lost, and asks. After a restart of ours it need not have been restarted, and gets no more time.
    """
    deadlines = services.deadlines
    return deadlines.bulk_s + compute_pull_bound(services) + 2 * deadlines.messages_s


def compute_relay_bound(services: Services, work: Work) -> float:
    """Return the seconds by which two hops may take longer than one: until the relay is asked too; 0 without marks."""
    return compute_hop_bound(services) + compute_pull_bound(services) if work.marks.pairs else 0.0


def find_slice_errands(services: Services, work: Work) -> tuple[Errand, ...]:
    """Return the slices that we pass on in this attempt."""
    errands = work.relays.find_slice_errands(work.parts, work.contributors)
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
            root, part = work.root_of(errand.owner), work.part_of(errand.recipient)
            services.spawn(_pass_on_slice, services, work.round, root, part, errand.recipient)


async def _pass_on_slice(services: Services, number: int, root: bytes, part: Part, recipient: PeerId) -> None:
    if await wait_in_attempt(services, lambda: services.slices.find_piece(number, root, part.chunks) is not None):
        services.slices.forward(number, root, part.chunks, recipient)


def relay_parts(services: Services, work: Work) -> None:
    """Pass on aggregates as they come."""
    for errand in work.relays.find_part_errands(work.parts):
        if errand.relay == services.me and services.conduct.sends_part(work.round, errand.recipient):
            part, root = work.part_of(errand.owner), work.aggregate_root_of(errand.owner)
            services.spawn(_pass_on_part, services, work.round, work.attempt, part, root, errand.recipient)


async def _pass_on_part(
    services: Services, number: int, attempt: int, part: Part, root: bytes, recipient: PeerId
) -> None:
    if await wait_in_attempt(services, lambda: services.parts.get(number, attempt, part, root) is not None):
        services.parts.send(number, attempt, part, [recipient])


async def wait_in_attempt(services: Services, is_held: Callable[[], bool]) -> bool:
    """Return whether something comes as long as the attempt lasts: a recovery may hold its owner up."""
    place = services.broadcast.place
    begun = place.round, place.attempt
    while not is_held() and (place.round, place.attempt) == begun:
        await services.exchange.board.changed()
    return is_held()

"""
The way back into a round that others are in the middle of.

A restarted peer runs its round again from COMMIT. What it and others had said is on its board from the
start; what was said while it was away it asks everyone for, stage by stage, as it comes through them. In a
recovery it takes part as far as there is time, and asks what the others settled without it.
"""

from collections.abc import Sequence

import structlog
import trio
from torch import Tensor

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId, short
from btard.net import Hub
from btard.rules.messages import Phase, SignedMessage, Stage
from btard.swarm.frames import Kind, SettledRequest
from btard.swarm.services import Services
from btard.swarm.state import Gradient, Work
from btard.swarm.validation import compute_gradient
from btard.wire import encode

log = structlog.get_logger(__name__)

RECOVERY = (Phase.HALT, Phase.VIEW, Phase.BALLOT, Phase.CONCLUDE)


async def recall(services: Services, work: Work, messages: Sequence[SignedMessage]) -> None:
    """Hold again what a restart took from memory: messages, our gradient of the round before, its aggregate."""
    for message in messages:
        services.broadcast.board.post(message)
    services.slices.begin_attempt(len(work.roster))
    services.parts.begin_attempt(work.round, work.attempt, len(work.roster))
    if work.previous is not None and work.previous.aggregate is not None:
        await _recall_previous(services, work.previous, work.previous.aggregate)


async def _recall_previous(services: Services, previous: Work, aggregate: Tensor) -> None:
    for part in previous.parts:
        if part.elements:
            services.parts.keep_own(previous.round, previous.attempt, part, aggregate[part.start : part.stop])
    if services.me in previous.contributors:
        chunk_size = services.config.chunk_size

        def compute() -> Gradient:
            own, _ = compute_gradient(services.workload, previous, services.me, chunk_size)
            return services.conduct.commitment(previous.round, own, chunk_size)

        gradient = await services.compute.run(compute)
        if gradient.tree.root == previous.root_of(services.me):  # else we say nothing about that round
            previous.gradient = gradient
            services.slices.keep_own(previous.round, gradient)


async def catch_up(services: Services, hub: Hub) -> None:
    """Ask every member, once for every stage that we come to, until the round in which we came back is over."""
    place, asked, told = services.broadcast.place, set[tuple[Stage, PeerId]](), set[tuple[int, PeerId]]()
    first, delay_s = place.round, services.config.delay_s
    while place.round <= first:
        stages = [Stage(0, place.attempt, phase, place.serial) for phase in RECOVERY]
        stages += [place.current.stage] if place.current else []
        for peer in services.broadcast.others:
            for stage in stages if hub.is_connected(peer) else ():
                if (stage, peer) not in asked:
                    asked.add((stage, peer))
                    services.spawn(services.broadcast.pull, stage, (peer,), 2 * delay_s)
            if hub.is_connected(peer) and (place.attempt, peer) not in told:
                told.add((place.attempt, peer))
                services.spawn(_ask_for_settlement, services, hub, peer)
        with trio.move_on_after(delay_s / 4):  # a link may have been made
            await services.broadcast.board.changed()


async def _ask_for_settlement(services: Services, hub: Hub, peer: PeerId) -> None:
    """Learn from a member what settled the attempt that we are in; what is settled later it tells by itself."""
    request = encode(SettledRequest(services.broadcast.place.attempt))
    try:
        answer = await hub.request(peer, Kind.PULL_SETTLED, request, timeout_s=2 * services.config.delay_s)
        if answer.head:
            services.broadcast.on_certificate(answer.head)
    except (NetworkError, RemoteProtocolError) as error:
        log.debug("no answer about a settlement", peer=short(peer), reason=str(error))

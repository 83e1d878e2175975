"""
The way back into a round that others are in the middle of.

A restarted peer runs its round again from COMMIT. What it and others had said is on its board from the
start; what was said while it was away it asks everyone for, stage by stage, as it comes through them.
"""

import trio

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.messages import Phase, Stage
from btard.swarm.restoring import Start
from btard.swarm.services import Services
from btard.swarm.state import Gradient
from btard.swarm.validation import compute_gradient

RECOVERY = (Phase.HALT, Phase.VIEW, Phase.BALLOT)


async def recall(services: Services, start: Start) -> None:
    """Hold again what a restart took from memory: messages, our gradient of the round before, its aggregate."""
    work = start.work
    for message in (*start.heard, *start.own):
        services.broadcast.board.post(message)
    services.slices.begin_attempt(len(work.roster))
    services.parts.begin_attempt(work.round, work.attempt, len(work.roster))
    await _recall_previous(services, start)


async def _recall_previous(services: Services, start: Start) -> None:
    previous = start.work.previous
    if previous is None or previous.aggregate is None:
        return
    for part in previous.parts:
        if part.elements:
            values = previous.aggregate[part.start : part.stop]
            services.parts.keep_own(previous.round, previous.attempt, part, values)
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
    place, asked = services.broadcast.place, set[tuple[Stage, PeerId]]()
    first, delay_s = place.round, services.config.delay_s
    while place.round <= first:
        stages = [Stage(0, place.attempt, phase, place.serial) for phase in RECOVERY]
        stages += [place.current.stage] if place.current else []
        for peer in services.broadcast.others:
            for stage in stages if hub.is_connected(peer) else ():
                if (stage, peer) not in asked:
                    asked.add((stage, peer))
                    services.spawn(services.broadcast.pull, stage, (peer,), 2 * delay_s)
        with trio.move_on_after(delay_s / 4):  # a link may have been made
            await services.broadcast.board.changed()

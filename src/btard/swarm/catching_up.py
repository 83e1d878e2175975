"""
The way back into a round that others are in the middle of.

A restarted peer runs its round again from COMMIT. What it and others had said is on its board from the
start; what was said while it was away it asks everyone for, stage by stage, as it comes through them. In a
recovery it takes part as far as there is time, and asks what the others settled without it.
"""

import trio

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.messages import Commit, Phase, Stage
from btard.swarm.adopting import ask_for_settlement
from btard.swarm.binding import find_committed
from btard.swarm.services import Services
from btard.swarm.state import Gradient, Work
from btard.swarm.validation import compute_own_gradient

RECOVERY = (Phase.HALT, Phase.VIEW, Phase.BALLOT, Phase.CONCLUDE)


def recall(services: Services, work: Work) -> None:
    """Hold again what a restart took from memory beside messages: the aggregate of the round before."""
    services.slices.begin_attempt(len(work.roster))
    services.parts.begin_attempt(work.round, work.attempt, len(work.roster))
    previous = work.previous
    if previous is not None and (aggregate := previous.aggregate) is not None:
        for part in previous.parts:
            if part.elements:
                services.parts.keep_own(previous.round, previous.attempt, part, aggregate[part.start : part.stop])


async def recall_gradient(services: Services, previous: Work | None) -> None:
    """Hold our gradient of the round before again."""
    if previous is None or previous.aggregate is None or services.me not in previous.contributors:
        return
    assert previous.commits is not None
    said = previous.commits[services.me].payload
    assert isinstance(said, Commit)
    gradient = await recall_committed(services, previous, said)
    if gradient.tree.root == said.root:  # else we say nothing about that round
        previous.gradient = gradient
        services.slices.keep_own(previous.round, gradient)


async def recall_committed(services: Services, work: Work, said: Commit) -> Gradient:
    """Return the gradient that we committed to before a restart: from our disk, or computed anew where that is quick.

    What is computed may be another one, where the task is not deterministic.
    """
    found = await services.compute.run(lambda: find_committed(services, work.round, said))
    return await compute_own_gradient(services, work) if found is None else found


async def catch_up(services: Services, hub: Hub) -> None:
    """Ask every member, once for every stage that we come to, until we are in another round and hear of everything."""
    place, asked, told = services.broadcast.place, set[tuple[Stage, PeerId]](), set[tuple[int, PeerId]]()
    first, delay_s = place.round, services.config.delay_s
    while place.round <= first or trio.current_time() < place.on_time_from:
        stages = [Stage(0, place.attempt, phase, place.serial) for phase in RECOVERY]
        stages += [place.current.stage] if place.current else []
        for peer in services.broadcast.others:
            for stage in stages if hub.is_connected(peer) else ():
                if (stage, peer) not in asked:
                    asked.add((stage, peer))
                    services.spawn(services.broadcast.pull, stage, (peer,), 2 * delay_s)
            if hub.is_connected(peer) and (place.attempt, peer) not in told:
                told.add((place.attempt, peer))
                services.spawn(ask_for_settlement, services.broadcast, peer, 0, 2 * delay_s)
        with trio.move_on_after(delay_s / 4):  # a link may have been made
            await services.broadcast.board.changed()

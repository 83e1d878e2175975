"""The end of a run: nobody leaves while another may still need what it holds."""

from btard.rules.marks import compute_marks_digest
from btard.rules.messages import Agree, Phase
from btard.swarm.services import Services
from btard.swarm.state import Work


async def see_off(services: Services, work: Work) -> None:
    """Stay until all say that they hold the closing COMMITs, or have had time to ask for them (attacks A6).

    A member that was told one of them late finds by our AGREE that we have it, and asks us; one that was told
    of neither asks at its deadline, having entered up to 3Δ after us. Whoever never says AGREE costs this much time
    and no more: nothing hangs on it.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
    """
    stage, board = work.stage(Phase.AGREE), services.broadcast.board
    services.broadcast.say(stage, work.roster.digest, work.chain, Agree(compute_marks_digest(work.marks)))
    patience_s = services.deadlines.commit(work.round) + 6 * services.config.delay_s
    await services.exchange.wait_for(work, lambda: board.of(stage).keys() >= set(work.roster.members), patience_s)

"""The end of a run: nobody leaves while another may still need what it holds, or may go back to the last round."""

import structlog
import trio

from btard.errors import Undecided
from btard.rules.dolev_strong import compute_end
from btard.swarm.services import Services
from btard.swarm.state import Work

log = structlog.get_logger(__name__)

SILENCE = 3
"""Δ beyond a deadline after which whoever still lacks something halts."""
LOOKS = 8
"""Such looks before we end anyway: where so few are left that nothing can be settled, the run is over all the same."""


def compute_look(wait_s: float, tolerated: int, delay_s: float) -> float:
    """Return after how many seconds we look who is gone: a phase, its HALT, and all steps of a fallback.

    An attempt at the end of a run has few recoveries: by the second of them the silent leave, and LOOKS are enough.
    """
    return wait_s + SILENCE * delay_s + compute_end(tolerated, delay_s)


async def see_off(services: Services, work: Work) -> bool:
    """Return once it is settled that all hold the closing COMMITs, as for every transcript by which somebody leaves.

    Whoever left before could be taken back to the last round without being there (decision record 0025). False if too
    few are left to settle anything: then it ends here, and the last seal is not sure.

    Raises:
        NewAttempt: a recovery decided meanwhile that somebody leaves.
        Undecided: more than half are gone, or our own line is dead, which looks the same from here.
    """
    config, others = services.config, frozenset(work.roster.without([services.me]).members)
    tolerated = work.roster.tolerated(config.byzantine_bound)
    for _ in range(LOOKS):
        with trio.move_on_after(compute_look(services.deadlines.check, tolerated, config.delay_s)):
            await services.exchange.agree(work, services.deadlines.check)
            return True
        if 1 + len(services.broadcast.hub.connected & others) < work.roster.majority:
            if services.ledger.signatures(work.round - 1):  # settled before a restart: we came back for others
                return True
            raise make_doubt(work.round - 1)
    log.warning("the end of the run is not settled, and too few are left for that: it ends here all the same")
    return False


def make_doubt(last_round: int) -> Undecided:
    """Return what ends whoever is alone after the last round: the others may have gone back to it, and on elsewhere."""
    return Undecided(
        f"round {last_round} was the last, and more than half of the members are gone or out of reach: whether they "
        "ended with the same state is not known; start again where they are. If they are gone for good: the state in "
        "DATA_DIR/checkpoints is this peer's own, confirmed by nobody; compare the state that btard-peer status shows "
        "with another's, or look how good it is: btard-peer evaluate DATA_DIR/checkpoints"
    )

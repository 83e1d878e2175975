"""Adversaries without a plan: small acts in an order that a seed draws."""

from collections import Counter
from pathlib import Path

import pytest
import trio
from tests.attacks.scenario import run_scenario

from btard.attacks import ADVERSARIES, Post
from btard.attacks.whims import HALTS, TELLINGS, draw_often
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.messages import Phase, Reveal, Stage, View
from btard.rules.roster import Roster
from btard.sim.drawing import Order
from btard.sim.play import play
from btard.sim.scenario import Fault
from btard.wire import sign_message

ME = Identity(bytes(32))
CONFIG = RunConfig(founder=ME.peer_id.hex(), rounds=100)


def test_weights_are_kept() -> None:
    """What has a larger weight is drawn more often; nothing is never drawn."""
    for weights in (TELLINGS, HALTS):
        drawn = Counter(draw_often(weights, number) for number in range(5_000))
        assert drawn.keys() == weights.keys()
        assert max(drawn, key=drawn.__getitem__) == max(weights, key=weights.__getitem__)


def test_a_view_without_whims_stays_as_it_is() -> None:
    """Before its first round the adversary shows what it holds."""
    attack = ADVERSARIES["whims"](Post(CONFIG, ME.peer_id, 0, 5))
    message = sign_message(ME, CONFIG.run_id, bytes(32), Stage(4, 0, Phase.REVEAL), b"", Reveal(bytes(32), ()))
    assert attack.deliver(message, ME.peer_id, ME, CONFIG.run_id) == message.envelope
    view = View((4, 0, 3, 0), False, (), (), (), b"", (), False)  # type: ignore[arg-type]
    assert attack.payload(Stage(0, 0, Phase.VIEW), Roster.of([ME.peer_id]), view) is view
    assert attack.acted_in_round is None


@pytest.mark.parametrize("seed", range(6))
async def test_the_others_go_on(autojump_clock: trio.testing.MockClock, tmp_path: Path, seed: int) -> None:
    """Two of five act as they please, together or alone: the three others finish with one state."""
    scenario = await run_scenario(tmp_path, {1: "whims", 3: "whims"}, rounds=8, size=5, seed=seed)
    assert all(scenario.attacker(index).acted_in_round for index in (1, 3))
    scenario.require_sound()


@pytest.mark.parametrize("seed", range(3))
def test_all_may_die_at_once(seed: int, tmp_path: Path) -> None:
    """A blackout strikes every honest member, and the run goes on from their ledgers."""
    scenario = Order(peers=4, byzantine=1, rounds=6, faults=Fault.BLACKOUT.value, attack="whims").draw(seed)
    assert {crash.peer for crash in scenario.crashes} == set(scenario.honest)
    report = play(scenario, tmp_path)
    assert report.violations == ()
    assert report.rounds_done == scenario.rounds

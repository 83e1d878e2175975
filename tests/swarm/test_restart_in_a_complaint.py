"""A member that is started again while all others settle complaints comes back in time: it waits for nothing twice."""

from pathlib import Path

import pytest
from tests.swarm.restarts import HaltOnce, kill_after, read_said

from btard.attacks.aggregates import WrongAggregate
from btard.attacks.withholding import Withhold
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.swarm.audit import audit_ledger
from btard.swarm.frames import Kind
from btard.swarm.services import Deadlines

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 5, "genesis_size": 6, "delay_s": 1.0}
CHEAT, VICTIM = 1, 3


@pytest.mark.parametrize("back_s", [4.0, 8.0])
@pytest.mark.parametrize("phase", [Phase.AGGREGATE, Phase.PUBLISH, Phase.ATTEST])
def test_whoever_is_back_within_a_wait_of_the_others_stays(tmp_path: Path, phase: Phase, back_s: float) -> None:
    """The cheat keeps its slices back for good, so all that the victim lost of them never comes again."""
    swarm = SimulatedSwarm(SETTINGS, LinearTask, tmp_path, conducts={CHEAT: Withhold(2)})
    killed = kill_after(swarm, VICTIM, phase, 2, back_s)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    assert outcome.departures(DepartureKind.REMOVAL).keys() == {CHEAT}
    assert not outcome.departures(DepartureKind.BAN)
    assert outcome.peers[VICTIM].error is None
    assert len(outcome.state_roots) == 1
    assert audit_ledger(swarm.data_dir(VICTIM)).problems == ()


def test_whoever_has_voted_waits_for_nothing_to_vote_on(tmp_path: Path) -> None:
    """The opened column lacks the cheat's own slice, which it gives to nobody; the vote about that is said already."""
    cheats = {CHEAT: WrongAggregate(2, 0), 4: HaltOnce(1, 0)}
    swarm = SimulatedSwarm({**SETTINGS, "validators": 0}, LinearTask, tmp_path, conducts=cheats)
    cheat, victim, is_open = swarm.identities[CHEAT].peer_id, swarm.identities[VICTIM].peer_id, list[float]()

    def delay(sender: bytes, _receiver: bytes, message: Message) -> float | None:
        is_kept = is_open and sender == cheat and message.payload is not None and message.kind != Kind.PART
        return None if is_kept else 0.05 if sender == victim else 0.1  # it dies before it hears of the others

    def watch(_sender: bytes, _receiver: bytes, message: Message, now: float) -> None:
        said = read_said(swarm, message)
        if said and (said.slot.stage.round, said.slot.stage.phase) == (2, Phase.CONFIRM):
            is_open.append(now)

    swarm.network.delivery, swarm.network.on_arrival = delay, watch
    killed = kill_after(swarm, VICTIM, Phase.VOTE, 2, 3.0)
    outcome = run_deterministically(swarm.run, 1)
    assert killed
    assert is_open
    assert VICTIM not in outcome.departures(DepartureKind.REMOVAL)
    assert outcome.peers[VICTIM].error is None
    assert len(outcome.state_roots) == 1


def test_after_a_restart_only_messages_are_waited_for_longer() -> None:
    """Time that others get to come back must not delay what we say ourselves."""
    usual = Deadlines(1.0, 2.0, 4.25)
    longer = usual.after_restart()
    assert (longer.compute_s, longer.bulk_s, longer.messages_s) == (1.0, 2.0, 4.25)
    more = (longer.bulk - usual.bulk, longer.check - usual.check, longer.gradient - usual.gradient)
    assert min(more) == longer.warm_up_s > 0

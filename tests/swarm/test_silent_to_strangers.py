"""Members that do not answer a stranger, or no longer have what it needs: it comes in all the same, and soon."""

import math
from pathlib import Path

import pytest
import trio
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, build, find, play, require_sound

from btard.attacks import Deaf
from btard.errors import Unreachable
from btard.identity import PeerId
from btard.net import Hub, Loan, Message
from btard.sim.clocks import SkewedClock, skewed, true_time
from btard.sim.joining import KeptStates
from btard.swarm.conduct import Conduct
from btard.swarm.events import Admitted, Promoted, Sampled
from btard.swarm.frames import Kind
from btard.swarm.restoring import StoredState

LATER_S = 40.0
"""When a stranger comes that finds nobody with all aggregates since x_0."""
SOON_S = 21.5
"""A deaf member costs the first question for the line 13 s, and nothing else."""

FETCHED_S = 12.0
"""Within which a candidate has the state, one member being deaf: three questions to all, 2Δ, 2Δ and 4Δ more at most."""


def hardly(_sender: PeerId, _receiver: PeerId, _message: Message) -> float:
    """Every message takes 0.25 s, and a round 1.5 s."""
    return 0.25


def test_members_that_answer_nothing_keep_no_stranger_out(tmp_path: Path) -> None:
    """Two of six hear no request: what the others tell is enough to know the run, and to be admitted at once."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {1: Deaf(1), 2: Deaf(1)}, hardly, rounds=40)
    admitted: list[float] = []

    def watch(index: int, event: object) -> None:
        if index == STRANGER and isinstance(event, Admitted):
            admitted.append(trio.current_time())

    swarm._watch = watch
    outcome = play(swarm)
    assert admitted[0] < COMES_S + SOON_S
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)


def test_silent_member_costs_a_candidate_a_few_seconds_whatever_its_clock_shows(tmp_path: Path) -> None:
    """Once most have said what they have, whoever hears no request has 2Δ left: the state is not old by then."""
    swarm = build(tmp_path, {STRANGER: LATER_S}, {1: Deaf(1)}, hardly, rounds=50)
    seen: dict[type, float] = {}

    def watch(index: int, event: object) -> None:
        if index == STRANGER:
            seen.setdefault(type(event), true_time())

    swarm._watch = watch
    with skewed({STRANGER: SkewedClock(1.0, 1000.0)}):
        outcome = play(swarm)
    assert seen.get(Sampled, math.inf) - seen[Admitted] < FETCHED_S
    require_sound(swarm, outcome)


def forget_once_asked(kept: KeptStates) -> None:
    """Offer the snapshots that there are, and have none of them any more when the first is asked for."""
    map_state = kept.map

    def forget(_finished: int) -> StoredState | None:
        kept._states.clear()
        kept.map = map_state  # type: ignore[method-assign]
        return None

    kept.map = forget  # type: ignore[method-assign]


def test_state_that_is_too_old_by_now_is_followed_by_a_newer_one(tmp_path: Path) -> None:
    """Members offer a snapshot and have it no more when they are asked: the candidate takes the next one."""
    swarm = build(tmp_path, {STRANGER: LATER_S}, None, hardly, rounds=60, probation=8)

    def watch(index: int, event: object) -> None:
        if index == STRANGER and isinstance(event, Admitted):
            for member in range(MEMBERS):
                forget_once_asked(swarm._kept[member])

    swarm._watch = watch
    outcome = play(swarm)
    assert find(outcome, STRANGER, Promoted)
    require_sound(swarm, outcome)


class KeepsHistory(Conduct):
    """Tells nobody how the run came about before ``tells_at``, in seconds; answers everything else."""

    def __init__(self, tells_at: float) -> None:
        self._tells_at = tells_at

    async def accompany(self, hub: Hub) -> None:
        """Keep questions waiting."""
        while Kind.LINEAGE not in hub.serve:
            await trio.sleep(0.01)
        tell = hub.serve[Kind.LINEAGE]

        async def wait(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            if (left_s := self._tells_at - trio.current_time()) > 0:
                await trio.sleep(left_s)
            return await tell(peer, body)

        hub.serve[Kind.LINEAGE] = wait


@pytest.mark.parametrize("tells_at", [25.0, 1000.0])
def test_stranger_that_is_told_too_late_is_patient_for_a_minute(tells_at: float, tmp_path: Path) -> None:
    """The founder says that the run has begun; that nobody shows it yet is no refusal, and says who was asked."""
    conducts = dict.fromkeys(range(MEMBERS), KeepsHistory(tells_at))
    outcome = play(build(tmp_path, {STRANGER: COMES_S}, conducts, hardly, rounds=70))
    if tells_at < 100:
        assert find(outcome, STRANGER, Promoted)
        return
    with pytest.raises(Unreachable, match=r"nobody tells a valid line of seals: .*did not answer") as caught:
        raise outcome.peers[STRANGER].error or AssertionError
    assert str(caught.value).count(";") == MEMBERS - 1

"""The views of an elected ballot: held here, or asked for all at once."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.swarm.test_settlement import CONFIG, ROSTER, VIEWING, VIEWS, say

from btard.errors import NetworkError
from btard.identity import PeerId
from btard.rules.messages import Ballot, Phase, Stage
from btard.rules.recovery import compute_views_digest
from btard.swarm.settlement import Messages
from btard.swarm.voted import Voted, VotedRequest
from btard.wire import decode

ME, VOTER = ROSTER.members[:2]
LATE = ROSTER.members[3]
ELECTED = {peer: view for peer, view in VIEWS.items() if peer != LATE}
BALLOT = Ballot((LATE,), compute_views_digest(ELECTED))
WAY_S = 0.9
"""There and back, in seconds; Δ is one."""


class Asked:
    """A hub whose peers answer after a while, or never."""

    def __init__(self, *, answers: bool) -> None:
        self._answers, self.requests = answers, 0
        self.serve: dict[int, Any] = {}

    async def request(self, _peer: PeerId, _kind: int, body: bytes, *, timeout_s: float) -> SimpleNamespace:
        """Answer as a voter does."""
        self.requests += 1
        request: VotedRequest = decode(body, VotedRequest)
        with trio.move_on_after(timeout_s):
            await trio.sleep(WAY_S if self._answers else timeout_s)
            return SimpleNamespace(head=ELECTED[sorted(ELECTED)[request.index]].envelope)
        raise NetworkError("no answer")


def make_voted(hub: Asked, held: Messages) -> Voted:
    """Return what a member holds that has voted for something else."""
    board = SimpleNamespace(of=lambda stage: held if stage == VIEWING else {})
    broadcast = SimpleNamespace(place=SimpleNamespace(roster=ROSTER), board=board, hub=hub)
    voted = Voted(CONFIG.run_id, broadcast)  # type: ignore[arg-type]
    voted.keep(VIEWING, Ballot((), compute_views_digest(VIEWS)), VIEWS)
    return voted


async def test_views_that_are_held_are_not_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever voted with one view more has those of the elected ballot."""
    hub = Asked(answers=False)
    assert await make_voted(hub, VIEWS).find(VIEWING, BALLOT, [VOTER], 2.0) == ELECTED
    assert hub.requests == 0


async def test_what_is_not_held_is_asked_for_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """All views come within one way there and back, however many they are."""
    hub = Asked(answers=True)
    assert await make_voted(hub, {}).find(VIEWING, BALLOT, [VOTER], 2.0) == ELECTED
    assert hub.requests == len(ELECTED)
    assert trio.current_time() == pytest.approx(WAY_S)


async def test_a_voter_that_keeps_silent_shows_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """The wait ends."""
    assert await make_voted(Asked(answers=False), {}).find(VIEWING, BALLOT, [VOTER], 2.0) is None
    other = say(Ballot((), bytes(32)), Phase.BALLOT)
    assert await make_voted(Asked(answers=False), other).find(Stage(0, 1, Phase.VIEW), BALLOT, [VOTER], 2.0) is None

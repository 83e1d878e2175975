"""The views that a member voted for, and who is given them."""

from types import SimpleNamespace
from typing import Any

from tests.rules.build import make_message, make_roster

from btard.identity import Identity
from btard.rules.messages import Ballot, Phase, Position, Stage, View
from btard.rules.recovery import compute_views_digest
from btard.swarm.viewing import make_position
from btard.swarm.voted import Voted, VotedRequest
from btard.wire import encode

ROSTER = make_roster(3)
VOTING, VIEWING = Stage(0, 1, Phase.BALLOT), Stage(0, 1, Phase.VIEW)
VIEW = View(Position(3, 1, 2, 0), False, (), (), (), b"", (), resumed=False)


async def test_members_alone_are_served() -> None:
    """A member gets the view that it asks for, a stranger nothing."""
    hub = SimpleNamespace(serve={})
    broadcast: Any = SimpleNamespace(hub=hub, is_member=lambda peer: peer in ROSTER)
    voted = Voted(b"r" * 32, broadcast)
    views = {peer: make_message(peer, VIEWING, VIEW) for peer in ROSTER.members}
    ballot = Ballot((), compute_views_digest(views))
    voted.keep(VOTING, ballot, views)
    request = encode(VotedRequest(make_position(VOTING), ballot.views, 1))
    assert await voted._serve(ROSTER.members[0], request) == (views[ROSTER.members[1]].envelope, None)
    assert await voted._serve(Identity(b"x" * 32).peer_id, request) == (b"", None)

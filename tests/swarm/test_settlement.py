"""A certificate told without views: whoever voted for it holds them, and nobody else can make anything of it."""

import pytest

from btard.identity import Identity, PeerId
from btard.rules.config import RunConfig
from btard.rules.messages import AnyPayload, Ballot, Phase, Position, SignedMessage, Stage, View
from btard.rules.recovery import compute_views_digest
from btard.rules.roster import Roster
from btard.swarm.settlement import Messages, Settlement, open_settlement
from btard.wire import encode, sign_message

MEMBERS = [Identity(bytes([number]) * 32) for number in range(4)]
CONFIG = RunConfig(founder=MEMBERS[0].peer_id.hex(), genesis_size=4, elements=64, chunk_size=4)
ROSTER = Roster.of([item.peer_id for item in MEMBERS])
VIEWING = Stage(0, 0, Phase.VIEW)


def say(payload: AnyPayload, phase: Phase, roster: bytes = ROSTER.digest) -> dict[PeerId, SignedMessage]:
    """Return the same words of every member, by sender."""
    stage = VIEWING._replace(phase=phase)
    said = [sign_message(item, CONFIG.run_id, roster, stage, b"", payload) for item in MEMBERS]
    return {message.sender: message for message in sorted(said, key=lambda message: message.sender)}


def make_view(round_number: int = 2) -> View:
    """Return a view that holds nothing."""
    return View(Position(round_number, 0, int(Phase.CHECK), 0), False, (), (), (), b"", (), False)


VIEWS = say(make_view(), Phase.VIEW)
VOTES = say(Ballot((), compute_views_digest(VIEWS)), Phase.BALLOT)
SETTLEMENT = Settlement(VIEWS, (), (), tuple(VOTES.values()))


def open_ballots(held: Messages) -> Settlement | None:
    """Return what ballots alone settle for somebody who holds these views."""
    return open_settlement(
        CONFIG, ROSTER, 0, encode(SETTLEMENT.ballots), lambda stage: held if stage == VIEWING else {}
    )


def test_ballots_alone_settle_it_for_who_holds_the_views() -> None:
    """It is the same settlement, with the same proof for the ledger and for those who were away."""
    assert open_ballots(VIEWS) == SETTLEMENT
    assert len(encode(SETTLEMENT.ballots)) < len(encode(SETTLEMENT.proof))


@pytest.mark.parametrize(
    "held",
    [
        {},
        dict(list(VIEWS.items())[1:]),
        VIEWS | dict(list(say(make_view(3), Phase.VIEW).items())[:1]),
        say(make_view(), Phase.VIEW, b"o" * 32),
    ],
    ids=["none", "one lacks", "another one", "of another roster"],
)
def test_ballots_alone_settle_nothing_for_others(held: Messages) -> None:
    """Whoever does not hold just these views is shown the whole certificate, or asks for it."""
    assert open_ballots(held) is None

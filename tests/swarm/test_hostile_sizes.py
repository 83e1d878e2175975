"""Large messages of a cheat must neither end a peer nor keep it from being convicted."""

from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity, PeerId
from btard.net import MAX_CONTROL, Hub, MemoryNetwork, Terms
from btard.rules.config import RunConfig
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Ballot, Check, Phase, Position, Report, SignedMessage, Stage, View
from btard.rules.recovery import ALL_VIEWS, LARGEST, belongs, compute_largest, compute_views_digest
from btard.rules.roster import Roster
from btard.swarm.audit import audit_ledger
from btard.swarm.broadcast import Broadcast, take_small
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone
from btard.swarm.frames import StageAnswer, StageRequest
from btard.swarm.ledger import Ledger
from btard.swarm.settlement import Settlement, open_settlement
from btard.wire import decode, encode, open_message, sign_message

Clock = trio.testing.MockClock
Z = 1
LARGE = Check(tuple(Report((0.5,) * 54, 1.0) for _ in range(256)), b"n" * 32)
"""About the largest message that is let in."""


def test_the_large_message_of_these_tests_is_let_in() -> None:
    """What follows would test nothing if it were refused for its size."""
    identity = Identity.generate()
    stage = Stage(2, 0, Phase.CHECK)
    envelope = sign_message(identity, b"r" * 32, b"o" * 32, stage, b"", LARGE).envelope
    assert LARGEST * 0.9 < len(envelope) <= LARGEST


async def test_two_large_messages_for_one_slot_convict_their_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """The proof fits into a HALT and a VIEW, whatever the size of the two messages."""

    def watch(index: int, event: Event) -> None:
        if index == Z and isinstance(event, RoundDone) and event.round == 1:
            for previous in (b"a" * 32, b"b" * 32):
                roster = Roster(event.roster).digest
                hostile.tell(Z, hostile.sign(Z, roster, Stage(2, 0, Phase.CHECK), LARGE, previous), [0])

    hostile = HostileSwarm(monkeypatch, tmp_path, {"genesis_size": 4}, conducts={Z: Conduct()}, watch=watch)
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert {i: event.cause for i, event in outcome.departures(DepartureKind.BAN).items()} == {Z: Cause.EQUIVOCATION}
    assert all(audit_ledger(tmp_path / f"peer-{peer.index}").ok for peer in outcome.honest)


async def test_an_answer_about_a_stage_fits_whatever_is_held(tmp_path: Path) -> None:
    """A stage with many large messages is served in pages, each of which fits, and nothing is left out."""
    me, others = Identity.generate(), [Identity.generate() for _ in range(12)]
    config = RunConfig(founder=me.peer_id.hex(), genesis_size=13, elements=64, chunk_size=4)
    hub = Hub(MemoryNetwork().transport(me, Terms(config.run_id)), me.peer_id)
    stage = Stage(2, 0, Phase.CHECK)
    with Ledger.create(tmp_path, config, me.peer_id) as ledger:
        broadcast = Broadcast(config, me, hub, ledger, Conduct())
        for number, identity in enumerate(others):
            payload = LARGE if number else Check((), b"n" * 32)
            broadcast.board.post(sign_message(identity, config.run_id, b"o" * 32, stage, b"", payload))
        pages, after = [], b""
        while not pages or not pages[-1].is_last:
            request = encode(StageRequest(Position(*map(int, stage)), after))
            body, _ = await broadcast._serve_stage(others[0].peer_id, request)
            assert len(body) <= MAX_CONTROL
            pages.append(decode(body, StageAnswer, limit=MAX_CONTROL))
            after = open_message(config.run_id, pages[-1].envelopes[-1]).sender
    served = [open_message(config.run_id, envelope).sender for page in pages for envelope in page.envelopes]
    assert served == sorted(identity.peer_id for identity in others)
    assert len(pages) == 2


def test_a_certificate_that_may_be_told_is_taken() -> None:
    """Whoever makes views large does not have honest members cut each other's links over the certificate."""
    members = [Identity(bytes([number]) * 32) for number in range(4)]
    config = RunConfig(founder=members[0].peer_id.hex(), genesis_size=4, elements=64, chunk_size=4)
    roster, stage = Roster.of([item.peer_id for item in members]), Stage(0, 0, Phase.VIEW)

    def say(payload: View | Ballot, phase: Phase) -> dict[PeerId, SignedMessage]:
        where = stage._replace(phase=phase)
        said = [sign_message(item, config.run_id, roster.digest, where, b"", payload) for item in members]
        return {message.sender: message for message in sorted(said, key=lambda message: message.sender)}

    position = Position(2, 0, int(Phase.CHECK), 0)
    views = say(
        View(position, False, (), (bytes(compute_largest(Phase.VIEW, 4) - 512),), (), b"", (), False), Phase.VIEW
    )
    votes = say(Ballot((), compute_views_digest(views)), Phase.BALLOT)
    settlement = Settlement(views, (), (), tuple(votes.values()))
    body = encode(settlement.proof)
    assert 4 * LARGEST - 4096 < len(body) <= ALL_VIEWS < MAX_CONTROL
    assert open_settlement(config, roster, 0, body) == settlement
    longer = say(View(position, False, (), (bytes(compute_largest(Phase.VIEW, 4)),), (), b"", (), False), Phase.VIEW)
    assert not any(belongs(view, roster, stage) for view in longer.values())
    unfit = Settlement(longer, (), (), tuple(say(Ballot((), compute_views_digest(longer)), Phase.BALLOT).values()))
    assert open_settlement(config, roster, 0, encode(unfit.proof)) is None


def test_small_items_are_taken_first() -> None:
    """Whatever fits is taken, from the smallest on."""
    assert take_small([b"x" * 90, b"yy", b"z" * 50], 100) == [b"yy", b"z" * 50]
    assert take_small([b"x" * 90], 90) == []

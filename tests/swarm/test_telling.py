"""A proof that comes when our HALT is signed already: it is told otherwise, once, and waiting goes on."""

from types import SimpleNamespace

import trio

from btard.identity import Identity
from btard.rules.messages import Phase, Reveal, Stage, Transcript
from btard.rules.roster import Roster
from btard.swarm.board import Board
from btard.swarm.exchange import Exchange, Stalls
from btard.swarm.place import Expectation, Place
from btard.wire import open_message, sign_message

RUN_ID, STAGE = bytes(32), Stage(1, 0, Phase.REVEAL)
ME, CHEAT = (Identity(bytes([number]) * 32) for number in (1, 2))
ROSTER = Roster.of([ME.peer_id, CHEAT.peer_id])


def sign(nonce):
    """Return a message of the cheat as any receiver reads it."""
    return open_message(RUN_ID, sign_message(CHEAT, RUN_ID, ROSTER.digest, STAGE, b"", Reveal(nonce, ())).envelope)


async def test_a_proof_that_starts_no_recovery_is_told_once(autojump_clock, nursery):
    """Who cannot put the proof into its HALT any more sends on the two messages, and waits without spinning."""
    board, halts, relayed, transcript = Board(), [], [], Transcript(STAGE, ())
    for nonce in (b"\1" * 32, b"\2" * 32):
        board.post(sign(nonce))

    async def pull(*arguments):
        await trio.lowlevel.checkpoint()

    place = Place(roster=ROSTER)

    def halt(expectation, missing, evidence):
        halts.append((missing, [item.culprit for item in evidence]))
        assert len(halts) < 10, "it spins"

    broadcast = SimpleNamespace(
        board=board,
        place=place,
        me=ME.peer_id,
        others=(),
        relay=relayed.append,
        find_missing=lambda expectation: (CHEAT.peer_id,),
        complete=lambda expectation: transcript if trio.current_time() > 5 else None,
        find_strayed=lambda expectation: (),
        find_ahead=lambda expectation: (),
        find_past=lambda expectation: (),
        pull=pull,
    )
    exchange = Exchange(broadcast, SimpleNamespace(is_pending=False, halt=halt), Stalls(1.0), 1.0, nursery.start_soon)
    expectation = Expectation(STAGE, ROSTER, ROSTER.digest, b"", lambda message: True)
    assert await exchange._collect(None, expectation, 3.0) is transcript
    assert halts == [((), [CHEAT.peer_id]), ((CHEAT.peer_id,), [])]
    assert [message.payload.nonce[0] for message in relayed] == [1, 2]

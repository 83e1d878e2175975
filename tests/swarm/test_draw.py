"""From which nonces a round's draws come, as the ledgers of a swarm show it afterwards."""

from pathlib import Path

import trio

from btard.rules.draws import combine_nonces, draw_round_validators
from btard.rules.messages import Phase, Stage, Transcript
from btard.rules.roster import Roster
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.ledger import Ledger
from btard.wire import open_message

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 3, "genesis_size": 4}


async def test_a_key_in_two_runs_reveals_different_nonces(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What a peer revealed in one run says nothing about its nonces in another, though round and key are the same."""
    stage, nonces = Stage(1, 0, Phase.REVEAL), set()
    for rounds in (1, 2):
        swarm = SimulatedSwarm({**SETTINGS, "rounds": rounds}, LinearTask, tmp_path / str(rounds))
        await swarm.run()
        me = swarm.identities[1].peer_id
        with Ledger.create(tmp_path / str(rounds) / "peer-1", swarm.config, me) as ledger:
            stored = ledger.stored_message(stage)
        assert stored is not None
        nonces.add(open_message(swarm.config.run_id, stored).payload.nonce)  # type: ignore[union-attr]
    assert len(nonces) == 2


async def test_validators_come_from_nonces_promised_after_the_reports(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A1: q is made of CONFIRM's nonces alone, so nobody knows the targets when it reports in CHECK."""
    swarm = SimulatedSwarm(SETTINGS, LinearTask, tmp_path)
    outcome = await swarm.run()
    stage = Stage(2, 0, Phase.CONFIRM)
    messages = []
    for peer in sorted(outcome.peers, key=lambda item: item.peer):
        with Ledger.create(tmp_path / f"peer-{peer.index}", swarm.config, peer.peer) as ledger:
            stored = ledger.stored_message(stage)
            seal = list(ledger.seals())[2]
        assert stored is not None
        messages.append(open_message(swarm.config.run_id, stored))
    q = combine_nonces(Transcript(stage, tuple(messages)))
    assert seal.q == q
    members = Roster(tuple(message.sender for message in messages))
    validators = {pair.validator for pair in outcome.peers[0].rounds[0].assignments}
    contributors = [peer for peer in members.members if peer not in validators]
    assert outcome.peers[0].rounds[1].assignments == draw_round_validators(swarm.config, q, members, contributors)

"""What somebody says ahead of time about an attempt counts for nothing once it begins without that member."""

from pathlib import Path

import pytest
from tests.swarm.restarts import lag

from btard.attacks.attacker import Attacker
from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, Publish, Reveal, SignedMessage, Stage
from btard.sim import LinearTask, SimulatedSwarm
from btard.sim.determinism import run_deterministically
from btard.swarm.frames import Kind
from btard.wire import sign_message

SETTINGS = {"tau": 2.0, "delta": 20.0, "rounds": 5, "delay_s": 1.0}


class EarlyPublisher(Attacker):
    """Says PUBLISH of an attempt to come; equivocates to be banned before it begins, or not."""

    def __init__(self, early: Stage, *, equivocates: bool) -> None:
        super().__init__(2)
        self._early, self._equivocates = early, equivocates

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        stage = message.slot.stage
        if (stage.round, stage.phase, stage.attempt) == (self._early.round, Phase.COMMIT, 0):
            said = sign_message(identity, run_id, bytes(32), self._early, b"", Publish(bytes(32)))
            self.hub.send(recipient, Kind.MESSAGE, said.envelope)
        if self._equivocates and (stage.round, stage.phase, stage.attempt) == (2, Phase.REVEAL, 0):
            payload = Reveal(b"x" * 32, ())
            other = sign_message(identity, run_id, message.roster, stage, message.previous, payload)
            self.hub.send(recipient, Kind.MESSAGE, other.envelope)
        return message.envelope


@pytest.mark.parametrize("size", [5, 7, 9])
def test_of_the_banned(tmp_path: Path, size: int) -> None:
    """Of f cheats one leaves, and f-1 tolerated are left: their words and its own would be more than those."""
    early = Stage(2, 1, Phase.PUBLISH)
    cheats = {index: EarlyPublisher(early, equivocates=index == 1) for index in range(1, size - 1, 2)}
    settings = {**SETTINGS, "genesis_size": size}
    outcome = run_deterministically(
        SimulatedSwarm(settings, LinearTask, tmp_path, conducts=cheats, delivery=lag).run, 1
    )
    assert 1 in outcome.departures(DepartureKind.BAN)
    assert not outcome.departures(DepartureKind.REMOVAL).keys() - cheats.keys()
    assert all(peer.error is None for peer in outcome.honest)


def test_of_whoever_said_goodbye(tmp_path: Path) -> None:
    """Two are left, none of whom may be a cheat: a word of somebody else's would be one too many."""

    def slow_bulk(_sender: bytes, _receiver: bytes, message: Message) -> float:
        return 0.1 if message.payload is None else 0.95

    cheat = EarlyPublisher(Stage(3, 1, Phase.PUBLISH), equivocates=False)
    settings = {**SETTINGS, "genesis_size": 3}
    swarm = SimulatedSwarm(settings, LinearTask, tmp_path, conducts={1: cheat}, delivery=slow_bulk, leave_after={1: 1})
    outcome = run_deterministically(swarm.run, 1)
    assert all(peer.error is None and peer.rounds[-1].round == 5 for peer in outcome.honest)

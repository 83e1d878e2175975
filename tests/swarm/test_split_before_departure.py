"""A split CONFIRM, and a departure in the next round before anybody can prove it: all go back together."""

from pathlib import Path

import pytest
import trio
from tests.swarm.joining_scenes import build, find, play, require_sound

from btard.attacks.equivocation import alter
from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Phase, SignedMessage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed
from btard.swarm.frames import Kind
from btard.wire import sign_message

ROUND = 8
SPLITS, LEAVES, VICTIM = 1, 2, 5


class SplitsConfirm(Conduct):
    """Tells one member a CONFIRM of its own, with a nonce that it never promised, ``late_s`` after the others."""

    victim = PeerId(bytes(32))

    def __init__(self, late_s: float) -> None:
        self._late_s = late_s
        self._said: bytes | None = None
        self._is_said = trio.Event()

    async def accompany(self, hub: Hub) -> None:
        """Say it when it is time."""
        await self._is_said.wait()
        await trio.sleep(self._late_s)
        assert self._said is not None
        hub.send(self.victim, Kind.MESSAGE, self._said)

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Tell the victim nothing for now."""
        stage = message.slot.stage
        if (stage.phase, stage.round, recipient) != (Phase.CONFIRM, ROUND, self.victim):
            return message.envelope
        other = sign_message(identity, run_id, message.roster, stage, message.previous, alter(message.payload))
        self._said = self._said or other.envelope
        self._is_said.set()
        return None


class SaysTwoCommits(Conduct):
    """Says two COMMITs of the round after to everybody, the second right behind the first."""

    hub: Hub

    async def accompany(self, hub: Hub) -> None:
        """Know the hub."""
        self.hub = hub
        await trio.lowlevel.checkpoint()

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Say both."""
        stage = message.slot.stage
        if stage.phase is Phase.COMMIT and stage.round == ROUND + 1:
            other = sign_message(identity, run_id, message.roster, stage, message.previous, alter(message.payload))
            self.hub.send(recipient, Kind.MESSAGE, other.envelope)
        return message.envelope


@pytest.mark.parametrize("late_s", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0])
def test_nobody_honest_is_left_behind(late_s: float, tmp_path: Path) -> None:
    """The victim waits for AGREE of a round that the others have left; whoever goes takes all back to it."""
    splits = SplitsConfirm(late_s)
    swarm = build(tmp_path, {}, {SPLITS: splits, LEAVES: SaysTwoCommits()}, rounds=14)
    splits.victim = swarm.identities[VICTIM].peer_id
    outcome = play(swarm)
    assert LEAVES in outcome.departures(DepartureKind.BAN)
    assert outcome.departures(DepartureKind.BAN).keys() <= {SPLITS, LEAVES}
    assert outcome.departures(DepartureKind.REMOVAL).keys() <= {SPLITS, LEAVES}
    assert all(peer.error is None for peer in outcome.honest)
    gone = {event.peer for event in find(outcome, 0, Departed) if event.kind is DepartureKind.BAN}
    assert set(outcome.peers[0].rounds[-1].result.seal.banned) == gone
    require_sound(swarm, outcome)

"""A member that lacks a message asks those who are past its stage, whatever it has asked them in vain before."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Phase, SignedMessage, Stage
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Recovered, RunStarted
from btard.swarm.frames import Kind
from btard.wire import open_message, sign_message

ACCUSED, SECRETIVE, BEHIND, TWO_TONGUED = range(4)
"""The first and the third are honest."""
ROUND, ATTEMPT = 2, 1
UNDERWAY_S, HELD_BACK_S = 0.1, 1.5
"""How long messages are under way, and the one that is kept from somebody: all were asked for it before; Δ is 1."""


class ToOneAlone(Conduct):
    """Is not the same to one member as to all others."""

    victim = PeerId(bytes(32))

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return what the victim or anybody else is told."""
        if message.slot.stage.round != ROUND:
            return message.envelope
        return self.tell(message, identity, run_id, is_victim=recipient == self.victim)

    def tell(self, message: SignedMessage, identity: Identity, run_id: bytes, *, is_victim: bool) -> bytes | None:
        """Return what is told in the round that matters."""
        raise NotImplementedError


class SplitsConfirm(ToOneAlone):
    """Tells one member another CONFIRM: all say the next COMMIT before they notice, and the round is opened again."""

    def tell(self, message: SignedMessage, identity: Identity, run_id: bytes, *, is_victim: bool) -> bytes | None:
        is_other = is_victim and message.slot.stage.phase is Phase.CONFIRM
        return say_again(message, identity, run_id) if is_other else message.envelope


class LeavesOneInCheck(ToOneAlone):
    """Keeps its CHECK from one member, and shows the others a second one when they have said CONFIRM."""

    check: SignedMessage | None = None

    def tell(self, message: SignedMessage, identity: Identity, run_id: bytes, *, is_victim: bool) -> bytes | None:
        phase = message.slot.stage.phase
        self.check = message if phase is Phase.CHECK else self.check
        if is_victim and phase >= Phase.CHECK:
            return None
        return say_again(self.check, identity, run_id) if phase is Phase.CONFIRM and self.check else message.envelope


class Secretive(ToOneAlone):
    """Complains that a slice is missing, in an AGGREGATE that it keeps from one member, so that the others publish."""

    accused = PeerId(bytes(32))

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        is_due = isinstance(payload, Aggregate) and stage[:2] == (ROUND, ATTEMPT)
        return replace(payload, root=b"", norm=0.0, missing=(self.accused,)) if is_due else payload

    def tell(self, message: SignedMessage, identity: Identity, run_id: bytes, *, is_victim: bool) -> bytes | None:
        return None if is_victim and is_complaint(message) else message.envelope


def is_complaint(message: SignedMessage) -> bool:
    """Return whether this is what one member keeps from another."""
    return message.slot.stage == Stage(ROUND, ATTEMPT, Phase.AGGREGATE)


def say_again(message: SignedMessage, identity: Identity, run_id: bytes) -> bytes:
    """Return another message for the same slot."""
    said = replace(message.payload, nonce=b"n" * 32)
    return sign_message(identity, run_id, message.roster, message.slot.stage, message.previous, said).envelope


@pytest.mark.parametrize("before", [LeavesOneInCheck, SplitsConfirm])
async def test_who_was_asked_too_early_is_asked_again(
    before: type[ToOneAlone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Words of the attempt before make it ask all others as an attempt begins; it asks again once they are past it."""
    two_tongued, secretive = before(), Secretive()

    def watch(index: int, event: Event) -> None:
        if index == SECRETIVE and isinstance(event, RunStarted):  # nobody can pull what it keeps
            del hostile.hubs[hostile.peers[SECRETIVE]].serve[Kind.PULL_STAGE]

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float:
        is_secret = (
            sender == hostile.peers[SECRETIVE]
            and message.kind == Kind.MESSAGE
            and message.payload is None
            and is_complaint(open_message(hostile.config.run_id, bytes(message.head)))
        )
        return HELD_BACK_S if is_secret else UNDERWAY_S

    conducts = {TWO_TONGUED: two_tongued, SECRETIVE: secretive}
    config = {"genesis_size": 5, "validators": 0}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts=conducts, watch=watch)
    two_tongued.victim = secretive.victim = hostile.peers[BEHIND]
    secretive.accused = hostile.peers[ACCUSED]
    hostile.swarm.network.delivery = deliver
    outcome = await hostile.run()
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert set(outcome.departures(DepartureKind.BAN)) == {TWO_TONGUED}
    assert not outcome.departures(DepartureKind.REMOVAL)
    banned = [(hostile.peers[TWO_TONGUED],)]
    for peer in outcome.honest:
        assert [event.banned for event in peer.events if isinstance(event, Recovered)] == banned
        assert [done.attempts for done in peer.rounds][-2:] == [3, 1]

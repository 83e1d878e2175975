"""The closing COMMIT: some have finished for good when a departure there takes the others back to the last round."""

from pathlib import Path

import msgspec
import pytest
import trio
from tests.swarm.joining_scenes import build, play, require_sound

from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Agree, AnyPayload, Halt, Holding, Phase, SignedMessage, Stage, View
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.viewing import make_position
from btard.wire import encode, open_message, prove_equivocation, sign_message

ROUNDS, SIZE = 2, 5
CHEAT, FIRST = 1, 0


class TakesBack(Conduct):
    """One cheat: says its last AGREE to one member alone; when that has gone, it shows a proof against itself."""

    first = PeerId(bytes(32))

    def __init__(self) -> None:
        self._context: tuple[SignedMessage, Identity, bytes] | None = None
        self._is_said = trio.Event()
        self.run_id = b""

    def minds_own_words(self) -> bool:
        """Sign anything."""
        return False

    async def accompany(self, hub: Hub) -> None:
        """Hear no AGREE, and halt long after we said ours."""
        receive = hub.on_control[Kind.MESSAGE]

        def hear(peer: PeerId, envelope: bytes) -> None:
            if open_message(self.run_id, envelope).slot.stage.phase is not Phase.AGREE:
                receive(peer, envelope)

        hub.on_control[Kind.MESSAGE] = hear
        await self._is_said.wait()
        assert self._context is not None
        agree, identity, run_id = self._context
        stage = agree.slot.stage
        await trio.sleep(5.0)  # virtual seconds: the others wait for us still
        other = sign_message(identity, run_id, agree.roster, stage, agree.previous, Agree(bytes(32)))
        proof = encode(prove_equivocation(agree, other))
        said = Halt(make_position(stage._replace(phase=Phase.COMMIT)), (identity.peer_id,), (proof,))
        halt = sign_message(identity, run_id, agree.roster, Stage(0, stage.attempt, Phase.HALT, 0), b"", said).envelope
        for peer in hub.connected:
            hub.send(peer, Kind.MESSAGE, halt)
        receive(identity.peer_id, halt)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Show views as if we had never seen the CONFIRM of the round before."""
        if isinstance(payload, View):
            lie = tuple(Holding(item.position, tuple(b"" for _ in item.digests)) for item in payload.holdings)
            return msgspec.structs.replace(payload, holdings=lie)
        return payload

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Say the last AGREE to one member alone."""
        stage = message.slot.stage
        if stage.phase is not Phase.AGREE or stage.round != ROUNDS + 1:
            return message.envelope
        self._context = message, identity, run_id
        self._is_said.set()
        return message.envelope if recipient == self.first else None


def test_whoever_has_finished_ends_with_the_same_state(tmp_path: Path) -> None:
    """Nobody finishes before it is settled for all that the run is over."""
    cheat = TakesBack()
    swarm = build(tmp_path, {}, {CHEAT: cheat}, rounds=ROUNDS, genesis_size=SIZE)
    cheat.first, cheat.run_id = swarm.identities[FIRST].peer_id, swarm.config.run_id
    outcome = play(swarm)
    assert [peer.error for peer in outcome.honest] == [None] * (SIZE - 1)
    assert all(outcome.departures(kind).keys() <= {CHEAT} for kind in DepartureKind)
    require_sound(swarm, outcome)


class FallsSilent(Conduct):
    """One cheat: says nothing after the closing COMMIT, and shows no view."""

    def says(self, stage: Stage) -> bool:
        """Neither the last AGREE nor a word in a recovery."""
        return stage.round != 0 and stage.phase is not Phase.AGREE


@pytest.mark.parametrize("min_roster", [2, SIZE])
def test_silence_at_the_end_keeps_nobody(min_roster: int, tmp_path: Path) -> None:
    """Who says no last AGREE is removed; where no fewer may go on than there are, the others end without."""
    swarm = build(tmp_path, {}, {CHEAT: FallsSilent()}, rounds=ROUNDS, genesis_size=SIZE, min_roster=min_roster)
    outcome = play(swarm)
    assert [peer.error for peer in outcome.honest] == [None] * (SIZE - 1)
    assert outcome.departures(DepartureKind.REMOVAL).keys() == ({CHEAT} if min_roster < SIZE else set())
    require_sound(swarm, outcome)
    assert outcome.virtual_s < 600.0

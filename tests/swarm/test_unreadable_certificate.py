"""A voter that was started again does not hold the views any more for which it voted: it is told them."""

from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity, PeerId
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Halt, Phase, Position, SignedMessage, Stage, View
from btard.rules.roster import Roster
from btard.sim.power import PowerLoss
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, RoundDone
from btard.swarm.frames import Kind
from btard.wire import sign_message

A, Z, P, W = range(4)
FIRST = (0, 0)


class Liar(Conduct):
    """Halts by hand, may keep its first ballot, and has a second view up its sleeve."""

    def __init__(self, *, keeps_ballot: bool) -> None:
        self.keeps_ballot, self.second, self.kept = keeps_ballot, b"", list[tuple[PeerId, bytes]]()

    def minds_own_words(self) -> bool:
        """Sign what it likes."""
        return False

    def says(self, stage: Stage) -> bool:
        """Say nothing when others halt."""
        return stage.phase is not Phase.HALT

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Keep the ballot."""
        stage = message.slot.stage
        if (stage.attempt, stage.serial) != FIRST or stage.round:
            return message.envelope
        if isinstance(message.payload, View) and not self.second:
            other = replace(message.payload, overdue=not message.payload.overdue)
            self.second = sign_message(identity, run_id, message.roster, stage, message.previous, other).envelope
        if stage.phase is Phase.BALLOT and self.keeps_ballot:
            self.kept.append((recipient, message.envelope))
            return None
        return message.envelope


async def test_an_equivocated_view_keeps_no_certificate_from_whoever_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """It hears the other of Z's two views first: ballots alone would tell it nothing, and it would be too late."""
    cheats = {Z: Liar(keeps_ballot=True), W: Liar(keeps_ballot=False)}
    killed = list[float]()
    say = Broadcast.say

    def watch(index: int, event: Event) -> None:
        if index in cheats and isinstance(event, RoundDone) and event.round == 1:
            hub = hostile.hubs[hostile.peers[index]]
            send = hub.send
            hub.send = lambda peer, kind, head: (  # type: ignore[method-assign]
                None if kind in {Kind.CERTIFICATE, Kind.CHAIN} else send(peer, kind, head)
            )
            del hub.serve[Kind.PULL_STAGE], hub.serve[Kind.PULL_SETTLED]

    def say_and_die(broadcast: Broadcast, stage: Stage, *args: Any) -> SignedMessage:
        message = say(broadcast, stage, *args)
        if broadcast.me == hostile.peers[A] and (stage.round, stage.phase) == (2, Phase.CHECK):
            halt = Halt(Position(2, 0, int(Phase.CHECK), 0), (hostile.peers[A],), ())
            hostile.tell(W, hostile.sign(W, Roster.of(hostile.peers).digest, Stage(0, 0, Phase.HALT, 0), halt))
        if broadcast.me == hostile.peers[P] and stage.phase is Phase.BALLOT and not killed:
            killed.append(trio.current_time())
            hostile.swarm.crash(P, 0.2)
            trio.lowlevel.spawn_system_task(lie)
            raise PowerLoss
        return message

    async def lie() -> None:
        await trio.sleep(0.1)
        hub, victim = hostile.hubs[hostile.peers[Z]], hostile.peers[P]
        await hub.wait_connected((victim,))
        hub.send(victim, Kind.MESSAGE, cheats[Z].second)
        await trio.sleep(1)  # until its questions are answered
        cheats[Z].keeps_ballot = False
        for peer, envelope in cheats[Z].kept:
            if peer != victim:
                hub.send(peer, Kind.MESSAGE, envelope)

    monkeypatch.setattr(Broadcast, "say", say_and_die)
    config = {"genesis_size": 5, "validators": 0, "rounds": 4}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts=cheats, watch=watch)
    hostile.swarm.network.delivery = lambda *_: 0.01
    outcome = await hostile.run()
    assert killed
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert len(outcome.state_roots) == 1
    assert set(outcome.departures(DepartureKind.BAN)) == {Z}

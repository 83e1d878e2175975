"""Two cheats of five are at odds with all honest members, each with some: no HALT is used up over a marked partner."""

from collections import defaultdict
from pathlib import Path

import pytest
import trio
from tests.swarm.hostile_swarm import HostileSwarm

from btard.identity import Identity, PeerId
from btard.net import Hub, Message
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Halt, Phase, Position, SignedMessage, Stage
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Halted, Recovered, RoundDone, RunStarted
from btard.swarm.frames import Kind

A, X, B, Y, D = range(5)
Place = tuple[int, Phase]
NEVER = 99, Phase.COMMIT


class KeepUntilHalted(Conduct):
    """Keeps its words of some places until somebody has halted over them; says nothing from a place on."""

    def __init__(self, kept: set[Place], silent_from: Place = NEVER) -> None:
        self._kept, self._silent_from = kept, silent_from
        self._held = defaultdict[Place, list[tuple[PeerId, bytes]]](list)
        self._hub: Hub | None = None

    def minds_own_words(self) -> bool:
        """Sign what it likes."""
        return False

    async def accompany(self, hub: Hub) -> None:
        """Keep the hub."""
        self._hub = hub
        await trio.lowlevel.checkpoint()

    def says(self, stage: Stage) -> bool:
        """Halt by hand alone."""
        return stage.phase is not Phase.HALT and (stage.round, stage.phase) < self._silent_from

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Keep what is to be kept."""
        place = message.slot.stage.round, message.slot.stage.phase
        if place not in self._kept:
            return message.envelope
        self._held[place].append((recipient, message.envelope))
        return None

    def release(self, place: Place) -> None:
        """Say at last what was kept."""
        self._kept.discard(place)
        assert self._hub is not None
        for peer, envelope in self._held.pop(place, []):
            self._hub.send(peer, Kind.MESSAGE, envelope)


async def test_partners_of_cheats_do_not_halt_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """X has A and D halt over it, which counts for nothing, before Y falls silent: all three must halt over Y then."""
    steps = [(A, X, (3, Phase.REVEAL)), (D, X, (3, Phase.CONFIRM)), (B, Y, (4, Phase.REVEAL))]
    kept = {index: {place for _, cheat, place in steps if cheat == index} for index in (X, Y)}
    cheats = {X: KeepUntilHalted(kept[X]), Y: KeepUntilHalted(kept[Y], (4, Phase.CONFIRM))}
    to_mark = [(X, 0, (A,)), (X, 1, (A, D)), (Y, 2, (B,))]
    until = 0.0

    def halt() -> None:
        who, serial, named = to_mark.pop(0)
        content = Halt(Position(2, 0, int(Phase.COMMIT), 0), tuple(sorted(hostile.peers[one] for one in named)), ())
        stage = Stage(0, 0, Phase.HALT, serial)
        hostile.tell(who, hostile.sign(who, Roster.of(hostile.peers).digest, stage, content))

    def watch(index: int, event: Event) -> None:
        nonlocal until
        if isinstance(event, RunStarted) and index in cheats:
            del hostile.hubs[hostile.peers[index]].serve[Kind.PULL_STAGE]
        is_next = isinstance(event, Recovered) or (isinstance(event, RoundDone) and event.round == 1)
        if index == A and to_mark and is_next:
            halt()
        if steps and isinstance(event, Halted) and index == steps[0][0]:
            _, cheat, place = steps.pop(0)
            until = trio.current_time() + 0.3
            cheats[cheat].release(place)

    def delay(sender: PeerId, receiver: PeerId, _message: Message) -> float:
        one, other = hostile.peers.index(sender), hostile.peers.index(receiver)
        is_ahead = not steps or other == steps[0][0] or other in cheats or trio.current_time() < until
        return 0.0 if is_ahead else 0.9 if one in cheats else 0.4

    config = {"genesis_size": 5, "validators": 0, "rounds": 6}
    hostile = HostileSwarm(monkeypatch, tmp_path, config, conducts=cheats, watch=watch)
    hostile.swarm.network.delivery = delay
    with trio.fail_after(1000):
        outcome = await hostile.run()
    assert to_mark == []
    assert [peer.error for peer in outcome.honest] == [None] * 3
    assert set(outcome.departures(DepartureKind.REMOVAL)) == {X, Y}
    assert len(outcome.state_roots) == 1

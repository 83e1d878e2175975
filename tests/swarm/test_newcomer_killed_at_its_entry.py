"""A newcomer that is killed as members first tell it where it begins: what they say while it is away is asked for."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.joining_scenes import COMES_S, build, find, play, require_sound

from btard.identity import PeerId
from btard.net import Hub, Message
from btard.rules.messages import AnyPayload, Commit, Stage
from btard.rules.roster import Roster
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Promoted
from btard.swarm.frames import Kind

RESTART_S = 0.2
ROUNDS = 30


class Scene:
    """Members with as many cheats as they bear; the newcomer is killed so often, each time as it is told its entry."""

    def __init__(self, directory: Path, members: int, kills: int) -> None:
        self.honest, self.newcomer, self._kills = members // 2 + 1, members, kills
        conducts = {index: Useless(self) for index in range(self.honest, members)}
        settings = {"genesis_size": members, "rounds": ROUNDS}
        self.swarm: SimulatedSwarm = build(directory, {members: COMES_S}, conducts, **settings)
        self._observe, self.swarm.network.on_arrival = self.swarm.network.on_arrival, self._watch

    @property
    def is_entry(self) -> bool:
        """Whether a seal has named the newcomer a member."""
        return any(event.result.newcomers for peer in self.swarm.outcomes for event in peer.rounds[-2:])

    def _watch(self, sender: PeerId, receiver: PeerId, message: Message, now: float) -> None:
        """Kill it with the first handover of its entry that reaches it in each of its lives."""
        self._observe(sender, receiver, message, now)
        outcome = self.swarm.outcomes[self.newcomer]
        is_handover = receiver == outcome.peer and message.kind == Kind.HANDOVER
        if is_handover and self.is_entry and outcome.restarts == outcome.crashes < self._kills:
            self.swarm.crash(self.newcomer, RESTART_S)


class Useless(Conduct):
    """Of no use to a newcomer: signs no seal from its entry on, and answers with bytes when asked for the place."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Sign rubbish."""
        is_seal = isinstance(payload, Commit) and self._scene.is_entry
        return replace(payload, seal=bytes(64)) if is_seal else payload

    async def accompany(self, hub: Hub) -> None:
        """Take the place of the honest answer once that is there."""

        async def answer(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            await trio.lowlevel.checkpoint()
            return b"\xc1", None

        await trio.sleep(COMES_S / 2)
        hub.serve[Kind.PLACE] = answer


@pytest.mark.parametrize("members", [3, 6])
@pytest.mark.parametrize("kills", [1, 2, 3])
def test_newcomer_killed_at_its_entry_is_a_member_all_the_same(members: int, kills: int, tmp_path: Path) -> None:
    """Of three members and one cheat no seal has a majority without it: the run would stop."""
    scene = Scene(tmp_path, members, kills)
    outcome = play(scene.swarm)
    newcomer = outcome.peers[scene.newcomer]
    assert newcomer.restarts == kills
    assert [peer.error for peer in outcome.peers] == [None] * (members + 1)
    assert not find(outcome, 0, Departed)
    assert len(find(outcome, scene.newcomer, Promoted)) == 1
    assert newcomer.rounds[-1].round == ROUNDS
    require_sound(scene.swarm, outcome)

"""A newcomer is needed by all, and needs all honest members: one that has no link to it at its entry tells it later."""

from pathlib import Path

import pytest
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, build, find, play, require_sound

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.messages import Phase, Stage
from btard.sim import SimulatedSwarm
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, Promoted
from btard.swarm.frames import Kind

CHEATS = (1, 3)
"""As many as six members bear: whoever comes in needs the word of each of the other four."""
RESTART_S = 0.2


class TellsNobodyWhere(Conduct):
    """Does its work, and tells no newcomer where it begins."""

    def __init__(self, scene: "Scene") -> None:
        self._is_entry = scene.is_entry

    async def accompany(self, hub: Hub) -> None:
        """Leave out what it would hand over."""
        send = hub.send

        def send_others(peer: PeerId, kind: int, head: bytes) -> None:
            if kind not in {Kind.HANDOVER, Kind.PLACE} or not self._is_entry(peer):
                send(peer, kind, head)

        hub.send = send_others  # type: ignore[method-assign]


class Unlinked(Conduct):
    """Honest; its link to the newcomer breaks as that becomes a member, and it may be started again right after."""

    def __init__(self, index: int, scene: "Scene", *, restarts: bool) -> None:
        self._index, self._scene, self._restarts = index, scene, restarts

    async def accompany(self, hub: Hub) -> None:
        """Know our links."""
        self._hub = hub

    def says(self, stage: Stage) -> bool:
        """Lose the link before the first attempt with the newcomer; die in it."""
        scene = self._scene
        if stage.round == scene.entry and scene.is_entry(scene.stranger):
            if stage.phase is Phase.AGREE:
                self._hub.close(scene.stranger, "the line broke")
            elif stage.phase is Phase.AGGREGATE and self._restarts and not scene.swarm.outcomes[self._index].crashes:
                scene.swarm.crash(self._index, RESTART_S)
        return True


class Scene:
    """Six members, two of them silent about where a newcomer begins; of the others some have no link to it then."""

    def __init__(self, directory: Path, unlinked: tuple[int, ...], *, restarts: bool) -> None:
        conducts: dict[int, Conduct] = {index: TellsNobodyWhere(self) for index in CHEATS}
        conducts |= {index: Unlinked(index, self, restarts=restarts) for index in unlinked}
        self.swarm: SimulatedSwarm = build(directory, {STRANGER: COMES_S}, conducts, rounds=20)
        self.stranger = self.swarm.outcomes[STRANGER].peer

    @property
    def entry(self) -> int:
        """The round that the newcomer is a member from; 0 as long as it is none."""
        done = (event.result for peer in self.swarm.outcomes for event in peer.rounds[-2:])
        return next((state.round for state in done if state.newcomers), 0)

    def is_entry(self, peer: PeerId) -> bool:
        """Return whether the newcomer comes in at this time."""
        return peer == self.stranger and bool(self.entry)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("unlinked", [(2,), (0, 2, 4, 5)])
def test_newcomer_enters_though_members_had_no_link_to_it(
    unlinked: tuple[int, ...], tmp_path: Path, *, restarts: bool
) -> None:
    """Whoever comes to hold a link to it says again where it begins, after a restart too."""
    scene = Scene(tmp_path, unlinked, restarts=restarts)
    outcome = play(scene.swarm)
    assert [outcome.peers[index].restarts for index in unlinked] == [int(restarts)] * len(unlinked)
    assert [peer.error for peer in outcome.peers] == [None] * (MEMBERS + 1)
    assert len(find(outcome, STRANGER, Promoted)) == 1
    assert not any(find(outcome, index, Departed) for index in range(MEMBERS))
    require_sound(scene.swarm, outcome)

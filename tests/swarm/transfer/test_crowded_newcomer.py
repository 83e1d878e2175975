"""Strangers that dial a newcomer, more than it asks at a time, do not keep it from the members."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import SealedRun

from btard.errors import Refused, Unreachable
from btard.identity import Identity, PeerId
from btard.net import Hub, RequestHandler, Terms
from btard.swarm.compute import InlineCompute
from btard.swarm.frames import Kind
from btard.swarm.joining.lineage import LineAnswer
from btard.swarm.joining.stranger import Stranger
from btard.wire import encode

Clock = trio.testing.MockClock
HOSTILE = 60
"""Of the 64 strangers that a hub has room for."""


def make_stranger(scene: Scene) -> Stranger:
    """A newcomer that has links already."""
    unused: Any = None
    given = (scene.run.config, scene.hub, scene.run.task, scene.directory, InlineCompute())
    return Stranger(*given, trio.lowlevel.checkpoint, unused, unused)


async def mislead(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
    """Tell a line without seals."""
    await trio.lowlevel.checkpoint()
    return encode(LineAnswer((), 999, is_known=True)), None


@asynccontextmanager
async def crowd(scene: Scene) -> AsyncIterator[None]:
    """Let liars dial the newcomer whose keys follow each other, after those of all members."""
    last = max(each.peer_id for each in scene.run.identities)
    drawn = (Identity(number.to_bytes(32, "big")) for number in range(1, 100_000))
    async with trio.open_nursery() as nursery:
        for key in islice((key for key in drawn if key.peer_id > last), HOSTILE):
            hub = Hub(scene.network.transport(key, Terms(scene.run.config.run_id)), key.peer_id)
            hub.serve[Kind.LINEAGE] = mislead
            await nursery.start(hub.run)
            await hub.connect(scene.hub.me, scene.hub._transport.address)  # type: ignore[attr-defined]
        yield
        nursery.cancel_scope.cancel()


async def test_stranger_that_knows_the_roster_asks_its_members(tmp_path: Path, autojump_clock: Clock) -> None:
    """However many others are there, and whoever's turn it is."""
    async with open_scene(SealedRun(rounds=12), tmp_path) as scene:
        stranger = make_stranger(scene)
        await stranger.find_seal()
        async with crowd(scene):
            for _ in range(12):
                assert (await stranger.find_seal()).round == 12
                assert stranger._line is not None
                assert stranger._line.source in scene.sources


async def test_stranger_that_knows_nobody_asks_until_a_line_holds(tmp_path: Path, autojump_clock: Clock) -> None:
    """Refusals of those asked first are none of the run; those of all are."""
    async with open_scene(SealedRun(rounds=12), tmp_path) as scene, crowd(scene):
        assert await make_stranger(scene).has_begun()
        for turn in range(5):
            stranger = make_stranger(scene)
            stranger._asked = 16 * turn
            assert (await stranger.find_seal()).round == 12
        for hub in scene.members:
            hub.serve[Kind.LINEAGE] = mislead
        with pytest.raises(Refused, match="no member tells a valid line"):
            await make_stranger(scene).find_seal()


@pytest.mark.parametrize("silent", [0, 3, 5])
async def test_few_are_asked_whether_the_run_has_begun(silent: int, tmp_path: Path, autojump_clock: Clock) -> None:
    """Four at first; who keeps silent hides nothing, for the others are asked soon."""
    async with open_scene(SealedRun(rounds=12), tmp_path) as scene:
        asked = []
        order = make_stranger(scene)._order()
        for hub in scene.members:
            tell = hub.serve[Kind.LINEAGE]

            async def serve(
                peer: PeerId, body: bytes, hub: Hub = hub, tell: RequestHandler = tell
            ) -> tuple[bytes, None]:
                asked.append(hub.me)
                if hub.me in order[:silent]:
                    await trio.sleep_forever()
                return await tell(peer, body)  # type: ignore[return-value]

            hub.serve[Kind.LINEAGE] = serve
        started = trio.current_time()
        assert await make_stranger(scene).has_begun()
        assert set(asked) == set(order[: 4 if silent < 4 else 7])
        assert trio.current_time() - started <= (2 if silent < 4 else 4) * scene.run.config.delay_s


async def test_strangers_refuse_nothing_while_no_member_is_there(tmp_path: Path, autojump_clock: Clock) -> None:
    """Links to members that end for a while end no join; a minute later that is an error, and no refusal."""
    async with open_scene(SealedRun(rounds=12), tmp_path) as scene, trio.open_nursery() as nursery:
        stranger = make_stranger(scene)
        await stranger.find_seal()
        async with crowd(scene):

            async def cut_links() -> None:
                for hub in scene.members:
                    scene.hub.close(hub.me, "a test cuts it")
                    await scene.hub.wait_lost(hub.me)

            async def come_back() -> None:
                await trio.sleep(20)  # virtual seconds: within the minute
                for hub in scene.members:
                    await scene.hub.connect(hub.me, hub._transport.address)  # type: ignore[attr-defined]

            await cut_links()
            nursery.start_soon(come_back)
            assert (await stranger.find_seal()).round == 12
            await cut_links()
            with pytest.raises(Unreachable, match="there is no link to any member"):
                await stranger.find_seal()

"""Strangers that dial a newcomer, more than it asks at a time, do not keep it from the members."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import SealedRun
from tests.swarm.transfer.test_lineage import STRANGERS, fork_at, tell

from btard.errors import Refused, Unreachable
from btard.identity import Identity, PeerId
from btard.net import Hub, RequestHandler, Terms
from btard.swarm.compute import InlineCompute
from btard.swarm.frames import Kind
from btard.swarm.joining.lineage import FROM_GENESIS, LineAnswer, LineQuestion
from btard.swarm.joining.stranger import PAUSE_S, Stranger
from btard.wire import decode, encode

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


def note_questions(hub: Hub) -> list[LineQuestion]:
    """Return what a member is asked from now on; it answers as before."""
    asked, answer = list[LineQuestion](), hub.serve[Kind.LINEAGE]

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        asked.append(decode(body, LineQuestion))
        return await answer(peer, body)  # type: ignore[return-value]

    hub.serve[Kind.LINEAGE] = serve
    return asked


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


@pytest.mark.parametrize(("silent", "asks", "seconds"), [(0, 1, 0), (1, 3, 1), (3, 7, 2), (6, 7, 2)])
async def test_few_are_asked_whether_the_run_has_begun(
    silent: int, asks: int, seconds: int, tmp_path: Path, autojump_clock: Clock
) -> None:
    """One at first; who keeps silent hides nothing, for others are asked soon, ever more of them."""
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
        assert set(asked) == set(order[:asks])
        assert trio.current_time() - started == pytest.approx(seconds * PAUSE_S)


async def test_a_late_answer_is_not_kept_waiting_by_silence(tmp_path: Path, autojump_clock: Clock) -> None:
    """When all have been asked, one that tells a line ends the look, whoever keeps silent."""
    async with open_scene(SealedRun(rounds=12), tmp_path) as scene:
        order = make_stranger(scene)._order()
        for hub in scene.members:
            tell_line = hub.serve[Kind.LINEAGE]

            async def serve(
                peer: PeerId, body: bytes, hub: Hub = hub, answer: RequestHandler = tell_line
            ) -> tuple[bytes, None]:
                await trio.sleep(4.0 if hub.me == order[0] else math.inf)  # virtual seconds
                return await answer(peer, body)  # type: ignore[return-value]

            hub.serve[Kind.LINEAGE] = serve
        started = trio.current_time()
        assert await make_stranger(scene).has_begun()
        assert trio.current_time() - started == pytest.approx(4.0)


async def test_who_founded_the_run_and_left_it_asks_all(tmp_path: Path, autojump_clock: Clock) -> None:
    """One that tells of the genesis alone, whose roster we are in, does not make us begin there again."""
    run = SealedRun(rounds=12, rosters={3: range(2, 9)})
    async with open_scene(run, tmp_path) as scene:
        stranger = make_stranger(scene)
        stranger._me = run.identities[0].peer_id
        first = next(hub for hub in scene.members if hub.me == stranger._order()[0])
        tell(first, [run.tuple_of(run.seals[0])], 0)
        assert await stranger.has_begun()


async def test_what_was_told_first_need_not_be_told_again(tmp_path: Path, autojump_clock: Clock) -> None:
    """Members who know the newest seal of that line tell how it goes on; who does not, tells the whole."""
    run = SealedRun(rounds=12)
    async with open_scene(run, tmp_path, up_to=lambda index: 11 if index == 6 else 12) as scene:
        stranger = make_stranger(scene)
        assert await stranger.has_begun()
        asked = [note_questions(hub) for hub in scene.members]
        assert (await stranger.find_seal()).round == 12
    short = [LineQuestion(12, (run.digest_of(12),))]
    assert asked == [short] * 6 + [[*short, LineQuestion(FROM_GENESIS, ())]]


async def test_whoever_tells_first_does_not_decide(tmp_path: Path, autojump_clock: Clock) -> None:
    """Old keys that forge a line, and are asked before all others, do not keep a stranger from theirs."""
    run = SealedRun(rounds=12, rosters={3: range(2, 9), 6: range(4, 11)})
    forged = [run.tuple_of(run.seals[0]), run.tuple_of(fork_at(run, 10), [*run.identities[:4], *STRANGERS])]
    async with open_scene(run, tmp_path) as scene:
        stranger = make_stranger(scene)
        first = stranger._order()[:4]
        for hub in scene.members:
            if hub.me in first:
                tell(hub, forged)
        assert await stranger.has_begun()
        assert stranger._first is not None
        assert stranger._first.head.seal.round == 10
        with pytest.raises(Refused, match="there are two runs with this ticket"):
            await stranger.find_seal()


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

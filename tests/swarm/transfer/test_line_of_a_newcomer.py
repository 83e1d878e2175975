"""The line that a newcomer writes down leads to the seals of its own ledger, whoever left while it was on probation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.swarm.transfer import lies
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import SealedRun

from btard.identity import PeerId
from btard.swarm.compute import InlineCompute
from btard.swarm.frames import Kind, SignedTuple
from btard.swarm.joining.lineage import LineAnswer
from btard.swarm.joining.stranger import Stranger
from btard.swarm.joining.telling_lineage import LineTeller
from btard.swarm.ledger import Ledger
from btard.wire import decode_seal, encode

Clock = trio.testing.MockClock
FETCHED, ENTRY, NEWEST = 10, 40, 60
"""When the newcomer fetched the state, the round that ended before its first, and when another one comes."""
NUMBER = 4


def make_run() -> SealedRun:
    """0 to 3 found it, 0 and 1 leave while 4 is on probation."""
    return SealedRun(members=4, rounds=NEWEST, rosters={20: [1, 2, 3], 30: [2, 3], ENTRY: [2, 3, NUMBER]})


def sign_entry(run: SealedRun) -> SignedTuple:
    """The seal by which the newcomer enters, signed by those who were members before it."""
    return run.tuple_of(run.seals[ENTRY], run.identities[2:4])


async def apply_early(scene: Scene) -> Stranger:
    """A stranger that knows the line up to when it fetched the state; the members are one round before its entry."""
    run = scene.run
    nothing: Any = None
    stranger = Stranger(run.config, scene.hub, run.task, scene.directory, InlineCompute(), nothing, nothing, nothing)
    assert (await stranger.find_seal()).round == FETCHED
    for ledger in scene.ledgers[2:]:
        record(run, ledger, FETCHED + 1, ENTRY - 1)
    return stranger


def record(run: SealedRun, ledger: Ledger, first: int, last: int) -> None:
    """Write down signed seals."""
    for seal in run.seals[first : last + 1]:
        ledger.record_seal(seal)
        ledger.record_signatures(seal.round, run.sign(seal))


async def tell_nothing_new(peer: PeerId, body: bytes) -> tuple[bytes, None]:
    """Lie that the line goes no further, faster than others tell how."""
    await trio.lowlevel.checkpoint()
    return encode(LineAnswer((), FETCHED, is_known=True)), None


def find_rounds(line: Sequence[SignedTuple]) -> list[int]:
    """The rounds of the seals of a line."""
    return [decode_seal(item.seal).round for item in line]


@pytest.mark.parametrize("liar", [2, 3])
async def test_whoever_comes_later_is_told_of_the_run_by_it(liar: int, tmp_path: Path, autojump_clock: Clock) -> None:
    """Too few of those who vouched for the line it knew are there when it enters; one of the others lies."""
    run = make_run()
    async with open_scene(run, tmp_path, members=4, up_to=lambda _: FETCHED) as scene:
        stranger = await apply_early(scene)
        scene.members[liar].serve[Kind.LINEAGE] = tell_nothing_new
        line = await stranger.find_line(sign_entry(run))
        assert find_rounds(line) == [0, FETCHED, 29, ENTRY - 1]
        with run.open_ledger(tmp_path / "newcomer", NUMBER) as ledger:
            ledger.record_line(line)
            ledger.record_seal(run.seals[ENTRY])
            ledger.record_signatures(ENTRY, sign_entry(run).signatures)
            record(run, ledger, ENTRY + 1, NEWEST)
            LineTeller(scene.members[0], ledger)
            assert (await scene.ask_line(sources=scene.sources[:1])).head.seal == run.seals[NEWEST]


async def test_an_entry_does_not_wait_for_members_that_keep_silent(tmp_path: Path, autojump_clock: Clock) -> None:
    """They have 2Δ; then the newcomer keeps the line that it has."""
    run = make_run()
    async with open_scene(run, tmp_path, members=4, up_to=lambda _: FETCHED) as scene:
        stranger = await apply_early(scene)
        for hub in scene.members:
            lies.be_silent(Kind.LINEAGE)(scene, hub)
        begun = trio.current_time()
        assert find_rounds(await stranger.find_line(sign_entry(run))) == [0, FETCHED]
        assert trio.current_time() - begun == pytest.approx(2 * run.config.delay_s)


async def test_nobody_can_tell_more(tmp_path: Path, autojump_clock: Clock) -> None:
    """That all lie, or that there is no link to anybody, ends no entry."""
    run = make_run()
    async with open_scene(run, tmp_path, members=4, up_to=lambda _: FETCHED) as scene:
        stranger = await apply_early(scene)
        for hub in scene.members:
            hub.serve[Kind.LINEAGE] = tell_nothing_new
        assert find_rounds(await stranger.find_line(sign_entry(run))) == [0, FETCHED]
        for peer in scene.sources:
            scene.hub.close(peer, "for the test")
        await trio.testing.wait_all_tasks_blocked()
        assert find_rounds(await stranger.find_line(sign_entry(run))) == [0, FETCHED]


async def test_a_line_that_leads_to_the_entry_costs_no_question(tmp_path: Path, autojump_clock: Clock) -> None:
    """As long as more than half of the roster that it ends with are there: nobody would answer."""
    run = SealedRun(members=4, rounds=ENTRY)
    async with open_scene(run, tmp_path, members=4, up_to=lambda _: FETCHED) as scene:
        stranger = await apply_early(scene)
        for hub in scene.members:
            lies.be_silent(Kind.LINEAGE)(scene, hub)
        begun = trio.current_time()
        line = await stranger.find_line(run.tuple_of(run.seals[ENTRY]))
        assert find_rounds(line) == [0, FETCHED]
        assert trio.current_time() == begun

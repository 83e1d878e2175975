"""Whoever asks again and again: strangers for the line or the state, candidates; and what a stranger keeps of it."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trio
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import SealedRun

from btard.identity import Identity, PeerId
from btard.net import Hub, MemoryNetwork, Terms
from btard.rules.messages import Phase, Stage
from btard.rules.roster import Roster
from btard.swarm.broadcast import Broadcast
from btard.swarm.compute import InlineCompute
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind, StageRequest, UpdateRequest
from btard.swarm.joining.lineage import FROM_GENESIS, LineAnswer, LineQuestion
from btard.swarm.joining.reception import Reception
from btard.swarm.joining.stranger import Stranger
from btard.swarm.joining.transfer_frames import OutlineQuestion, RangeQuestion, RoundsQuestion
from btard.swarm.joining.turnstile import BLOCK, PEER, TOTAL
from btard.swarm.ledger import Ledger
from btard.swarm.standing import Question, Standing
from btard.swarm.state import as_bytes
from btard.swarm.viewing import make_position
from btard.wire import decode, decode_seal, encode

Clock = trio.testing.MockClock
LINE = Kind.LINEAGE, encode(LineQuestion(FROM_GENESIS, ()))
NOTHING = encode(RangeQuestion(10**6, bytes(32), 0, 1))
STATE = [
    (Kind.OFFER, b""),
    (Kind.SEGMENT, encode(RoundsQuestion(0, 255))),
    (Kind.OUTLINE, encode(OutlineQuestion(10**6))),
    (Kind.CLAIMS, encode(RoundsQuestion(10**6, 10**6 + 255))),
    (Kind.LEAVES, NOTHING),
    (Kind.CHUNKS, NOTHING),
]
PER_S, BURST = BLOCK
MORE = 16
FLOODER, OTHER, CANDIDATE, ME = (Identity(bytes([number]) * 32) for number in (201, 202, 203, 204))


async def ask(scene: Scene, peer: PeerId, times: int, questions: Sequence[tuple[Kind, bytes]] = (LINE,)) -> float:
    """Ask the first member in a peer's name, for its line or in turns; return the seconds that it took."""
    begun = trio.current_time()
    for kind, body in islice(cycle(questions), times):
        await scene.members[0].serve[kind](peer, body)
    return trio.current_time() - begun


async def test_questions_of_a_block_have_their_pace(tmp_path: Path, autojump_clock: Clock) -> None:
    """Beyond the burst each waits for its turn, from whatever key; another block's are answered at once."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        scene.members[0].find_host = lambda peer: "127.9.9.5" if peer == FLOODER.peer_id else "127.1.1.5"  # type: ignore[method-assign]
        assert await ask(scene, FLOODER.peer_id, BURST) == 0
        assert await ask(scene, FLOODER.peer_id, MORE) == pytest.approx(MORE / PER_S)
        assert await ask(scene, OTHER.peer_id, MORE) == 0


async def test_members_and_candidates_do_not_wait(tmp_path: Path, autojump_clock: Clock) -> None:
    """Whom the hub favours is answered, however many strangers come from its block."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        scene.members[0].favour(CANDIDATE.peer_id.__eq__)
        assert await ask(scene, FLOODER.peer_id, BURST + 1) > 0
        assert await ask(scene, CANDIDATE.peer_id, BURST) == 0


async def test_all_strangers_together_have_a_pace(tmp_path: Path, autojump_clock: Clock) -> None:
    """From a block of their own each, they are answered no faster than that."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        blocks = iter(f"127.1.{number}.5" for number in range(256))
        more = iter(f"127.2.{number}.5" for number in range(256))
        scene.members[0].find_host = lambda peer: next(blocks, None) or next(more)  # type: ignore[method-assign]
        assert await ask(scene, FLOODER.peer_id, TOTAL[1]) == 0
        assert await ask(scene, FLOODER.peer_id, MORE) == pytest.approx(MORE / TOTAL[0])


async def test_those_who_wait_together_are_answered_one_by_one(tmp_path: Path, autojump_clock: Clock) -> None:
    """Waiting at the same time gains nothing."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        await ask(scene, FLOODER.peer_id, BURST)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(MORE):
                nursery.start_soon(ask, scene, FLOODER.peer_id, 1)
        assert trio.current_time() - begun == pytest.approx(MORE / PER_S)


async def test_questions_for_the_state_have_their_pace_together(tmp_path: Path, autojump_clock: Clock) -> None:
    """Whatever it asks, a stranger waits beyond the burst; the line has a pace of its own, and so has a candidate."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        scene.members[0].favour(CANDIDATE.peer_id.__eq__)
        assert await ask(scene, FLOODER.peer_id, BURST, STATE) == 0
        for question in STATE:
            assert await ask(scene, FLOODER.peer_id, MORE, [question]) == pytest.approx(MORE / PER_S)
        assert await ask(scene, FLOODER.peer_id, BURST) == 0
        assert await ask(scene, CANDIDATE.peer_id, BURST, STATE) == 0


async def test_questions_of_those_who_are_out_have_their_pace(tmp_path: Path, autojump_clock: Clock) -> None:
    """A stranger may ask how it stands, and for what was said in a stage, no faster than for the line."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        hub, roster = scene.members[0], Roster((scene.members[0].me, CANDIDATE.peer_id))
        broadcast = Broadcast(scene.run.config, ME, hub, scene.ledgers[0], Conduct())
        broadcast.place.roster = roster
        Standing(scene.run.config, hub, scene.ledgers[0], broadcast)
        stage = StageRequest(make_position(Stage(1, 0, Phase.COMMIT)), b"")
        for question in ((Kind.STANDING, encode(Question(0))), (Kind.PULL_STAGE, encode(stage))):
            assert await ask(scene, FLOODER.peer_id, BURST, [question]) == 0
            assert await ask(scene, FLOODER.peer_id, MORE, [question]) == pytest.approx(MORE / PER_S)
            assert await ask(scene, CANDIDATE.peer_id, BURST + MORE, [question]) == 0


async def test_each_candidate_has_its_own_pace(tmp_path: Path, autojump_clock: Clock) -> None:
    """One that asks without end waits, another one does not."""
    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        for each in (CANDIDATE, OTHER):
            scene.members[0].favour(each.peer_id.__eq__)
        assert await ask(scene, CANDIDATE.peer_id, PEER[1], STATE) == 0
        assert await ask(scene, CANDIDATE.peer_id, MORE, STATE) == pytest.approx(MORE / PEER[0])
        assert await ask(scene, OTHER.peer_id, BURST, STATE) == 0


@pytest.mark.parametrize("is_candidate", [False, True])
async def test_a_crowd_is_not_answered_at_one_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock, *, is_candidate: bool
) -> None:
    """Questions that come at the same moment are answered in a turn of the event loop each: a round gets its own."""
    turn, answered = 0, Counter[int]()
    find = Ledger.encoded_seals_from

    def find_and_note(ledger: Ledger, first: int, count: int) -> list[tuple[int, bytes]]:
        answered[turn] += 1
        return find(ledger, first, count)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await trio.lowlevel.checkpoint()

    async with open_scene(SealedRun(), tmp_path, members=1) as scene, trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(Ledger, "encoded_seals_from", find_and_note)
        scene.members[0].favour(lambda _: is_candidate)
        nursery.start_soon(count_turns)
        async with trio.open_nursery() as crowd:
            for _ in range(BURST):
                crowd.start_soon(ask, scene, FLOODER.peer_id, 1, STATE[1:2])
        nursery.cancel_scope.cancel()
    assert answered.total() == BURST
    assert max(answered.values()) <= 2  # tasks of one turn run in any order, so two may fall between two counts


async def test_questions_for_nothing_cost_no_look_at_each_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock
) -> None:
    """Rounds that are not held are not looked for one by one, and seals are handed out as they are stored."""
    looks = Counter[str]()

    def note(name: str) -> None:
        whole = getattr(Ledger, name)
        monkeypatch.setattr(Ledger, name, lambda *arguments: looks.update([name]) or whole(*arguments))

    async with open_scene(SealedRun(), tmp_path, members=1) as scene:
        await trio.testing.wait_all_tasks_blocked()
        for name in ("find_update", "seals_from"):
            note(name)
        await ask(scene, FLOODER.peer_id, 4, STATE)
    assert looks == {}


class Held:
    """A disk that has the aggregate of every round."""

    def is_applied(self, number: int) -> bool:
        """As all are."""
        return True

    def map(self, number: int) -> memoryview:
        """Its bytes."""
        return as_bytes(torch.full((4,), float(number)))


async def test_a_candidate_gets_no_more_aggregates_in_a_round_than_there_are(autojump_clock: Clock) -> None:
    """Beyond that it is told nothing until the next round; another candidate is answered."""
    config = SealedRun().config
    hub = Hub(MemoryNetwork().transport(ME, Terms(config.run_id)), ME.peer_id)
    given: Any = SimpleNamespace()
    reception = Reception(config, ME.peer_id, hub, given, given, InlineCompute(), given, Held(), given)  # type: ignore[arg-type]
    guests = [SimpleNamespace(peer=each.peer_id, since=0) for each in (CANDIDATE, OTHER)]

    def begin(number: int) -> None:
        seal = SimpleNamespace(candidates=guests, roster=(), banned=(), round=number - 1, admitted=0)
        roster = SimpleNamespace(members=())
        place = {"round": number, "attempt": 0, "parameters": None, "q": b"", "checks": (), "newcomers": frozenset()}
        reception.begin_round(SimpleNamespace(seal=seal, roster=roster, **place))  # type: ignore[arg-type]

    async def count(peer: PeerId, times: int) -> int:
        answers = [await hub.serve[Kind.UPDATE](peer, encode(UpdateRequest(7))) for _ in range(times)]
        return sum(payload is not None for _, payload in answers)

    most = 3 * config.state_interval + 1
    for number in (9, 10):
        begin(number)
        assert await count(CANDIDATE.peer_id, 2 * most) == most
    assert await count(OTHER.peer_id, 1) == 1
    assert await count(FLOODER.peer_id, 1) == 0


@pytest.mark.parametrize(("pinned", "kept"), [(None, [0, 30]), (1, [0, 1, 30])])
async def test_a_waiting_stranger_keeps_a_short_line(
    pinned: int | None, kept: list[int], tmp_path: Path, autojump_clock: Clock
) -> None:
    """However often it asks how the line goes on, it keeps what leads to the newest seal, and the pinned one."""
    run = SealedRun(rounds=31)
    newest = 1

    async def tell(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.lowlevel.checkpoint()
        question = decode(body, LineQuestion)
        first = run.seals[:1] if question.after == FROM_GENESIS else []
        seals = [*first, *run.seals[max(question.after + 1, newest) : newest + 1]]
        return encode(LineAnswer(tuple(map(run.tuple_of, seals)), newest, is_known=True)), None

    async with open_scene(run, tmp_path, members=4) as scene:
        for member in scene.members:
            member.serve[Kind.LINEAGE] = tell
        nothing: Any = None
        pin = run.digest_of(pinned) if pinned is not None else b""
        stranger = Stranger(run.config, scene.hub, run.task, tmp_path, InlineCompute(), nothing, nothing, nothing, pin)
        while newest < 30:
            assert (await stranger.find_seal()).round == newest
            newest += 1
        await stranger.find_seal()
        line = await stranger.find_line(run.tuple_of(run.seals[31]))
    assert [decode_seal(item.seal).round for item in line] == kept


async def test_a_line_keeps_the_seals_that_it_needs(tmp_path: Path, autojump_clock: Clock) -> None:
    """A seal between rosters that have too few members in common stays."""
    rosters = {5 * step: range(step, step + 7) for step in range(1, 7)}
    run = SealedRun(rounds=33, rosters=rosters)
    async with open_scene(run, tmp_path, members=3) as scene:
        line = await scene.ask_line()
    assert [item.seal.round for item in line.seals] == [0, 19, 33]
    assert [line.skip(run.config, place) for place in range(3)] == [line] * 3

"""The line of seals: as short as may be, and nothing forged, stale or endless is taken for it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from tests.swarm.transfer import lies
from tests.swarm.transfer.scenes import Scene, open_scene
from tests.swarm.transfer.sealed_run import SealedRun

from btard.errors import Refused, Unreachable
from btard.identity import Identity, PeerId
from btard.net import Hub
from btard.rules.seal import Seal
from btard.sim import LinearTask, SimulatedSwarm
from btard.swarm.compute import InlineCompute
from btard.swarm.frames import Kind, SignedTuple
from btard.swarm.joining.asking_lineage import LINE_SECONDS, LineAsker
from btard.swarm.joining.lineage import Line, LineAnswer, LineQuestion, open_genesis, open_next
from btard.swarm.joining.telling_lineage import LineTeller
from btard.swarm.ledger import Ledger
from btard.wire import compute_seal_digest, decode, encode

Clock = trio.testing.MockClock
STRANGERS = [Identity(bytes([100 + index]) * 32) for index in range(4)]


def tell(hub: Hub, items: Sequence[SignedTuple], newest: int = 10) -> list[LineQuestion]:
    """Let a member answer every question for the line with these seals; return what it was asked."""
    asked: list[LineQuestion] = []

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.lowlevel.checkpoint()
        asked.append(decode(body, LineQuestion))
        return encode(LineAnswer(tuple(items), newest, is_known=True)), None

    hub.serve[Kind.LINEAGE] = serve
    return asked


async def refuse(scene: Scene, items: Sequence[SignedTuple], pin: bytes = b"") -> str:
    """Why a newcomer refuses these seals when the only member tells them."""
    tell(scene.members[0], items)
    with pytest.raises(Refused, match="no member tells a valid line") as caught:
        await scene.ask_line(pin)
    return str(caught.value)


async def test_a_run_without_changes_needs_two_seals(tmp_path: Path, autojump_clock: Clock) -> None:
    """Seal 0 and the newest: the genesis roster itself vouches for it."""
    run = SealedRun(rounds=30)
    async with open_scene(run, tmp_path) as scene:
        line = await scene.ask_line()
    assert [item.seal for item in line.seals] == [run.seals[0], run.seals[30]]


@pytest.mark.parametrize("page", [1, 512 * 1024])
async def test_a_run_whose_members_change_needs_some_more(
    page: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock
) -> None:
    """Each step goes as far as more than half of a roster is still there; pages may end anywhere."""
    monkeypatch.setattr("btard.swarm.joining.telling_lineage.MAX_PAGE", page)
    rosters = {5 * step: range(step, step + 7) for step in range(1, 7)}
    run = SealedRun(rounds=33, rosters=rosters)
    async with open_scene(run, tmp_path, members=3) as scene:
        line = await scene.ask_line()
    assert [item.seal.round for item in line.seals] == [0, 19, 33]


async def test_a_pinned_seal_is_in_the_line(tmp_path: Path, autojump_clock: Clock) -> None:
    """The seal that a ticket names is shown, with signatures, on the way to the newest."""
    run = SealedRun(rounds=30)
    async with open_scene(run, tmp_path) as scene:
        line = await scene.ask_line(run.digest_of(17))
        assert [item.seal.round for item in line.seals] == [0, 17, 30]
        with pytest.raises(Refused, match="does not know the seal 7878"):
            await scene.ask_line(b"x" * 32)


async def test_a_pin_that_is_told_and_not_shown(tmp_path: Path, autojump_clock: Clock) -> None:
    """Whoever says that it knows the pinned seal has to show it."""
    run = SealedRun()
    async with open_scene(run, tmp_path, members=1) as scene:
        items = [run.tuple_of(run.seals[0]), run.tuple_of(run.seals[10])]
        assert "does not contain the seal" in await refuse(scene, items, run.digest_of(7))


async def test_the_same_question_is_answered_anew_once_more_is_signed(tmp_path: Path, autojump_clock: Clock) -> None:
    """A member keeps what it said for those who ask the same, as long as it is the newest that it knows."""
    run = SealedRun()
    async with open_scene(run, tmp_path, members=1, up_to=lambda _index: 6) as scene:
        assert [(await scene.ask_line()).head.seal.round for _ in range(2)] == [6, 6]
        ledger, seal = scene.ledgers[0], run.seals[7]
        ledger.record_seal(seal)
        assert (await scene.ask_line()).head.seal.round == 6
        ledger.record_signatures(seal.round, run.sign(seal))
        assert [(await scene.ask_line()).head.seal.round for _ in range(2)] == [7, 7]
        with pytest.raises(Refused):
            await scene.ask_line(pin=run.digest_of(8))


def forge(run: SealedRun, roster: Sequence[Identity], signers: Sequence[Identity], **changes: object) -> SignedTuple:
    """Another seal of round 10."""
    return run.tuple_of(run.fork(10, roster, **changes), signers)


async def test_forged_lines_are_refused_and_the_reason_is_told(tmp_path: Path, autojump_clock: Clock) -> None:
    """Signatures of a minority, of others, for another seal; other founders; steps that nobody vouches for."""
    run = SealedRun(rounds=10)
    genesis, keys = run.tuple_of(run.seals[0]), run.identities
    other = msgspec.structs.replace(run.seals[0], roster=tuple(sorted(each.peer_id for each in STRANGERS + keys[:3])))
    minority = forge(run, keys, keys[:3], state=b"x" * 32)
    twice = SignedTuple(minority.seal, minority.signatures * 2)
    true = run.tuple_of(run.seals[10])
    cases = {
        "seal 10 has valid signatures of 3 of the 7 members of seal 0, and 4 are needed": [genesis, minority],
        "of 3 of the 7 members": [genesis, twice],
        "of 0 of the 7 members of seal 0": [genesis, forge(run, STRANGERS, STRANGERS)],
        "of 0 of the 7": [genesis, SignedTuple(minority.seal, true.signatures)],
        "seal 0 is not signed by the founder": [run.tuple_of(run.seals[0], STRANGERS), true],
        "does not fit the run's configuration": [run.tuple_of(msgspec.structs.replace(other, round=1), keys[:1])],
        "seal 10 does not come after seal 10": [genesis, true, true],
        "seal 5 does not come after seal 10": [genesis, true, run.tuple_of(run.seals[5])],
        "not a valid message": [SignedTuple(b"\xc1", ())],
    }
    async with open_scene(run, tmp_path, members=1) as scene:
        for reason, items in cases.items():
            assert reason in await refuse(scene, items)


async def test_a_step_without_overlap_is_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    """A true seal, signed by all its members, does not follow a roster of whom too few are left."""
    run = SealedRun(rounds=10, rosters={5: range(6, 13)})
    async with open_scene(run, tmp_path, members=1) as scene:
        reason = await refuse(scene, [run.tuple_of(run.seals[0]), run.tuple_of(run.seals[10])])
    assert "of 1 of the 7 members of seal 0" in reason


async def test_a_line_without_end_is_refused(tmp_path: Path, autojump_clock: Clock) -> None:
    """Empty pages, the same page again, and more seals than a line may have."""
    run = SealedRun(rounds=10)
    async with open_scene(run, tmp_path, members=1) as scene:
        assert "has no end" in await refuse(scene, [])
        asked = tell(scene.members[0], [run.tuple_of(seal) for seal in run.seals[:5]], newest=500)
        with pytest.raises(Refused, match="does not come after seal 4"):
            await scene.ask_line()
        assert len(asked) == 2


async def test_a_longer_line_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: Clock
) -> None:
    """Even true seals are refused beyond the bound."""
    monkeypatch.setattr("btard.swarm.joining.asking_lineage.MAX_STEPS", 8)
    run = SealedRun(rounds=10)
    async with open_scene(run, tmp_path, members=1) as scene:
        assert "has no end" in await refuse(scene, [run.tuple_of(seal) for seal in run.seals])


async def test_three_forgers_and_a_silent_one_among_seven(tmp_path: Path, autojump_clock: Clock) -> None:
    """The others' line is taken, and each refusal is told."""
    run = SealedRun(rounds=10)
    async with open_scene(run, tmp_path) as scene:
        for hub in scene.members[:3]:
            tell(hub, [run.tuple_of(run.seals[0]), forge(run, STRANGERS, STRANGERS)])
        lies.be_silent(Kind.LINEAGE)(scene, scene.members[3])
        lines = await LineAsker(run.config, scene.hub, InlineCompute()).find_line(scene.sources)
    assert lines.line.head.seal == run.seals[10]
    assert set(lines.refusals) == set(scene.sources[:3])


async def test_one_that_dawdles_and_then_lies_is_waited_for_once(tmp_path: Path, autojump_clock: Clock) -> None:
    """With a line to go on from it has no more time than without: it is asked for the whole within the same."""
    run = SealedRun(rounds=40)
    async with open_scene(run, tmp_path, members=1) as scene:
        steps = [run.tuple_of(run.seals[number]) for number in (0, 5)]
        genesis = open_genesis(run.config, steps[0])
        hint = Line(scene.sources[0], (genesis, open_next(run.config, genesis, steps[1])))
        since = trio.current_time()

        async def dawdle(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            await trio.sleep(11.0)  # virtual seconds
            following = run.seals[decode(body, LineQuestion).after + 1]
            is_true = (trio.current_time() - since) % LINE_SECONDS < LINE_SECONDS - 12
            return encode(LineAnswer((run.tuple_of(following),) if is_true else (), 1000, is_known=True)), None

        scene.members[0].serve[Kind.LINEAGE] = dawdle
        with pytest.raises(Unreachable):
            await LineAsker(run.config, scene.hub, InlineCompute()).find_line(scene.sources, hint=hint)
        assert trio.current_time() - since == LINE_SECONDS


async def test_members_of_which_some_are_behind(tmp_path: Path, autojump_clock: Clock) -> None:
    """The newest line counts; an older one of the same history is no contradiction."""
    rosters = {5 * step: range(step, step + 7) for step in range(1, 7)}
    run = SealedRun(rounds=33, rosters=rosters)
    async with open_scene(run, tmp_path, up_to=lambda index: [3, 7, 19, 28, 31, 32, 33][index]) as scene:
        line = await scene.ask_line()
    assert line.head.seal.round == 33


def fork_at(run: SealedRun, number: int) -> Seal:
    """What more than half of the genesis roster, bought later, can make: a seal with a roster of their own."""
    return run.fork(number, [*run.identities[:4], *STRANGERS], state=b"x" * 32, previous=bytes(32), full_state=b"")


@pytest.mark.parametrize("number", [9, 10, 15])
async def test_two_valid_lines_are_shown_and_none_is_taken(number: int, tmp_path: Path, autojump_clock: Clock) -> None:
    """Keys of members long gone forge a line that holds, older or newer than the true one: the user has to choose."""
    run = SealedRun(rounds=15, rosters={3: range(2, 9), 6: range(4, 11)})
    forged = fork_at(run, number)
    async with open_scene(run, tmp_path, up_to=lambda index: 13) as scene:
        signers = [*run.identities[:4], *STRANGERS]
        tell(scene.members[6], [run.tuple_of(run.seals[0]), run.tuple_of(forged, signers)], number)
        with pytest.raises(Refused, match="there are two runs with this ticket") as caught:
            await scene.ask_line()
        assert compute_seal_digest(forged).hex() in str(caught.value)
        assert run.digest_of(13).hex() in str(caught.value)
        line = await scene.ask_line(run.digest_of(12))
    assert line.head.seal == run.seals[13]


@pytest.mark.parametrize("others_come_to", [15, 16, 17])
async def test_true_seals_with_few_signatures_are_no_second_run(
    others_come_to: int, tmp_path: Path, autojump_clock: Clock
) -> None:
    """A liar that waits, and tells a newer seal without the newer members' signatures, ends no join.

    Seven founded the run and two joined; four signatures of nine lead to seal 16 from seal 0, and not from seal 13.
    """
    run = SealedRun(rounds=17, rosters={5: range(9)})
    pruned = run.tuple_of(run.seals[16], run.identities[:4])
    async with open_scene(run, tmp_path, up_to=lambda index: 13) as scene:

        async def tell_later(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            if decode(body, LineQuestion).through:
                return encode(LineAnswer((), 16, is_known=False)), None
            await trio.sleep(3.0)  # virtual seconds: the others have told their lines by then
            for ledger in scene.ledgers[:6]:
                for seal in run.seals[14 : others_come_to + 1]:
                    ledger.record_seal(seal)
                    ledger.record_signatures(seal.round, run.sign(seal))
            return encode(LineAnswer((run.tuple_of(run.seals[0]), pruned), 16, is_known=True)), None

        scene.members[6].serve[Kind.LINEAGE] = tell_later
        line = await scene.ask_line()
    assert line.head.seal == run.seals[others_come_to]


async def test_liars_that_vouch_for_each_other_hide_no_second_run(tmp_path: Path, autojump_clock: Clock) -> None:
    """Who shows seals before the newest, but none that follows the forged one, has shown no way between both."""
    run = SealedRun(rounds=15, rosters={3: range(2, 9), 6: range(4, 11)})
    forged = run.tuple_of(fork_at(run, 10), [*run.identities[:4], *STRANGERS])
    async with open_scene(run, tmp_path, up_to=lambda index: 14 if index == 5 else 15) as scene:
        tell(scene.members[6], [run.tuple_of(run.seals[0]), forged], 10)
        with pytest.raises(Refused, match="there are two runs with this ticket"):
            await scene.ask_line()


async def test_silence_about_another_line_is_no_second_run(tmp_path: Path, autojump_clock: Clock) -> None:
    """Whoever tells another line and then nothing has shown nothing: members are asked again, and not the user."""
    run = SealedRun(rounds=15, rosters={3: range(2, 9), 6: range(4, 11)})
    forged = run.tuple_of(fork_at(run, 15), [*run.identities[:4], *STRANGERS])
    async with open_scene(run, tmp_path, up_to=lambda index: 13) as scene:

        async def tell_once(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            if decode(body, LineQuestion).through:
                await trio.sleep_forever()
            return encode(LineAnswer((run.tuple_of(run.seals[0]), forged), 15, is_known=True)), None

        scene.members[6].serve[Kind.LINEAGE] = tell_once
        with pytest.raises(Unreachable, match="shows no way between"):
            await scene.ask_line()


async def test_a_liar_among_silent_members_is_no_refusal(tmp_path: Path, autojump_clock: Clock) -> None:
    """Those who keep silent now may tell the run later."""
    run = SealedRun(rounds=10)
    async with open_scene(run, tmp_path, members=2) as scene:
        tell(scene.members[0], [run.tuple_of(run.seals[0]), forge(run, STRANGERS, STRANGERS)])
        lies.be_silent(Kind.LINEAGE)(scene, scene.members[1])
        with pytest.raises(Unreachable, match="nobody tells a valid line of seals"):
            await scene.ask_line()


async def test_nobody_answers(tmp_path: Path, autojump_clock: Clock) -> None:
    """That is no refusal."""
    async with open_scene(SealedRun(), tmp_path, members=2) as scene:
        for hub in scene.members:
            lies.be_silent(Kind.LINEAGE)(scene, hub)
        with pytest.raises(Unreachable, match="nobody tells a valid line of seals"):
            await scene.ask_line()


async def test_ledgers_of_a_real_run_give_its_line(tmp_path: Path, autojump_clock: Clock) -> None:
    """What peers wrote down while they ran is enough: seal 0, and the newest, signed by all of them."""
    settings = {"tau": 2.0, "delta": 20.0, "rounds": 5, "genesis_size": 4, "delay_s": 1.0}
    swarm = SimulatedSwarm(settings, LinearTask, tmp_path / "swarm")
    await swarm.run()
    run = SealedRun()
    run.config = swarm.config
    async with open_scene(run, tmp_path, members=0) as scene, trio.open_nursery() as nursery:
        for index in range(2):
            identity = swarm.identities[index]
            transport = scene.network.transport(identity, scene.hub._transport.terms)  # type: ignore[attr-defined]
            hub = Hub(transport, identity.peer_id)
            await nursery.start(hub.run)
            ledger = Ledger.create(swarm.data_dir(index), swarm.config, identity.peer_id)
            LineTeller(hub, ledger)
            scene.members.append(hub)
            scene.ledgers.append(ledger)
            await scene.hub.connect(hub.me, transport.address)
        line = await scene.ask_line()
        nursery.cancel_scope.cancel()
    for ledger in scene.ledgers:
        ledger.close()
    assert [item.seal.round for item in line.seals] == [0, 5]
    assert len(line.head.signers) == 4

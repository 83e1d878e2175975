"""What others answer a peer that asks where it stands."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from msgspec.structs import replace
from tests.rules.build import make_config, make_roster
from tests.swarm.joining_scenes import build, play, require_sound

from btard.errors import Unreachable
from btard.identity import Identity, PeerId
from btard.net import Hub, Message
from btard.rules.messages import Phase, Reveal, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.place import Place
from btard.swarm.standing import MAX_HELD, Answer, Held, Standing
from btard.swarm.viewing import make_position
from btard.wire import encode, sign_message, take_header

ROUNDS, SIZE, CHEAT, VICTIM = 3, 5, 1, 2
ME = Identity(b"m" * 32)


class HoldsWhatNobodySaid(Conduct):
    """Tells everybody of messages that do not exist, and shows none of them."""

    async def accompany(self, hub: Hub) -> None:
        """Answer all questions about standing, and none about a stage."""

        async def serve(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            invented = [make_position(Stage(1, attempt, Phase.COMMIT)) for attempt in range(MAX_HELD)]
            return encode(Answer(tuple(Held(position, bytes(200)) for position in invented), ())), None

        async def keep_silent(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            await trio.sleep_forever()

        while Kind.STANDING not in hub.serve:
            await trio.sleep(0.0625)
        hub.serve[Kind.STANDING], hub.serve[Kind.PULL_STAGE] = serve, keep_silent
        await trio.sleep_forever()


def test_nobody_is_held_up_by_messages_that_do_not_exist(tmp_path: Path) -> None:
    """Everyone begins, one that is started again as well, before the others stop waiting for it."""
    swarm = build(tmp_path, {}, {CHEAT: HoldsWhatNobodySaid()}, rounds=ROUNDS, genesis_size=SIZE)
    is_struck = list[bool]()

    def watch(index: int, event: object) -> None:
        if index == VICTIM and getattr(event, "round", 0) == 1 and not is_struck:
            is_struck.append(True)
            swarm.crash(VICTIM, 0.1)

    swarm._watch = watch
    outcome = play(swarm)
    assert outcome.peers[VICTIM].crashes == 1
    assert [peer.error for peer in outcome.honest] == [None] * (SIZE - 1)
    require_sound(swarm, outcome)


@pytest.mark.parametrize(("later", "has_left"), [((), False), ((11,), True)])
async def test_whoever_said_goodbye_stays_until_others_have_gone_on(
    later: tuple[int, ...], has_left: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A cheat may hold all signatures over the seal without it before that is settled, and show them."""
    me, *others = make_roster(3).members
    own = Seal(bytes(32), 10, 0, bytes(32), bytes(32), b"", tuple(others), (), bytes(32), bytes(32), 5)
    seals = (own, *(replace(own, round=number) for number in later))
    monkeypatch.setattr("btard.swarm.standing._take_valid", lambda config, base, shown: iter(seals))
    answer = Message(0, encode(Answer((), ())))
    hub = SimpleNamespace(
        serve={}, is_connected=lambda peer: True, wait_connected=_return, request=partial(_answer, answer)
    )
    broadcast = SimpleNamespace(me=me, others=others, hub=hub, meet_own=list, place=Place())
    standing, left = Standing(make_config(), hub, SimpleNamespace(newest_seal=lambda: own), broadcast), list[bool]()  # type: ignore[arg-type]
    standing.on_left = lambda: left.append(True)
    await standing.ask(own)
    assert bool(left) is has_left


class Asking:
    """One of three asks where it stands; Δ is two seconds, and an answer takes as long as two may at most."""

    def __init__(self, linked_s: float, cheat_answers_s: float, answers_s: float, *, is_lost: bool = False) -> None:
        self.cheat, self.honest = make_roster(3).members[:2]
        self.linked_s = {self.cheat: linked_s, self.honest: 0.0}
        self.takes_s = {self.cheat: cheat_answers_s, self.honest: answers_s}
        self.asked, self.begun_s = list[tuple[PeerId, float]](), 0.0
        self.config = make_config(delay_s=2.0)
        self.nonsense = Held(make_position(Stage(1, 9, Phase.COMMIT)), bytes(200))
        word = sign_message(ME, self.config.run_id, b"r" * 32, Stage(1, 0, Phase.REVEAL), b"", Reveal(b"n" * 32, ()))
        self.words = (Held(make_position(word.slot.stage), take_header(word).encoded),) if is_lost else ()
        hub = SimpleNamespace(serve={}, on_control={}, wait_connected=self.connect, request=self.request, favour=print)
        ledger = SimpleNamespace(
            stored_message=lambda stage: None, newest_seal=lambda: None, find_first_attempt=lambda: 0
        )
        identity = SimpleNamespace(peer_id=ME.peer_id)
        self.broadcast = Broadcast(self.config, identity, hub, ledger, Conduct())  # type: ignore[arg-type]
        self.broadcast.place.roster = Roster.of((ME.peer_id, self.cheat, self.honest))
        self.standing = Standing(self.config, hub, ledger, self.broadcast)  # type: ignore[arg-type]

    async def connect(self, peers: tuple[PeerId]) -> None:
        """Be linked at last."""
        await trio.sleep_until(self.linked_s[peers[0]])

    async def request(self, peer: PeerId, *_: object, timeout_s: float) -> Message:
        """Answer in time, or not."""
        if trio.current_time() < self.linked_s[peer]:
            raise Unreachable("there is no link")
        self.asked.append((peer, trio.current_time()))
        with trio.move_on_after(timeout_s):
            await trio.sleep(self.takes_s[peer])
            return Message(0, encode(Answer((self.nonsense,) if peer == self.cheat else self.words, ())))
        raise Unreachable("no answer")

    async def ask(self) -> None:
        """Ask, and note when it may be gone on, and what is known by then."""
        roster = tuple(self.broadcast.place.roster.members)
        base = Seal(bytes(32), 0, 0, bytes(32), bytes(32), b"", roster, (), bytes(32), bytes(32), 5)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.standing.ask, base, 4.0)
            self.begun_s = trio.current_time()
            self.unknown = self.broadcast.find_unknown()


@pytest.mark.parametrize(
    ("linked_s", "answer_s", "waits_s"), [(9.0, 0.0, 4.0), (0.0, 9.0, 4.0), (0.0, 0.3, 0.3), (3.5, 0.8, 4.0)]
)
async def test_cheats_hold_up_nobody_for_longer_than_others_need(
    linked_s: float, answer_s: float, waits_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever has a link is asked at once; those that refuse theirs or keep silent are waited for 2Δ."""
    scene = Asking(linked_s, answer_s, 0.1)
    await scene.ask()
    assert scene.begun_s == pytest.approx(waits_s)
    assert (scene.honest, 0.0) in scene.asked
    assert scene.unknown is None


async def test_cheats_that_answer_at_once_do_not_outrun_an_honest_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Only the honest member holds what our ledger has lost, and question and answer take Δ each; nonsense is none."""
    scene = Asking(0.0, 0.0, 3.9, is_lost=True)
    await scene.ask()
    assert scene.unknown == Stage(1, 0, Phase.REVEAL)


async def _return(_peers: object) -> None:
    """Have all links."""


async def _answer(answer: Message, *_: object, **__: object) -> Message:
    return answer

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
from btard.identity import PeerId
from btard.net import Hub, Message
from btard.rules.messages import Phase, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.standing import MAX_HELD, Answer, Held, Standing
from btard.swarm.viewing import make_position
from btard.wire import encode

ROUNDS, SIZE, CHEAT, VICTIM = 3, 5, 1, 2


class HoldsWhatNobodySaid(Conduct):
    """Tells everybody of messages that do not exist, and shows none of them."""

    async def accompany(self, hub: Hub) -> None:
        """Answer all questions about standing, and none about a stage."""

        async def serve(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            invented = [make_position(Stage(1, attempt, Phase.COMMIT)) for attempt in range(MAX_HELD)]
            return encode(Answer(tuple(Held(position, bytes(200)) for position in invented), ())), None

        async def keep_silent(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            await trio.sleep_forever()

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
    broadcast = SimpleNamespace(me=me, others=others, hub=hub, meet_own=list)
    standing, left = Standing(make_config(), hub, SimpleNamespace(newest_seal=lambda: own), broadcast), list[bool]()  # type: ignore[arg-type]
    standing.on_left = lambda: left.append(True)
    await standing.ask(own, 1.0)
    assert bool(left) is has_left


@pytest.mark.parametrize(("linked_s", "answer_s", "takes_s"), [(9.0, 0.0, 2.0), (0.0, 9.0, 1.0), (1.5, 0.8, 2.3)])
async def test_cheats_hold_up_nobody_for_longer_than_a_link_and_an_answer(
    linked_s: float, answer_s: float, takes_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever has a link is asked at once, whoever refuses one never; nonsense takes no further question."""
    me, cheat, honest = make_roster(3).members
    nonsense = Answer((Held(make_position(Stage(1, 9, Phase.COMMIT)), bytes(200)),), ())
    asked = list[tuple[PeerId, float]]()

    async def connect(peers: tuple[PeerId]) -> None:
        await trio.sleep_until(linked_s if peers == (cheat,) else 0.0)

    async def request(peer: PeerId, *_: object, timeout_s: float) -> Message:
        if peer == cheat and trio.current_time() < linked_s:
            raise Unreachable("there is no link")
        asked.append((peer, trio.current_time()))
        with trio.move_on_after(timeout_s):
            await trio.sleep(answer_s if peer == cheat else 0.1)
            return Message(0, encode(nonsense if peer == cheat else Answer((), ())))
        raise Unreachable("no answer")

    config = make_config()
    hub = SimpleNamespace(serve={}, on_control={}, wait_connected=connect, request=request, favour=print)
    ledger = SimpleNamespace(stored_message=lambda stage: None, newest_seal=lambda: None)
    identity = SimpleNamespace(peer_id=me)
    broadcast = Broadcast(config, identity, hub, ledger, Conduct())  # type: ignore[arg-type]
    broadcast.place.roster = Roster((me, cheat, honest))
    base = Seal(bytes(32), 0, 0, bytes(32), bytes(32), b"", (me, cheat, honest), (), bytes(32), bytes(32), 5)
    await Standing(config, hub, ledger, broadcast).ask(base, 1.0, link_s=2.0)  # type: ignore[arg-type]
    assert trio.current_time() == pytest.approx(takes_s)
    assert (honest, 0.0) in asked
    assert broadcast.find_unknown() is None


async def _return(_peers: object) -> None:
    """Have all links."""


async def _answer(answer: Message, *_: object, **__: object) -> Message:
    return answer

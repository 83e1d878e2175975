"""What others answer a peer that asks where it stands."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from msgspec.structs import replace
from tests.rules.build import make_config, make_roster
from tests.swarm.joining_scenes import build, play, require_sound

from btard.identity import PeerId
from btard.net import Hub, Message
from btard.rules.messages import Phase, Stage
from btard.rules.seal import Seal
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.standing import MAX_HELD, Answer, Standing
from btard.swarm.viewing import make_position
from btard.wire import encode

ROUNDS, SIZE, CHEAT, VICTIM = 3, 5, 1, 2


class HoldsWhatNobodySaid(Conduct):
    """Tells everybody of messages that do not exist, and shows none of them."""

    async def accompany(self, hub: Hub) -> None:
        """Answer all questions about standing, and none about a stage."""

        async def serve(_peer: PeerId, _body: bytes) -> tuple[bytes, None]:
            invented = [Stage(1, attempt, Phase.COMMIT) for attempt in range(MAX_HELD)]
            return encode(Answer(tuple(map(make_position, invented)), ())), None

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
    hub = SimpleNamespace(serve={}, is_connected=lambda peer: True, request=partial(_answer, answer))
    broadcast = SimpleNamespace(me=me, others=others, hub=hub)
    standing, left = Standing(make_config(), hub, SimpleNamespace(newest_seal=lambda: own), broadcast), list[bool]()  # type: ignore[arg-type]
    standing.on_left = lambda: left.append(True)
    await standing.ask(own, 1.0)
    assert bool(left) is has_left


async def _answer(answer: Message, *_: object, **__: object) -> Message:
    return answer

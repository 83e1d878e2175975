"""What others answer a peer that asks where it stands."""

from pathlib import Path

import trio
from tests.swarm.joining_scenes import build, play, require_sound

from btard.identity import PeerId
from btard.net import Hub
from btard.rules.messages import Phase, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind
from btard.swarm.standing import MAX_HELD, Answer
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

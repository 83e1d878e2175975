"""Whoever attests to hold an aggregate must serve it: it is on disk before that is said."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from tests.swarm.restarts import kill_after, lag

from btard.identity import PeerId
from btard.net import Loan
from btard.rules.messages import AnyPayload, Attest, Phase, Stage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.gather import PULL_SOURCES

RING = (6, 5, 4, 0, 3, 1, 2)
"""The members in the order of their ids."""
HOLDS, LACKING, CHEATS = RING[0], RING[1:4], RING[4:]
CONFIG = {"genesis_size": 7, "rounds": 3, "validators": 0}
ENOUGH_S = 600.0
"""Longer than the run takes, and much shorter than whoever lacks a part asks for it."""


class NeverHalts(Conduct):
    """Lets the others wait: in a recovery it would be seen at odds with too many."""

    def says(self, stage: Stage) -> bool:
        """Return whether it is no HALT."""
        return stage.phase is not Phase.HALT


class GivesToOne(NeverHalts):
    """Gives its aggregate of round 2 to its accomplices, and to one honest member."""

    friends = frozenset[PeerId]()

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return whether it is one of these."""
        return round_number != 2 or recipient in self.friends


@pytest.mark.parametrize("crashes", [True, False], ids=["crash", "no-crash"])
async def test_whoever_attested_and_was_started_again_serves_the_others(
    crashes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Three cheats attest with it, so that nobody leaves, and give the aggregate to nobody else."""

    def change(who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        if who in CHEATS and stage.round == 2 and isinstance(payload, Attest):
            return replace(payload, held=(True,) * len(payload.held))
        return payload

    async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        return b"", None

    def watch(who: int, event: Event) -> None:
        if who in CHEATS and isinstance(event, RunStarted | Resumed):
            hostile.hubs[hostile.peers[who]].serve[Kind.PULL_PART] = refuse

    owner = GivesToOne()
    conducts = {who: owner if who == CHEATS[0] else NeverHalts() for who in CHEATS}
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts=conducts, watch=watch)
    owner.friends = frozenset(hostile.peers[who] for who in (HOLDS, *CHEATS))
    assert not any(HOLDS in hostile.successors(who)[:PULL_SOURCES] for who in LACKING), "they would get it in time"
    hostile.swarm.network.delivery = lag
    alter_said(monkeypatch, hostile, change)
    killed = kill_after(hostile.swarm, HOLDS, Phase.ATTEST, 2, back_s=0.3) if crashes else [0.0]
    with trio.move_on_after(ENOUGH_S):
        await hostile.run()
    assert killed
    for outcome in (hostile.swarm.outcomes[who] for who in (HOLDS, *LACKING)):
        assert (outcome.error, outcome.departures) == (None, [])
        assert outcome.rounds[-1].round == CONFIG["rounds"]

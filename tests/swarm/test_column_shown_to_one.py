"""An opened column that a cheat shows to one honest member alone is judged by all of them, or it leaves (B7)."""

from pathlib import Path
from typing import Any

import pytest
import torch
import trio
from tests.swarm.hostile_swarm import HostileSwarm, alter_said
from torch import Tensor

from btard.identity import PeerId
from btard.net import Loan
from btard.rules.messages import AnyPayload, DisputePublish, Opinion, Stage, Vote
from btard.rules.parts import Part
from btard.swarm import exhibits
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.services import Services
from btard.swarm.state import Work

SEES, LIES, KEEPS = 0, 3, 4
ROUNDS = 6


class WrongAggregate(Conduct):
    """Adds what it likes to the aggregate of its part, from round 2 on; once a round, if told so."""

    def __init__(self, *, once_a_round: bool) -> None:
        self.once_a_round, self.lied = once_a_round, set[int]()

    def aggregate(self, round_number: int, attempt: int, part: Part, aggregate: Tensor) -> Tensor:
        """Return another one."""
        if round_number < 2 or not part.elements or (self.once_a_round and round_number in self.lied):
            return aggregate
        self.lied.add(round_number)
        return aggregate + torch.full_like(aggregate, 5.0)


class Stage5:
    """Five members, of whom two cheat: one publishes nothing, and gives it to one honest member after ``late``."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, directory: Path, late: float, *, names: bool, denies: bool
    ) -> None:
        self.late, self.names, self.denies, self.gives = late, names, denies, True
        self.liar = WrongAggregate(once_a_round=names)
        config = {"genesis_size": 5, "rounds": ROUNDS, "validators": 0 if names else 1}
        conducts = {LIES: self.liar, KEEPS: Conduct()}
        self.hostile = HostileSwarm(monkeypatch, directory, config, conducts=conducts, watch=self.watch)
        alter_said(monkeypatch, self.hostile, self.change)
        self.send_whole = exhibits.send_whole
        monkeypatch.setattr(exhibits, "send_whole", self.publish)

    def publish(self, services: Services, work: Work, peer: PeerId, part: Part) -> None:
        """Publish, unless we keep ours."""
        if services.me != self.hostile.peers[KEEPS]:
            self.send_whole(services, work, peer, part)

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Return what the cheats say instead: that they saw nothing wrong, or one honest member silent each."""
        if who not in {LIES, KEEPS}:
            self.gives = self.gives or (who == SEES and isinstance(payload, DisputePublish))
            return payload
        if isinstance(payload, DisputePublish) and self.denies:
            return DisputePublish(tuple((KEEPS,) for _ in payload.lacking))
        if isinstance(payload, Vote):
            silent = (self.hostile.peers[1 + (LIES, KEEPS).index(who)],) if self.names else ()
            return Vote(tuple(Opinion((), silent, ()) for _ in payload.opinions))
        return payload

    def watch(self, who: int, event: Event) -> None:
        """Let the cheats answer nobody but one."""
        if who not in {LIES, KEEPS} or not isinstance(event, RunStarted | Resumed):
            return
        serve = self.hostile.hubs[self.hostile.peers[who]].serve
        usual: Any = serve[Kind.PULL_SLICE]

        async def answer(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
            if who == KEEPS and peer == self.hostile.peers[SEES] and self.gives:
                await trio.sleep(self.late * self.hostile.config.delay_s)
                found: tuple[bytes, Loan | None] = await usual(peer, body)
                return found
            return b"", None

        serve[Kind.PULL_SLICE] = answer


@pytest.mark.parametrize("denies", [False, True], ids=["cheats-hold-it", "cheats-deny-it"])
@pytest.mark.parametrize("late", [0.0, 1.5, 2.9])
async def test_wrong_aggregate_does_not_stand(
    late: float, denies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The others get the slice from the one that has it, or its owner leaves; then the column is judged."""
    stage = Stage5(monkeypatch, tmp_path, late, names=False, denies=denies)
    outcome = await stage.hostile.run()
    assert stage.liar.lied
    gone = {stage.hostile.peers.index(item.peer) for item in outcome.honest[0].departures}
    assert LIES in gone
    assert gone <= {LIES, KEEPS}


@pytest.mark.parametrize("late", [0.0, 1.5, 2.9])
async def test_no_attempt_is_lost_for_nothing(
    late: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Votes that call honest members silent leave nothing undecided."""
    stage = Stage5(monkeypatch, tmp_path, late, names=True, denies=False)
    outcome = await stage.hostile.run()
    assert stage.liar.lied
    gone = {stage.hostile.peers.index(item.peer) for item in outcome.honest[0].departures}
    assert gone
    assert gone <= {LIES, KEEPS}
    assert sum(done.attempts - 1 for done in outcome.honest[0].rounds) <= len(gone)


async def test_nobody_votes_on_what_it_was_shown_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The cheats say that they hold it, give it to nobody, and to one once all have said what they lack."""
    stage = Stage5(monkeypatch, tmp_path, 0.0, names=False, denies=False)
    stage.gives = False
    outcome = await stage.hostile.run()
    assert stage.liar.lied
    departures = outcome.honest[0].departures
    assert stage.hostile.peers.index(departures[0].peer) == KEEPS
    assert {stage.hostile.peers.index(item.peer) for item in departures} == {LIES, KEEPS}

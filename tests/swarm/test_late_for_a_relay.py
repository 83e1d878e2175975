"""A relay names the owner of a slice that came too late to be waited for, whatever it waits for itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said

from btard.identity import PeerId
from btard.net import Loan
from btard.rules.evidence import DepartureKind
from btard.rules.marks import Pair
from btard.rules.messages import Aggregate, AnyPayload, Stage
from btard.sim.swarm import Outcome
from btard.swarm import aggregation
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.pulling import send_whole
from btard.swarm.services import Services
from btard.swarm.state import Work

P, X, Y = 0, 3, 4
CONFIG = {"genesis_size": 5, "rounds": 40, "validators": 0}


class Plan:
    """Two cheats of five: X is marked with the honest P, Y with the two other honest members, from round 2 on.

    In later rounds they act where an honest relay is between P and X, and X itself between that one and Y. P waits
    three transfers and 12.5 delta for X's slice, the relay five and 14.5 for Y's.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        conducts = {X: Conduct(), Y: Conduct()}
        self.hostile = HostileSwarm(monkeypatch, directory, CONFIG, conducts=conducts, watch=self.watch)
        self.p, *self.others, self.x, self.y = self.hostile.peers
        self.given = list[int]()
        self._scatter = aggregation.scatter_to_relays
        alter_said(monkeypatch, self.hostile, self.change)
        monkeypatch.setattr(aggregation, "scatter_to_relays", self.scatter_late)

    def find_relay(self, work: Work) -> PeerId | None:
        """The honest relay to be blamed in this round, if it is of use."""
        relay = work.relays.between(self.p, self.x) if work.round > 2 else None
        return relay if relay in self.others and work.relays.between(relay, self.y) == self.x else None

    def scatter_late(self, services: Services, work: Work) -> None:
        """Give the relays what is for P, and for the relay, at the last moment."""
        relay = self.find_relay(work)
        if services.me not in {self.x, self.y} or relay is None or work.attempt != work.first_attempt:
            self._scatter(services, work)
            return
        for part in work.parts:
            through = work.relays.between(services.me, part.aggregator)
            is_kept = (services.me, part.aggregator) in {(self.x, self.p), (self.y, relay)}
            if through is not None and part.elements and not is_kept:
                send_whole(services, work, through, part)
        services.spawn(self.give_late, services, work, relay)

    async def give_late(self, services: Services, work: Work, relay: PeerId) -> None:
        """Wait until P gives up, and the relay does not."""
        is_x = services.me == self.x
        self.given += [work.round] if is_x else []
        await trio.sleep(4 * services.deadlines.bulk_s + (13.5 if is_x else 14.0) * services.config.delay_s)
        send_whole(services, work, relay, work.part_of(self.p if is_x else relay))

    def change(self, who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        """Let the cheats complain falsely in round 2, and never of each other."""
        if who not in {X, Y} or not isinstance(payload, Aggregate):
            return payload
        if (stage.round, stage.attempt) == (2, 0):
            missing = (self.p,) if who == X else tuple(sorted(self.others))
            return replace(payload, root=b"", norm=0.0, missing=missing)
        return replace(payload, unrelayed=())

    def watch(self, who: int, event: Event) -> None:
        """Let the cheats serve nobody."""
        if who in {X, Y} and isinstance(event, RunStarted | Resumed):
            self.hostile.hubs[self.hostile.peers[who]].serve[Kind.PULL_SLICE] = self.refuse

    async def refuse(self, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        """Have nothing."""
        return b"", None


def find_marks(outcome: Outcome) -> Iterator[Pair]:
    """All pairs that were ever marked."""
    for peer in outcome.honest:
        for done in peer.rounds:
            yield from done.result.marks.pairs


async def test_no_honest_relay_answers_for_a_late_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The relay waits for another relay, and gets the slice when the recipient has given up."""
    plan = Plan(monkeypatch, tmp_path)
    outcome = await plan.hostile.run()
    assert plan.given
    assert not set(outcome.departures(DepartureKind.REMOVAL)) - outcome.byzantine
    assert all(pair & {plan.x, plan.y} for pair in find_marks(outcome))

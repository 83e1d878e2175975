"""
A recipient waits for a relay as long as the relay waits for the owner, also where the owner's link to it was lost.

Else the owner gives its slice to the relay when the recipient has given up: the honest pair is marked, and the
recipient, marked with the owner already, has too many partners. A gradient takes 2 s here, twice delta.
"""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm, alter_said

from btard.identity import PeerId
from btard.net import Loan
from btard.rules.evidence import DepartureKind
from btard.rules.messages import Aggregate, AnyPayload, Stage
from btard.swarm import aggregation
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind
from btard.swarm.pulling import send_whole
from btard.swarm.services import Services
from btard.swarm.state import Work

Clock = trio.testing.MockClock
P, X = 0, 3
GRADIENT_S = 2.0
CONFIG = {"genesis_size": 4, "rounds": 5, "validators": 0}


@pytest.mark.parametrize("breaks", [True, False], ids=["link-lost", "link-kept"])
@pytest.mark.parametrize("after_s", [16.0, 18.0, 20.0, 22.0])
async def test_an_honest_relay_of_a_cheat_is_not_blamed(
    after_s: float, breaks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: Clock
) -> None:
    """Whenever the cheat gives its slice to the relay, no two honest members are marked with each other."""
    monkeypatch.setattr("btard.swarm.services.COMPUTE_FACTOR", int(10 * GRADIENT_S / 0.1))
    scatter_to_relays = aggregation.scatter_to_relays

    def scatter_late(services: Services, work: Work) -> None:
        relay = work.relays.between(x, p) if x in work.roster and p in work.roster else None
        if services.me != x or relay is None or work.attempt != work.first_attempt:
            scatter_to_relays(services, work)
            return

        async def give() -> None:
            await trio.sleep(0.1)
            if breaks:
                hostile.swarm.network.break_links(x, relay)
            await trio.sleep(after_s)
            send_whole(services, work, relay, work.part_of(p))

        services.spawn(give)

    def change(who: int, stage: Stage, payload: AnyPayload) -> AnyPayload:
        is_due = who == X and isinstance(payload, Aggregate) and (stage.round, stage.attempt) == (2, 0)
        return replace(payload, root=b"", norm=0.0, missing=(p,)) if is_due else payload

    async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        return b"", None

    def watch(who: int, event: Event) -> None:
        if who == X and isinstance(event, RunStarted | Resumed):
            hostile.hubs[x].serve[Kind.PULL_SLICE] = refuse

    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={X: Conduct()}, watch=watch)
    p, x = hostile.peers[P], hostile.peers[X]
    alter_said(monkeypatch, hostile, change)
    monkeypatch.setattr(aggregation, "scatter_to_relays", scatter_late)
    outcome = await hostile.run()
    assert not set(outcome.departures(DepartureKind.REMOVAL)) - outcome.byzantine
    pairs = {pair for peer in outcome.honest for done in peer.rounds for pair in done.result.marks.pairs}
    assert all(x in pair for pair in pairs)

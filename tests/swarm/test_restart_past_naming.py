"""Whoever names a false reporter answers for the slice that shows it: that is on disk before the name is said."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace
from tests.swarm.hostile_swarm import HostileSwarm
from tests.swarm.restarts import kill_after, read_said

from btard.identity import PeerId
from btard.net import Loan, Message
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Phase, Report
from btard.rules.parts import Part
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, Resumed, RunStarted
from btard.swarm.frames import Kind

NAMES, LIAR = 0, 4
CONFIG = {"genesis_size": 5, "rounds": 4, "validators": 0}


class FalseReport(Conduct):
    """Reports another norm to one aggregator in round 2."""

    victim = PeerId(b"")

    async def reports(
        self, round_number: int, attempt: int, parts: tuple[Part, ...], reports: tuple[Report, ...]
    ) -> tuple[Report, ...]:
        """Return the reports, one of them false."""
        if round_number != 2:
            return reports
        return tuple(
            replace(report, norm=report.norm + 0.1) if part.aggregator == self.victim else report
            for part, report in zip(parts, reports, strict=True)
        )


@pytest.mark.parametrize("crashes", [True, False], ids=["crash", "no-crash"])
async def test_whoever_named_a_liar_and_was_started_again_has_the_proof(
    crashes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The liar alone has its slice beside, and gives it to nobody."""

    def deliver(sender: PeerId, receiver: PeerId, message: Message) -> float:
        said = read_said(hostile.swarm, message)
        is_late = said is not None and said.slot.stage.phase is Phase.CONFIRM and sender == hostile.peers[LIAR]
        return 0.9 if is_late else 0.1

    async def refuse(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        return b"", None

    def watch(who: int, event: Event) -> None:
        if who == LIAR and isinstance(event, RunStarted | Resumed):
            hostile.hubs[hostile.peers[who]].serve[Kind.PULL_SLICE] = refuse

    liar = FalseReport()
    hostile = HostileSwarm(monkeypatch, tmp_path, CONFIG, conducts={LIAR: liar}, watch=watch)
    liar.victim = hostile.peers[NAMES]
    hostile.swarm.network.delivery = deliver
    killed = kill_after(hostile.swarm, NAMES, Phase.CONFIRM, 2, back_s=0.3) if crashes else [0.0]
    outcome = await hostile.run()
    assert killed
    assert outcome.departures(DepartureKind.REMOVAL) == {}
    banned = outcome.departures(DepartureKind.BAN)
    assert {who: event.cause for who, event in banned.items()} == {LIAR: Cause.FALSE_REPORT}

"""The benchmark of a flood: its tickets are what they are called, and its exit code says whether rounds got slower."""

from typing import Any

import pytest
import trio
import typer
from benchmarks.flood import KINDS, TREATMENTS, Stage, TicketKind, main, make_ticket, summarise
from tests.rules.build import make_config

from btard.identity import PeerId
from btard.swarm.compute import InlineCompute
from btard.swarm.joining.ticket_desk import Outlook, TicketDesk

PEER = PeerId(bytes(range(32)))
NEWEST = 9


@pytest.mark.parametrize("kind", TicketKind)
async def test_a_member_treats_a_flood_as_the_sink_does(autojump_clock: trio.testing.MockClock, kind: TicketKind):
    """It gives the same reply, and cuts the link at the same ticket."""
    treatment, cuts = TREATMENTS[kind], list[int]()
    config = make_config(ticket_memory_kib=8, **treatment.fields)

    def look(_ticket: Any) -> Outlook:
        return Outlook(NEWEST, bytes(32), config.ticket_bits)

    desk = TicketDesk(config.ticket_terms, look, InlineCompute(), lambda _peer, _reason: cuts.append(count))
    for count in range(1, treatment.cut_at + 1):
        assert desk.present(PEER, make_ticket(kind, PEER, NEWEST, count - 1), "127.0.0.1") is treatment.reply
    assert cuts == [treatment.cut_at]


def test_pairs_are_of_one_repetition():
    """A member that is twice as slow in the one slow repetition is as fast as the sink in the median pair."""
    rounds = {"quiet": [[1.0]] * 3, "sink": [[1.0], [1.0], [5.0]], "member": [[1.0], [1.0], [10.0]]}
    nobody: Any = None
    stage = Stage(nobody, nobody, rounds, dict.fromkeys(KINDS, 3.0), dict.fromkeys(KINDS, 3))
    assert summarise(stage, 1, 60.0)["paired_median"] == 1.0


@pytest.mark.parametrize(("ratio", "code"), [(1.1, 0), (1.101, 1)])
def test_slower_rounds_are_an_exit_code(monkeypatch: pytest.MonkeyPatch, ratio: float, code: int):
    """More than a tenth is too much."""
    monkeypatch.setattr("benchmarks.flood.measure", lambda *_arguments: {"paired_median": ratio})
    app = typer.Typer()
    app.command()(main)
    with pytest.raises(SystemExit) as ended:
        app(["--kind", "stale"])
    assert ended.value.code == code

"""What the doctor says of a run that goes on: its history, the work, probation, and places."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec import structs
from tests.rules.build import make_config
from tests.swarm.transfer.sealed_run import SealedRun

from btard.cli.doctor_findings import Verdict
from btard.cli.doctor_joining import News, Rate, judge_line, judge_work
from btard.cli.doctor_measures import measure_work
from btard.cli.doctor_visit import Errand, ask_for_news, knock_at_all, talk_to_all
from btard.identity import Identity
from btard.net import Address, Hub, Terms, open_tcp
from btard.rules.admission import MAX_BANNED
from btard.rules.seal import Candidate, Seal
from btard.swarm.joining.telling_lineage import LineTeller
from btard.training.checkup import CheckUps, Stage
from btard.training.meeting import serve_config
from btard.wire import Ticket

CONFIG = make_config(rounds=100, probation=32, ticket_bits=13)
MEMBERS = tuple(bytes([number]) * 32 for number in range(1, 9))
A_FULL_ROSTER = tuple(bytes([number]) * 32 for number in range(64))
ON_PROBATION = (Candidate(b"c" * 32, 20, 5), Candidate(b"d" * 32, 21, 4))
FAST, SLOW = Rate(82.0, 4), Rate(0.5, 1)


def seal(**changes: object) -> Seal:
    """The seal of round 26, in the midst of an epoch, with eight members and nobody on probation."""
    usual = Seal(CONFIG.run_id, 26, 0, b"", bytes(32), b"", MEMBERS, (), b"", bytes(32), 5, (), 0, 14)
    return structs.replace(usual, **changes)


@pytest.mark.parametrize(
    ("news", "verdict", "words"),
    [
        (News(seal()), "pass", "round 26"),
        (News(problem="there are two runs", is_refused=True), "fail", "there are two runs -> ask somebody you trust"),
        (News(problem="no answer"), "warn", "no answer"),
    ],
)
def test_history(news, verdict, words):
    """A line of seals that nobody vouches for is a reason not to join; silence is one to ask again."""
    finding = judge_line(news)
    assert finding is not None
    assert finding.verdict == verdict
    assert words in f"{finding.measured} -> {finding.remedy}"


def test_no_history_before_genesis():
    """Where nobody has begun there is nothing to verify."""
    assert judge_line(None) is None


@pytest.mark.parametrize(
    ("config", "news", "rate", "verdict", "words"),
    [
        (
            CONFIG,
            News(seal()),
            FAST,
            "pass",
            "2^14 evaluations of 8 MiB for a ticket: 3 min on average, with 95% no more",
        ),
        (CONFIG, News(seal()), FAST, "pass", "then 32 rounds of probation; 2 of 2 places are free, and 1 in an epoch"),
        (CONFIG, News(), FAST, "pass", "2^13 evaluations of 8 MiB for a ticket: 100 s on average"),
        (CONFIG, News(), FAST, "pass", "whether places are free only the members know"),
        (CONFIG, News(seal()), SLOW, "warn", "use more cores"),
        (CONFIG, News(seal()), None, "warn", "which fail here"),
        (CONFIG, News(seal(candidates=ON_PROBATION)), FAST, "warn", "0 of 2 places are free"),
        (CONFIG, News(seal(admitted=1)), FAST, "warn", "join all the same"),
        (CONFIG, News(seal(roster=A_FULL_ROSTER)), FAST, "warn", "the run is full: a run has at most 64 members"),
        (CONFIG, News(seal(round=70)), FAST, "warn", "only 30 rounds are left"),
        (CONFIG, News(seal(round=100)), FAST, "fail", "the run is over"),
        (replace(CONFIG, admission="closed"), News(seal()), FAST, "fail", "admits nobody after its genesis"),
        (CONFIG, News(seal(banned=(b"b" * 32,) * MAX_BANNED)), FAST, "fail", "it has banned 2048 peers"),
    ],
)
def test_work(config, news, rate, verdict, words):
    """The estimate follows the epoch's difficulty and this machine; a closed or finished run fails."""
    finding = judge_work(config, news, rate)
    assert finding.verdict == verdict
    assert words in f"{finding.measured} {finding.remedy}"
    assert finding.verdict is Verdict.PASS or finding.remedy


def test_rate_is_measured_on_every_core(monkeypatch):
    """As many threads work as join would use, each at least once; more memory takes longer."""
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    light, heavy = measure_work(8, 0.05), measure_work(16_384, 0.0)
    assert light is not None
    assert heavy is not None
    assert light.threads == heavy.threads == 3
    assert light.per_second > heavy.per_second > 0


@asynccontextmanager
async def open_member(run: SealedRun, directory: Path) -> AsyncIterator[Address]:
    """A member of a run that goes on, over TCP on loopback."""
    me = run.founder
    with run.open_ledger(directory) as ledger:
        run.fill(ledger)
        terms = Terms(run.config.run_id, run.config.field_digests)
        async with open_tcp(me, terms, Address("127.0.0.1", 0)) as tcp, trio.open_nursery() as nursery:
            hub = Hub(tcp, me.peer_id)
            serve_config(hub, run.config)
            CheckUps(hub, tcp, lambda: Stage(10, 7, 6, 20))
            LineTeller(hub, ledger)
            await nursery.start(hub.run)
            yield tcp.address
            nursery.cancel_scope.cancel()


async def hear(run: SealedRun, address: Address, pin: bytes = b"") -> News | None:
    """What a doctor hears at an address, with a ticket through a seal."""
    ticket = Ticket(run.config.run_id, run.founder.peer_id, (str(address),), pin)
    errand, me = Errand(ticket, "127.0.0.1", 0, 0), Identity.generate()
    async with open_tcp(me, Terms(run.config.run_id), Address("127.0.0.1", 0)) as tcp, trio.open_nursery() as nursery:
        hub = Hub(tcp, me.peer_id)
        await nursery.start(hub.run)
        visits = await talk_to_all(hub, await knock_at_all(ticket.run_id, ticket.bootstrap), errand)
        news = await ask_for_news(hub, visits, errand)
        nursery.cancel_scope.cancel()
    return news


async def test_newest_seal_is_verified(tmp_path):
    """A member's line leads from the genesis to its newest seal; a ticket through another line refuses it."""
    run = SealedRun()
    async with open_member(run, tmp_path) as address:
        news = await hear(run, address, run.digest_of(5))
        assert news == News(run.seals[-1])
        other = await hear(run, address, b"x" * 32)
    assert other is not None
    assert other.is_refused
    assert "does not know the seal" in other.problem

"""The doctor's rules for what other peers say: one answer is enough, the middle one counts, liars decide nothing."""

from dataclasses import replace

import msgspec
import pytest

from btard.cli.doctor_findings import Verdict
from btard.cli.doctor_swarm import (
    Lookup,
    Sample,
    Visit,
    Whereabouts,
    judge_bootstrap,
    judge_config,
    judge_dht,
    judge_dialling_out,
    judge_gradient,
    judge_offset,
    judge_reach,
    judge_stage,
    judge_versions,
)
from btard.rules.config import RunConfig
from btard.training.checkup import Answer, Dialled
from btard.wire import PROTOCOL

CONFIG = RunConfig(elements=100, chunk_size=4, max_gradient_s=30.0)
OTHER = replace(CONFIG, rounds=7, delay_s=5.0)
ANSWER = Answer(0, "203.0.113.5", Dialled.NOT_ASKED, PROTOCOL, "0.1.0", "2.13.0", 0, 0, 0, 0)
OURS = (PROTOCOL, "0.1.0", "2.13.0")
HERE = Whereabouts("my.example.org:4001", frozenset({"203.0.113.5"}), False)
LOOPBACK = Whereabouts("127.0.0.1:4001", frozenset({"127.0.0.1"}), True)
ANN, BOB, EVE = (bytes([number]) * 32 for number in (0xA, 0xB, 0xE))


def visit(peer: bytes = ANN, **changes: object) -> Visit:
    """A visit to a peer that answers everything."""
    usual = {"connect_s": 0.02, "config": CONFIG, "answer": ANSWER}
    return Visit(f"{peer[0]}.example.org:4000", peer, **(usual | changes))


def unreached(problem: str = "cannot reach it", **changes: object) -> Visit:
    """An address at which nobody answers."""
    return Visit("dead.example.org:4000", problem=problem, **changes)


def answered(peer: bytes = ANN, **changes: object) -> Visit:
    """A visit to a peer that gives this check-up."""
    return visit(peer, answer=msgspec.structs.replace(ANSWER, **changes))


def dialled(word: Dialled, peer: bytes = ANN, *, came: bool = False, host: str = "203.0.113.5") -> Visit:
    """A visit to a peer that was asked to dial us."""
    return replace(answered(peer, host=host), dialled=word, has_come=came)


def at(*ahead_s: float, trip_s: float = 0.04) -> list[Visit]:
    """Visits to peers whose clocks are so many seconds ahead."""
    return [visit(samples=(Sample(trip_s, each), Sample(9.0, 7777.0))) for each in ahead_s]


def config(visits: list[Visit], local: RunConfig | None = None):
    """The verdict on our configuration."""
    return judge_config(visits, CONFIG.run_id, local, "me/run.toml")


def dht(known: int | None, *lookups: Lookup, is_linked: bool = True, is_begun: bool = False):
    """The verdict on the DHT; Ann is the founder."""
    return judge_dht(known, ANN, lookups, is_linked=is_linked, is_begun=is_begun)


def found(peer: bytes, seconds: float = 0.03) -> Lookup:
    """A search that found somebody."""
    return Lookup(peer, seconds, ("203.0.113.9:4000",))


BEGUN = {"round": 37, "members": 7, "gradient_ms": 100}
CASES = [
    (judge_bootstrap([])[0], "fail", "names no address"),
    (judge_bootstrap([visit(), unreached()])[0], "pass", "peer 0a0a0a0a in 20 ms"),
    (judge_bootstrap([visit(), unreached()])[1], "warn", "dead.example.org:4000: cannot reach it"),
    (judge_bootstrap([unreached()])[0], "fail", "firewalls"),
    (judge_bootstrap([unreached("belongs to another run", is_refused=True)])[0], "fail", "newest ticket"),
    (config([visit()]), "pass", "as peer 0a0a0a0a says"),
    (config([unreached()], CONFIG), "pass", "as me/run.toml says"),
    (config([unreached()]), None, ""),
    (config([visit(config=None, config_problem="not the ticket's run")]), "fail", "no run file: not the ticket's run"),
    (config([visit(EVE, config=None, config_problem="not the ticket's run"), visit()]), "warn", "lie"),
    (config([visit()], OTHER), "fail", "rounds (here 7, there 100), delay_s (here 5.0, there 2.0)"),
    (config([unreached()], OTHER), "fail", "remove me/run.toml"),
    (judge_stage([unreached()], is_member=False), None, ""),
    (judge_stage([visit()], is_member=False), "pass", "not begun"),
    (judge_stage([answered(**BEGUN)], is_member=False), "pass", "join comes in midway"),
    (judge_stage([visit(BOB), answered(**BEGUN)], is_member=False), "pass", "round 37 is done, with 7 members"),
    (judge_stage([answered(**BEGUN)], is_member=True), "pass", "goes on"),
    (judge_versions([unreached()], OURS), None, ""),
    (judge_versions([visit(), visit(BOB)], OURS), "pass", "those of 0a0a0a0a, 0b0b0b0b"),
    (judge_versions([visit(answer=None, silence="did not answer")], OURS), "warn", "older btard"),
    (judge_versions([visit(), answered(BOB, protocol=PROTOCOL + 1)], OURS), "fail", f"0b0b0b0b speaks {PROTOCOL + 1}"),
    (judge_versions([answered(torch="2.14.0")], OURS), "warn", "0a0a0a0a has torch 2.14.0"),
    (judge_offset([unreached()]), None, ""),
    (judge_offset(at(0.001)), "pass", "in step with one peer, to within 20 ms"),
    (judge_offset(at(30.0)), "pass", "30.0 s behind one peer"),
    (judge_offset(at(-90.0)), "warn", "90.0 s ahead of one peer"),
    (judge_offset(at(400.0)), "fail", "nobody hears"),
    (judge_offset(at(61.0, trip_s=4.0)), "pass", "to within 2.0 s"),
    (judge_offset(at(0.1, 9e9, 0.2)), "pass", "the middle one of 3 peers"),
    (judge_reach([visit()], HERE), None, ""),
    (judge_reach([visit(silence="did not answer within 9 s")], HERE), "warn", "0a0a0a0a: did not answer within 9 s"),
    (judge_reach([dialled(Dialled.REACHED, came=True)], HERE), "pass", "0a0a0a0a came to our port over TCP"),
    (judge_reach([dialled(Dialled.SILENT, EVE), dialled(Dialled.REACHED, came=True)], HERE), "pass", "0a0a0a0a came"),
    (judge_reach([dialled(Dialled.REACHED, came=True, host="198.51.100.7")], HERE), "warn", "at 198.51.100.7"),
    (judge_reach([dialled(Dialled.REACHED)], HERE), "warn", "it lies"),
    (judge_reach([dialled(Dialled.REACHED, EVE), dialled(Dialled.SILENT)], HERE), "fail", "dropped"),
    (judge_reach([dialled(Dialled.FAILED)], HERE), "fail", "forward it on the router"),
    (judge_reach([dialled(Dialled.FAILED)], LOOPBACK), "fail", "--listen 0.0.0.0:PORT"),
    (judge_reach([dialled(Dialled.FAILED, host="127.0.0.1")], LOOPBACK), "fail", "turned away"),
    (judge_reach([dialled(Dialled.FAILED, host="::1")], LOOPBACK), "fail", "you say 127.0.0.1:4001, they see ::1"),
    (judge_reach([dialled(Dialled.BUSY)], HERE), "warn", "ten seconds"),
    (judge_reach([dialled(Dialled.UNWILLING)], HERE), "warn", "below 1024"),
    (judge_dialling_out(), "warn", "two that only dial out have no link"),
    (dht(0), "fail", "open UDP"),
    (dht(0, is_linked=False), None, ""),
    (dht(None), "warn", "not asked"),
    (dht(3, found(ANN), found(BOB, 0.05)), "pass", "2 of 2 peers found in 40 ms (slowest 50 ms)"),
    (dht(3, found(ANN), Lookup(BOB, 5.0, ())), "warn", "1 of 2"),
    (dht(3, found(ANN, 3.0)), "warn", "run doctor again"),
    (dht(3, Lookup(ANN, 5.0, ()), found(BOB)), "fail", "start the founder"),
    (dht(3, Lookup(ANN, 5.0, ()), found(BOB), is_begun=True), "warn", "1 of 2"),
    (judge_gradient(0.02, "", CONFIG, 0.0), "pass", "20 ms for digits"),
    (judge_gradient(20.0, "", CONFIG, 0.0), "warn", "keep this machine idle"),
    (judge_gradient(31.0, "", CONFIG, 0.0), "fail", "faster machine"),
    (judge_gradient(2.0, "", CONFIG, 0.1), "fail", "waits 1.0 s"),
    (judge_gradient(None, "no module named mine", CONFIG, 0.0), "fail", "no module named mine"),
]


@pytest.mark.parametrize(("finding", "verdict", "words"), CASES, ids=lambda value: getattr(value, "check", ""))
def test_rule(finding, verdict, words):
    """Each answer leads to its verdict, in a line that says what was heard or what to do; no answer, no line."""
    shown = finding and (finding.verdict, words in f"{finding.measured} {finding.remedy}")
    assert shown == (verdict and (verdict, True)), finding


def test_whatever_is_not_well_has_a_remedy():
    """Nobody is left alone with a complaint, nor told to do anything where all is well."""
    findings = [item for item, _, _ in CASES if item is not None]
    assert [item for item in findings if (item.verdict is Verdict.PASS) == bool(item.remedy)] == []

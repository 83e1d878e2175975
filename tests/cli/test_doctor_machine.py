"""The doctor's rules for one machine: what is measured decides, and every complaint says what to do."""

import os
import time
from pathlib import Path

import pytest

from btard.cli.doctor_findings import Finding, Verdict, describe_findings, format_finding, is_well, summarise
from btard.cli.doctor_machine import (
    Clock,
    Cores,
    Demands,
    Disk,
    Door,
    Key,
    Software,
    judge_clock,
    judge_cores,
    judge_disk,
    judge_door,
    judge_key,
    judge_memory,
    judge_software,
)
from btard.cli.doctor_measures import (
    find_existing,
    find_port,
    is_held,
    measure_clock,
    measure_cores,
    measure_disk,
    measure_key,
    measure_software,
    read_available,
    read_quota,
)
from btard.identity import Identity, save_identity, short
from btard.net import Address
from btard.swarm.ledger_files import lock_directory

LARGE = Demands(elements=10**8, state_interval=16, delay_s=2.0)
GB = 10**9


def door(**changes: object) -> Door:
    """A port that can be listened at, announced under a name."""
    usual = {
        "listen": "0.0.0.0:4001",
        "port": 4001,
        "is_port_chosen": False,
        "is_loopback": False,
        "is_wildcard": True,
        "is_announced": True,
        "is_run_local": False,
    }
    return Door(**(usual | changes))


LOCAL = {"is_loopback": True, "is_wildcard": False, "is_announced": False}
CASES = [
    (judge_software(Software("0.1.0", 1, "3.11.4", "2.13.0", True)), "pass", "torch 2.13.0"),
    (judge_software(Software("0.1.0", 1, "3.11.4", "not installed", False)), "fail", "pip install"),
    (judge_cores(Cores(4, 1.0)), "pass", "4 usable"),
    (judge_cores(Cores(4, None)), "pass", "4 usable"),
    (judge_cores(Cores(0.5, 0.0)), "warn", "whole one"),
    (judge_cores(Cores(2, 1.8)), "warn", "stop them"),
    (judge_memory(16 * GB, LARGE), "pass", "about 4.5 GB"),
    (judge_memory(4 * GB, LARGE), "fail", "more memory"),
    (judge_memory(None, LARGE), "pass", "does not say"),
    (judge_disk(Disk("me", 20 * GB, 0.003), LARGE), "pass", "takes 3.0 ms"),
    (judge_disk(Disk("me", 9 * GB, 0.003), LARGE), "fail", "about 10.1 GB"),
    (judge_disk(Disk("me", 20 * GB, 0.3), LARGE), "warn", "local disk"),
    (judge_disk(Disk("me", 20 * GB, 0.3), Demands(delay_s=5.0)), "pass", "300 ms"),
    (judge_disk(Disk("me", 20 * GB, 0.003, is_in_use=True), LARGE), "warn", "stop that peer"),
    (judge_disk(Disk("/", problem="Read-only file system"), LARGE), "fail", "another --data-dir"),
    (judge_clock(Clock(1e6, 0.01, 0.001)), "pass", "steady"),
    (judge_clock(Clock(1e6, None, 0.001)), "pass", "steady"),
    (judge_clock(Clock(-1e9, 0.0, 0.0)), "fail", "timedatectl"),
    (judge_clock(Clock(1e6, -3600.0, 0.0)), "warn", "3600.0 s off"),
    (judge_clock(Clock(1e6, 0.0, -60.0)), "warn", "run doctor again"),
    (judge_key(Key("me/identity.key")), "pass", "join makes one"),
    (judge_key(Key("me/identity.key", "0badcafe")), "pass", "is peer 0badcafe"),
    (judge_key(Key("me/identity.key", "0badcafe", is_founder=True)), "pass", "--found"),
    (judge_key(Key("me/identity.key", problem="readable by others")), "fail", "--identity"),
    (judge_door(door()), "pass", "0.0.0.0:4001 are free"),
    (judge_door(door(problem="another program uses the port")), "fail", "another --listen"),
    (judge_door(door(is_announced=False)), "fail", "--announce HOST:PORT"),
    (judge_door(door(is_announced=False, only_dials_out=True)), "pass", "announced to nobody"),
    (judge_door(door(listen="0.0.0.0:0", is_port_chosen=True)), "warn", "is forwarded"),
    (judge_door(door(**LOCAL, is_run_local=True)), "pass", "are free"),
    (judge_door(door(**LOCAL, is_run_local=None)), "warn", "--listen 0.0.0.0:4001"),
    (judge_door(door(**LOCAL, is_run_local=False)), "warn", "and the run is not"),
]


@pytest.mark.parametrize(("finding", "verdict", "words"), CASES, ids=lambda value: getattr(value, "check", ""))
def test_rule(finding, verdict, words):
    """Each fact leads to its verdict, and the line says what was measured or what to do."""
    assert (finding.verdict, words in f"{finding.measured} {finding.remedy}") == (verdict, True), finding


def test_whatever_is_not_well_has_a_remedy():
    """Nobody is left alone with a complaint, nor told to do anything where all is well."""
    assert [item for item, _, _ in CASES if (item.verdict is Verdict.PASS) == bool(item.remedy)] == []


def test_one_failure_is_enough():
    """Warnings alone are well, one failure is not; text and JSON say the same."""
    warning, failure = (
        Finding("cores", Verdict.WARN, "busy", "stop them"),
        Finding("disk", Verdict.FAIL, "full", "free"),
    )
    assert is_well([warning])
    assert not is_well([warning, failure])
    assert summarise([warning, failure]) == "0 pass, 1 warn, 1 fail"
    described = describe_findings([warning, failure])
    assert described["ok"] is False
    assert described["checks"][1] == {"check": "disk", "verdict": "fail", "measured": "full", "remedy": "free"}


def test_a_peers_words_cannot_move_the_cursor():
    """Control characters of other peers do not reach the terminal."""
    shown = format_finding(Finding("run", Verdict.FAIL, "unknown field \x1b[2J\n\u202e", "ask"))
    assert shown.count("\n") == 1
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("junk", None), ("1 0", None)]
)
def test_quota(text, cores):
    """A container's share of the cores is read, and nonsense is no share."""
    assert read_quota(text) == cores


@pytest.mark.parametrize(
    ("text", "count"),
    [("MemTotal: 9 kB\nMemAvailable:    2048 kB\n", 2048 * 1024), ("MemTotal: 9 kB", None), ("MemAvailable:", None)],
)
def test_available_memory(text, count):
    """What Linux calls available is read, and nothing is made up without it."""
    assert read_available(text) == count


def test_this_machine():
    """The measures of this very machine make sense."""
    assert measure_software().is_complete
    assert 0 < measure_cores().usable <= (os.cpu_count() or 1)
    clock = measure_clock(None, time.time(), time.monotonic())
    assert clock.since_install_s > 0
    assert abs(clock.stepped_s) < 60


def test_disk_leaves_nothing_behind(tmp_path):
    """A directory that does not exist is measured where it would be made, and nothing is made."""
    disk, ahead_s = measure_disk(tmp_path / "a" / "b")
    assert (disk.path, disk.problem, disk.is_in_use) == (str(tmp_path), "", False)
    assert disk.free > 0
    assert ahead_s is not None
    assert abs(ahead_s) < 60
    assert list(tmp_path.iterdir()) == []


def test_disk_that_cannot_be_written(tmp_path):
    """A file where the directory should be is a problem, not an error."""
    (tmp_path / "file").write_text("")
    disk, ahead_s = measure_disk(tmp_path / "file")
    assert disk.problem
    assert ahead_s is None
    assert find_existing(Path("/nowhere/at/all")) == Path("/")


def test_directory_of_a_running_peer(tmp_path):
    """A data directory that a peer holds is told from one that nobody holds any more."""
    lock = lock_directory(tmp_path)
    assert is_held(tmp_path)
    os.close(lock)
    assert not is_held(tmp_path)


def test_key_is_only_looked_at(tmp_path):
    """A missing key stays missing, a good one is named, a bad one is a problem."""
    path, me = tmp_path / "identity.key", Identity.generate()
    assert measure_key(path, None) == Key(str(path))
    assert not path.exists()
    save_identity(me, path)
    assert measure_key(path, me.peer_id) == Key(str(path), short(me.peer_id), is_founder=True)
    path.chmod(0o644)
    assert "readable by others" in measure_key(path, None).problem


def test_port_of_another_program(busy_address):
    """A port that is taken says so; one that the system chooses is free for TCP and UDP."""
    assert "another program" in find_port(Address.parse(busy_address))[1]
    port, problem = find_port(Address("127.0.0.1", 0))
    assert (port > 0, problem) == (True, "")


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 70])
def test_address_of_another_machine(host):
    """What is no address of this machine is a problem, whatever the reason."""
    assert "no address of this machine" in find_port(Address(host, 4001))[1]

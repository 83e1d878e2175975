"""``doctor``: from the command line to a real founder, over TCP and UDP on loopback."""

import json
import queue
from collections.abc import Iterator

import pytest

from btard.cli.doctor_findings import INDENT
from btard.identity import load_identity
from btard.net import Address
from btard.training import Endpoint, Ready, Trainer, run_in_thread
from btard.wire import Ticket, format_ticket

NETWORK = ("bootstrap", "run", "stage", "versions", "offset", "reach", "dht")


@pytest.fixture
def run(found):
    """A run of two, whose founder is at no known address."""
    return found("--peers", 2)


@pytest.fixture
def word(run, tmp_path) -> Iterator[str]:
    """The ticket of a founder that waits for another peer, in a thread of its own."""
    told: queue.Queue[object] = queue.Queue()
    identity = load_identity(run.key)
    trainer = Trainer(run.config, identity, tmp_path / "founder", Endpoint(), observe=told.put)
    future = run_in_thread(trainer)
    while not isinstance(event := told.get(timeout=60), Ready):
        pass
    yield format_ticket(Ticket(run.config.run_id, identity.peer_id, tuple(map(str, event.addresses))))
    trainer.stop()
    assert not future.result(timeout=60).is_finished


def examine(call, *arguments: object) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code and, by check, (verdict, what was measured and what to do)."""
    ended = call("doctor", *arguments, "--json")
    assert ended.err == ""
    found = json.loads(ended.out)
    assert found["ok"] == (ended.code == 0)
    lines = {item["check"]: (item["verdict"], f"{item['measured']} {item['remedy']}") for item in found["checks"]}
    return ended.code, lines


@pytest.fixture
def _impatient(monkeypatch) -> None:
    """A doctor that does not wait for DHT nodes where there are none."""
    monkeypatch.setattr("btard.cli.doctor_visit.BOOTSTRAP_SECONDS", 0.2)


def test_this_machine_alone(call, tmp_path, monkeypatch):
    """Without a ticket the machine is examined, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    code, checks = examine(call)
    assert code == 0
    assert list(checks) == ["software", "cores", "port", "memory", "disk", "clock"]
    assert list(tmp_path.iterdir()) == []


def test_a_founder_that_waits(call, word, tmp_path):
    """With a founder that waits every check of the way to it passes, and join would be the next command."""
    code, checks = examine(call, word, "--data-dir", tmp_path / "me")
    assert {name: checks[name][0] for name in (*NETWORK, "port", "key", "gradient")} == dict.fromkeys(
        (*NETWORK, "port", "key", "gradient"), "pass"
    ), checks
    assert code == 0
    assert "not begun" in checks["stage"][1]
    assert not (tmp_path / "me").exists()


def test_a_run_file_of_another_run(call, word, run, tmp_path):
    """A run file in the data directory that is not the ticket's is named, with the fields that differ."""
    me = tmp_path / "me"
    me.mkdir()
    (me / "run.toml").write_text(run.run_file.read_text().replace("\nrounds = 100 ", "\nrounds = 7 "))
    code, checks = examine(call, word, "--data-dir", me)
    assert code == 1
    assert checks["run"][0] == "fail"
    assert "differs in: rounds (here 7, there 100)" in checks["run"][1]
    assert checks["gradient"][0] == "pass"


def test_a_port_that_is_taken(call, word, busy_address):
    """With our port taken nobody is asked to dial it; all else is examined."""
    code, checks = examine(call, word, "--listen", busy_address)
    assert code == 1
    assert checks["port"][0] == "fail"
    assert "reach" not in checks
    assert (checks["offset"][0], checks["dht"][0]) == ("pass", "pass")


@pytest.mark.usefixtures("_impatient")
def test_nobody_answers(call, found, silent_address):
    """An address at which nobody answers is one clear line, and the exit code 1; text says what JSON says."""
    ended = call("doctor", found(address=silent_address).word)
    assert (ended.code, ended.err) == (1, "")
    lines = ended.out.splitlines()
    complaint = next(index for index, line in enumerate(lines) if line.startswith("fail  bootstrap"))
    assert f"cannot reach {silent_address}" in lines[complaint]
    assert lines[complaint + 1].startswith(f"{INDENT}-> is that peer running?")
    assert lines[-1].endswith("1 fail")


@pytest.mark.usefixtures("_impatient")
def test_peer_of_another_run(call, found, foreign_address):
    """An address at which a peer of another run listens is told from one without anybody."""
    code, checks = examine(call, found(address=foreign_address).word)
    assert code == 1
    assert checks["bootstrap"][0] == "fail"
    assert "another run" in checks["bootstrap"][1]


def test_a_task_that_is_not_here(call, run, tmp_path):
    """A task that cannot be imported fails as a line, not as an error."""
    text = run.run_file.read_text().replace('task = "digits"', 'task = "no_such_module:Task"')
    (tmp_path / "other.toml").write_text(text)
    code, checks = examine(call, "--run-file", tmp_path / "other.toml")
    assert code == 1
    assert checks["gradient"][0] == "fail"


def test_a_task_that_raises_anything(call, run, monkeypatch):
    """Whatever somebody's own task raises is a line, not a traceback."""
    monkeypatch.setattr("btard.cli.doctor_examination.load_workload", lambda config: 1 / 0)
    _, checks = examine(call, "--run-file", run.run_file)
    assert checks["gradient"][0] == "fail"
    assert "the task raises ZeroDivisionError" in checks["gradient"][1]


def test_a_task_that_takes_too_long(call, run, monkeypatch):
    """A gradient that does not end is given up."""
    monkeypatch.setattr("btard.cli.doctor_examination.GRADIENT_SECONDS", 0.0)
    _, checks = examine(call, "--run-file", run.run_file)
    assert checks["gradient"][0] == "fail"
    assert "longer than" in checks["gradient"][1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "is not a run ticket"),
        (["--listen", "nowhere"], "is not an address"),
        (["--run-file", "missing.toml"], "cannot read missing.toml"),
    ],
)
def test_mistakes_in_the_command_line(call, arguments, words):
    """What is wrong with the command line itself is a usage error, as for join."""
    ended = call("doctor", *arguments)
    assert ended.code == 2
    assert words in ended.complaint


def test_founder_listens_at_its_tickets_address(call, found, busy_address):
    """With the founder's key the port of the ticket is tried, as join would, and nobody is visited there."""
    run = found(address=busy_address)
    code, checks = examine(call, run.word, "--identity", run.key)
    assert code == 1
    assert f"cannot listen at {Address.parse(busy_address)}" in checks["port"][1]
    assert "--found" in checks["key"][1]
    assert checks.keys().isdisjoint(NETWORK)

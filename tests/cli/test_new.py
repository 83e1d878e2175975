"""``new``: the run file, the ticket, the commands."""

import shlex

import pytest

from btard.cli.new import Places, parse_settings
from btard.identity import load_identity
from btard.robust import compute_chunk_size
from btard.training import load_workload


def test_run_file_is_whole(found):
    """A new run file holds everything that a run needs: founder, data, sizes, calibrated radii."""
    run = found("--peers", 5, "--rounds", 12, "--seed", 3)
    config = run.config
    assert (config.genesis_size, config.rounds, config.seed) == (5, 12, 3)
    assert config.founder_id == load_identity(run.key).peer_id
    assert load_workload(config).elements == config.elements
    assert config.chunk_size == compute_chunk_size(config.elements, 5)
    assert 0 < config.tau < config.delta
    assert config.tolerance >= 1e-4


def test_ticket_is_that_of_the_run(found):
    """The ticket names the run, its founder and where the founder listens."""
    run = found(address="127.0.0.1:4321")
    assert run.ticket.run_id == run.config.run_id
    assert run.ticket.founder == run.config.founder_id
    assert run.ticket.bootstrap == ("127.0.0.1:4321",)


def test_commands_can_be_pasted(call, tmp_path):
    """The printed commands survive a shell, also with a space in a file's name."""
    folder = tmp_path / "my runs"
    folder.mkdir()
    ended = call(
        "new", "--out", folder / "run.toml", "--identity", folder / "key", "--listen", "0.0.0.0:4000",
        "--announce", "lab.example.org:4000",
    )  # fmt: skip
    founder, member = (shlex.split(line) for line in ended.out.splitlines() if line.startswith("btard-peer join"))
    assert founder[founder.index("--found") + 1] == str(folder / "run.toml")
    assert founder[founder.index("--announce") + 1] == "lab.example.org:4000"
    assert member[:3] == founder[:3]


def test_several_addresses(found):
    """A ticket names the founder at each of its addresses, and the command has them all, for join to listen at."""
    run = found("--listen", "[::1]:4001", address="127.0.0.1:4001")
    assert run.ticket.bootstrap == ("127.0.0.1:4001", "[::1]:4001")
    assert Places(("127.0.0.1:1", "[::1]:1"), ("a.org:1",)).options == [
        "--listen 127.0.0.1:1",
        "--listen '[::1]:1'",
        "--announce a.org:1",
    ]


def test_same_input_is_the_same_run(found):
    """A run file written from a run file, by the same founder, is the same run."""
    one = found("--peers", 4)
    again = found("--run-file", one.run_file, "--identity", one.key, name="again")
    assert again.config == one.config


def test_settings_reach_the_run_file(found):
    """Fields and options of tables can be set, and keep what is not set."""
    one = found("--set", "delay_s=3", "--set", "optimizer=sgd", "--set", "optimizer_options.lr=0.5")
    two = found("--run-file", one.run_file, "--set", "optimizer-options.momentum=0.9", name="two")
    assert (two.config.delay_s, two.config.optimizer) == (3.0, "sgd")
    assert two.config.optimizer_options == {"lr": 0.5, "momentum": 0.9}


def test_radii_follow_the_chunks(found):
    """More peers mean smaller chunks, whose radii shrink with the square root of the length."""
    few, many = found("--peers", 4).config, found("--peers", 16, name="many").config
    assert many.chunk_size == few.chunk_size // 4
    assert many.tau == pytest.approx(few.tau / 2)


def test_chosen_radii_stay(found):
    """A radius that is set is not replaced by a calibrated one."""
    config = found("--set", "tau=0.25", "--set", "delta=3").config
    assert (config.tau, config.delta) == (0.25, 3.0)


def test_unknown_options_are_measured(found):
    """For a batch size that nobody has measured, the radii are measured: smaller batches, larger noise."""
    plain = found().config
    small = found("--set", "task_options.batch_size=2", name="small").config
    assert small.tau > 1.5 * plain.tau


def test_settings_are_toml_or_words():
    """Values are TOML; what is not TOML is a word."""
    assert parse_settings(["rounds=5", "a.b=true", 'a.c="x"', "task=digits"]) == {
        "rounds": 5,
        "a": {"b": True, "c": "x"},
        "task": "digits",
    }

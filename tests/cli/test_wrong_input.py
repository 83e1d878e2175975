"""Wrong input: one clear line that says what to do, and the right exit code."""

import sys

import pytest

from btard.wire import Ticket, format_ticket


def test_word_that_is_no_ticket(call, tmp_path):
    """A word that is no ticket is named, and the line says what one looks like."""
    ended = call("join", "hello", "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "'hello' is not a run ticket" in ended.complaint
    assert "btard1-" in ended.complaint


def test_ticket_cut_short(call, found, tmp_path):
    """A ticket that lost its end in a chat program is not used."""
    ended = call("join", found().word[:60], "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "damaged, mistyped or cut short" in ended.complaint


def test_ticket_of_another_run_file(call, found, tmp_path):
    """A run file that is not the ticket's is refused before anybody is dialled."""
    one, other = found(name="one"), found("--rounds", 7, name="other")
    ended = call("join", one.word, "--run-file", other.run_file, "--data-dir", tmp_path / "me")
    assert ended.code == 5
    assert other.config.run_id[:4].hex() in ended.complaint
    assert "use the ticket made with that file" in ended.complaint


def test_ticket_of_another_run(call, found, tmp_path, foreign_address):
    """Who is answered by a peer of another run is told so at once, however long it would wait."""
    ended = call("join", found(address=foreign_address).word, "--data-dir", tmp_path / "me", "--wait", 3600)
    assert ended.code == 5
    assert foreign_address in ended.complaint
    assert "belongs to another run" in ended.complaint


def test_port_in_use(call, found, tmp_path, busy_address):
    """A port that another program has is named, with what to do."""
    run = found(address=busy_address)
    ended = call("join", run.word, "--found", run.run_file, "--identity", run.key, "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert busy_address in ended.complaint
    assert "choose another" in ended.complaint


@pytest.mark.parametrize("digest", ["newest", "78" * 31, "78" * 33])
def test_trusted_seal_that_is_no_digest(call, found, tmp_path, digest):
    """What is no digest of a seal is named, with where to find one."""
    ended = call("join", found().word, "--data-dir", tmp_path / "me", "--trust-seal", digest)
    assert ended.code == 2
    assert f"'{digest}' is no digest of a seal: 64 hex digits, as btard-peer status prints" in ended.complaint


def test_nobody_answers(call, found, tmp_path, silent_address):
    """A bootstrap address at which nobody listens is unreachable, and the log says so as well."""
    log = tmp_path / "log.jsonl"
    run = found(address=silent_address)
    ended = call("join", run.word, "--data-dir", tmp_path / "me", "--wait", 0, "--json-log", log)
    assert ended.code == 4
    assert silent_address in ended.complaint
    assert "Start the founder first" in ended.complaint
    assert '"reason": "unreachable"' in log.read_text()


def test_ticket_without_addresses(call, found, tmp_path):
    """A ticket that names no address leads nowhere, and says so."""
    known = found().ticket
    word = format_ticket(Ticket(known.run_id, known.founder, ()))
    ended = call("join", word, "--data-dir", tmp_path / "me", "--wait", 0)
    assert ended.code == 4
    assert "names no address" in ended.complaint


def test_damaged_key(call, found, tmp_path):
    """A damaged key file is not replaced, and the line says how to go on."""
    key = tmp_path / "my.key"
    key.write_text("junk")
    key.chmod(0o600)
    ended = call("join", found().word, "--identity", key, "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "restore it from a copy or make a new key" in ended.complaint
    assert key.read_text() == "junk"


def test_unknown_task(call, tmp_path):
    """An unknown task is answered with those that exist."""
    ended = call("new", "--task", "mnist", "--identity", tmp_path / "key", "--out", tmp_path / "run.toml")
    assert ended.code == 2
    assert "digits, text, or your own as module:Class" in ended.complaint
    assert not (tmp_path / "run.toml").exists()


def test_missing_extra(call, tmp_path, monkeypatch):
    """Without scikit-learn the line says what to install."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    ended = call("new", "--task", "digits", "--identity", tmp_path / "key", "--out", tmp_path / "run.toml")
    assert ended.code == 2
    assert "pip install 'btard[demo]'" in ended.complaint


def test_data_directory_that_cannot_be_written(call, found, tmp_path):
    """A data directory that cannot be made is named, with the option to change."""
    file = tmp_path / "file"
    file.touch()
    ended = call("join", found().word, "--data-dir", file / "me")
    assert ended.code == 2
    assert str(file / "me") in ended.complaint
    assert "choose another --data-dir" in ended.complaint


def test_founder_with_another_key(call, found, tmp_path):
    """Only the key that made the run may found it."""
    one, other = found(name="one"), found(name="other")
    ended = call("join", one.word, "--found", one.run_file, "--identity", other.key, "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "not the founder's key" in ended.complaint


def test_founders_key_without_found(call, found, tmp_path):
    """The founder's key joins only as the founder: two processes with one key would look like a traitor."""
    run = found()
    ended = call("join", run.word, "--identity", run.key, "--data-dir", tmp_path / "me")
    assert ended.code == 2
    assert "add --found" in ended.complaint


def test_founder_that_nobody_could_reach(call, tmp_path):
    """A ticket must not carry an address that is nobody's."""
    files = ("--out", tmp_path / "run.toml", "--identity", tmp_path / "key")
    ended = call("new", "--listen", "0.0.0.0:4000", *files)
    assert ended.code == 2
    assert "--announce HOST:PORT" in ended.complaint


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("delay_s", "field=value"),
        ("speed=3", "unknown field 'speed'"),
        ("task_options.size=3", "it takes: batch_size"),
        ("rounds=many", "rounds has the wrong type"),
        ("tolerance=1e-9", "at least 1e-4"),
    ],
)
def test_setting_that_does_not_fit(call, tmp_path, setting, hint):
    """A value that no run can have is named, with what is possible."""
    ended = call("new", "--set", setting, "--identity", tmp_path / "key", "--out", tmp_path / "run.toml")
    assert ended.code == 2
    assert hint in ended.complaint


def test_checkpoint_that_is_none(call, tmp_path):
    """A file that is no checkpoint is named."""
    file = tmp_path / "round-000001.safetensors"
    file.write_bytes(b"junk")
    ended = call("evaluate", file)
    assert ended.code == 2
    assert str(file) in ended.complaint


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["join"], "Missing argument"),
        (["dance"], "No such command"),
        (["new", "--peers", "many"], "btard-peer new --help"),
        (["keygen", "/dev/null/key"], "choose a writable directory"),
        (["evaluate", "/dev/null/none"], "cannot read the checkpoint"),
        (["new", "--run-file", "/dev/null/none"], "make a run file with: btard-peer new"),
    ],
)
def test_mistake_in_the_command_line(call, arguments, hint):
    """A mistake in the command line is one line with the next step."""
    ended = call(*arguments)
    assert ended.code == 2
    assert hint in ended.complaint

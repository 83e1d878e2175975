"""Files are whole or absent, whatever happens while they are written."""

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from btard import durable
from btard.cli.files import read_run_file, write_run_file
from btard.dht.sequence import SequenceFile
from btard.durable import create_secret, replacing, write_durably
from btard.errors import ConfigError
from btard.identity import Identity, load_or_create_identity, save_identity
from btard.rules.config import RunConfig

CONFIG = RunConfig(elements=10, chunk_size=8)

KILLED = """
import os, signal, sys
from pathlib import Path
from btard import durable
durable.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
getattr(durable, sys.argv[1])(Path(sys.argv[2]), b"new")
"""


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond five bytes: what is longer fails midway, as on a full disk."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def list_names(directory: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(path.name for path in directory.iterdir())


def test_a_key_that_found_no_room_is_not_there(tmp_path: Path) -> None:
    """The error says what to do, and the next start makes a key."""
    path = tmp_path / "identity.key"
    with full_disk(), pytest.raises(ConfigError, match=r"cannot write a key to .* free space"):
        save_identity(Identity.generate(), path)
    assert list_names(tmp_path) == []
    assert load_or_create_identity(path).seed == load_or_create_identity(path).seed


def test_a_run_file_that_found_no_room_is_as_it_was(tmp_path: Path) -> None:
    """Neither a cut file, which would be preferred for ever, nor a loss of the one that was there."""
    path = tmp_path / "run.toml"
    with full_disk(), pytest.raises(ConfigError, match=r"cannot write .* free space"):
        write_run_file(CONFIG, path)
    assert list_names(tmp_path) == []
    write_run_file(CONFIG, path)
    with full_disk(), pytest.raises(ConfigError, match=r"cannot write .* free space"):
        write_run_file(RunConfig(elements=20, chunk_size=8), path)
    assert read_run_file(path) == CONFIG
    assert list_names(tmp_path) == ["run.toml"]


def test_a_run_file_is_written_where_a_link_leads(tmp_path: Path) -> None:
    """The link stays one: /dev/stdout is one too."""
    (tmp_path / "link.toml").symlink_to(tmp_path / "run.toml")
    write_run_file(CONFIG, tmp_path / "link.toml")
    assert (tmp_path / "link.toml").is_symlink()
    assert read_run_file(tmp_path / "run.toml") == CONFIG


def test_a_number_that_found_no_room_is_as_it_was(tmp_path: Path) -> None:
    """A full disk is one clear line."""
    path = tmp_path / "sequence"
    SequenceFile(path, lambda: 7).take()
    with full_disk(), pytest.raises(ConfigError, match="free space"):
        SequenceFile(path, lambda: 10**9).take()
    assert path.read_bytes() == b"7\n"


@pytest.mark.parametrize("write", ["write_durably", "create_secret"])
def test_a_kill_amid_a_write_leaves_nothing_under_the_name(write: str, tmp_path: Path) -> None:
    """What it does leave is no obstacle to the next write."""
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", KILLED, write, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    getattr(durable, write)(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_content_then_name_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is flushed before it gets its name, the name after."""
    seen: list[tuple[bool, bool]] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    for number, write in enumerate((write_durably, create_secret)):
        path = tmp_path / str(number)
        write(path, b"data")
    assert seen == 2 * [(False, False), (True, True)]
    assert list_names(tmp_path) == ["0", "1"]


def test_a_write_that_is_broken_off_leaves_no_remains(tmp_path: Path) -> None:
    """Also where it is cancelled."""
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "file") as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list_names(tmp_path) == []


def test_a_secret_replaces_nothing(tmp_path: Path) -> None:
    """Who makes a file at the same moment keeps it."""
    (tmp_path / "key").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        create_secret(tmp_path / "key", b"ours")
    assert (tmp_path / "key").read_bytes() == b"theirs"
    assert list_names(tmp_path) == ["key"]


@pytest.mark.parametrize("size", [3, 5, 8])
def test_a_file_that_nobody_needs_is_written_over(size: int, tmp_path: Path) -> None:
    """Its room is used, whichever of the two is longer; nothing of what it held is left, nor its name."""
    spare, path = tmp_path / "old.bin", tmp_path / "new.bin"
    spare.write_bytes(b"older")
    room = spare.stat().st_ino
    write_durably(path, b"n" * size, spare)
    assert (path.read_bytes(), path.stat().st_ino) == (b"n" * size, room)
    assert list_names(tmp_path) == ["new.bin"]
    write_durably(path, b"once more", spare)  # somebody may have tidied up
    assert path.read_bytes() == b"once more"


def test_the_name_of_what_is_written_over_is_gone_for_good_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss no file is there under its old name with something else in it."""
    spare, path, seen = tmp_path / "old.bin", tmp_path / "new.bin", list[tuple[list[str], bytes]]()
    spare.write_bytes(b"old")

    def look(synced: Path) -> None:
        if synced == tmp_path:
            [name] = list_names(tmp_path)
            seen.append(([name], (tmp_path / name).read_bytes()))

    monkeypatch.setattr(durable, "sync", look)
    write_durably(path, b"new", spare)
    assert seen == [(["new.bin.partial"], b"old"), (["new.bin"], b"new")]

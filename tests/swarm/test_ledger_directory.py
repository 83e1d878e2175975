"""The directory of a ledger: one owner at a time, nothing of somebody else's touched, one clear line where it fails."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from btard.errors import ConfigError
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import LEDGER_FILE

ME = Identity(b"m" * 32)
CONFIG = RunConfig(founder=ME.peer_id.hex(), elements=64, chunk_size=8)


def test_what_is_half_written_is_removed_at_start(tmp_path: Path) -> None:
    """What kills left among evidence, updates and checkpoints does not stay; what is not ours does."""
    half = ("evidence/00.bin.partial", "updates/7.bin.partial", "checkpoints/round-000016.safetensors.partial")
    theirs = ("checkpoints/film.partial", "downloads/round-1.partial")
    for path in (tmp_path / name for name in half + theirs):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    Ledger.create(tmp_path, CONFIG, ME.peer_id).close()
    assert [name for name in half + theirs if (tmp_path / name).exists()] == [*theirs]


def test_second_process_is_refused(tmp_path: Path) -> None:
    """The directory has one owner at a time."""
    with Ledger.create(tmp_path, CONFIG, ME.peer_id), pytest.raises(ConfigError, match="in use by another"):
        Ledger.create(tmp_path, CONFIG, ME.peer_id)
    Ledger.create(tmp_path, CONFIG, ME.peer_id).close()


@pytest.mark.parametrize(
    ("config", "peer", "words"),
    [(replace(CONFIG, seed=1), ME.peer_id, "another run"), (CONFIG, Identity(b"o" * 32).peer_id, "use its identity")],
)
def test_foreign_ledger_is_refused(tmp_path: Path, config: RunConfig, peer: bytes, words: str) -> None:
    """A ledger of another run or key says so, and the directory is free again."""
    Ledger.create(tmp_path, CONFIG, ME.peer_id).close()
    with pytest.raises(ConfigError, match=words):
        Ledger.create(tmp_path, config, peer)  # type: ignore[arg-type]
    Ledger.create(tmp_path, CONFIG, ME.peer_id).close()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + bytes(4000)])
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no ledger gives one clear line."""
    (tmp_path / LEDGER_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="choose another --data-dir"):
        Ledger.create(tmp_path, CONFIG, ME.peer_id)


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    """Somebody else's SQLite file is left alone."""
    with sqlite3.connect(tmp_path / LEDGER_FILE) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    with pytest.raises(ConfigError, match="cannot use"):
        Ledger.create(tmp_path, CONFIG, ME.peer_id)


def test_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A path below a file, or a directory without write permission, gives advice."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another --data-dir"):
        Ledger.create(tmp_path / "file" / "data", CONFIG, ME.peer_id)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_directory_is_refused(tmp_path: Path) -> None:
    """A directory without write permission gives advice."""
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="choose another --data-dir"):
        Ledger.create(tmp_path, CONFIG, ME.peer_id)

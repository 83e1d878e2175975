"""Sequence numbers rise: across restarts, with the clock set back, and without the file."""

from pathlib import Path

import pytest

from btard.dht.sequence import SequenceFile
from btard.errors import ConfigError


def test_numbers_rise_across_a_restart_with_the_clock_set_back(tmp_path: Path) -> None:
    """The file outvotes a clock that went backwards."""
    path = tmp_path / "dht.sequence"
    first = SequenceFile(path, lambda: 1000)
    assert [first.take(), first.take()] == [1000, 1001]
    assert SequenceFile(path, lambda: 10).take() == 1002


def test_numbers_follow_the_clock_without_a_file(tmp_path: Path) -> None:
    """A peer that lost its file is heard again."""
    assert SequenceFile(None, lambda: 1000).take() == 1000
    assert SequenceFile(tmp_path / "new", lambda: 2000).take() == 2000


@pytest.mark.parametrize("content", [b"", b"abc", b"-5", b"9" * 30, b"\xff\x00"])
def test_a_damaged_file_costs_a_warning(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The clock takes over and the file is whole again."""
    path = tmp_path / "dht.sequence"
    path.write_bytes(content)
    assert SequenceFile(path, lambda: 1000).take() == 1000
    assert "damaged" in caplog.text
    assert path.read_bytes() == b"1000\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message says which file and what to do."""
    path = tmp_path / "missing" / "dht.sequence"
    with pytest.raises(ConfigError, match=r"cannot write .*missing.*writable"):
        SequenceFile(path, lambda: 1000).take()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot read"):
        SequenceFile(tmp_path / "folder", lambda: 1000)

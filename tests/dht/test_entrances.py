"""Where to knock: few addresses of one block, on disk, and damage costs a warning only."""

import socket
from pathlib import Path

import pytest
import trio

from btard.dht import entrances
from btard.dht.entrances import MAX_REMEMBERED_PER_BLOCK, Address, Entrances

V4 = socket.AF_INET
ALL = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where nodes are kept."""
    return tmp_path / "nodes.json"


def remembered(doors: Entrances) -> set[Address]:
    """Return every remembered IPv4 address."""
    return set(doors.draw(ALL, V4, ()))


def test_nodes_that_answered_are_there_after_a_restart(path: Path) -> None:
    """Each family apart, without those that are present."""
    homes = [("8.8.8.8", 1), ("9.9.9.9", 2), ("2a00::1", 3)]
    Entrances((), path).note(homes)
    again = Entrances((), path)
    assert remembered(again) == set(homes[:2])
    assert again.draw(ALL, socket.AF_INET6, ()) == [homes[2]]
    assert again.draw(ALL, V4, homes[:1]) == [homes[1]]
    assert len(again.draw(1, V4, ())) == 1


def test_one_block_fills_no_memory(path: Path) -> None:
    """The longest silent of a block gives way to the next of it, and nobody else does."""
    doors = Entrances((), path)
    doors.note([("9.9.9.9", 1), *((f"8.8.8.{number}", 1) for number in range(200))])
    newest = {(f"8.8.8.{number}", 1) for number in range(200 - MAX_REMEMBERED_PER_BLOCK, 200)}
    assert remembered(doors) == newest | {("9.9.9.9", 1)}


def test_the_longest_silent_is_forgotten_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answered again is no longer the oldest."""
    monkeypatch.setattr(entrances, "MAX_REMEMBERED", 3)
    doors = Entrances((), path)
    doors.note((f"8.8.{number}.1", 1) for number in range(3))
    doors.note([("8.8.0.1", 1), ("8.8.9.1", 1)])
    assert remembered(doors) == {("8.8.2.1", 1), ("8.8.0.1", 1), ("8.8.9.1", 1)}


def test_an_address_is_not_knocked_at_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """After many knocks in vain it is forgotten; while we are alone, or once it answered, they do not count."""
    monkeypatch.setattr(entrances, "MAX_KNOCKS", 3)
    doors, home, other = Entrances((), None), ("8.8.8.8", 1), [("9.9.9.9", 1)]
    doors.note([home])
    for present in ([], [], [], [], other, other):
        assert doors.draw(1, V4, present) == [home]
    doors.note([home])
    for _ in range(4):
        assert doors.draw(1, V4, other) == [home]
    assert doors.draw(1, V4, other) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"{}", b"[[1, 2]]", b'[["8.8.8.8", 0]]', b'[["host", 1]]', b"[" * 70_000, b'[["8.8.8.8",1],' * 300],
)
def test_a_damaged_file_costs_a_warning(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The bootstrap addresses remain, and the file is whole again after the next node."""
    path.write_bytes(content)
    doors = Entrances([("127.0.0.1", 4000)], path)
    assert "damaged" in caplog.text
    assert remembered(doors) == set()
    doors.note([("8.8.8.8", 1)])
    assert remembered(Entrances((), path)) == {("8.8.8.8", 1)}


def test_a_full_disk_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Known nodes are a hint: not keeping them stops nothing."""
    doors = Entrances((), tmp_path / "missing" / "nodes.json")
    doors.note([("8.8.8.8", 1)])
    assert "not kept" in caplog.text
    assert remembered(doors) == {("8.8.8.8", 1)}


def test_names_that_nobody_knows_are_left_out() -> None:
    """Literal addresses and known names remain, each once."""
    doors = Entrances([("127.0.0.1", 1), ("127.0.0.1", 1), ("no such host.invalid", 2), ("x" * 300, 3)], None)
    assert trio.run(doors.resolve, V4) == [("127.0.0.1", 1)]

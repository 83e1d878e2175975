"""Checkpoints: whole or absent, and refused when damaged."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from btard.errors import ConfigError
from btard.training.checkpoints import CheckpointSnapshots, load_checkpoint, newest_checkpoint, save_checkpoint
from btard.training.optimizer import OptimizerState
from btard.training.tasks import draw_uniform

X = draw_uniform(bytes(32), 1000)
STATE = OptimizerState(7, {"square": X * X, "mean": X / 2, "step": torch.tensor(7.0)})


def save(directory: Path, at: int = 12) -> Path:
    """Write one checkpoint."""
    return save_checkpoint(directory, at, X, STATE, {"task": "digits"})


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """What is loaded is what was saved, under the documented name."""
    path = save(tmp_path / "checkpoints")
    found = load_checkpoint(path)
    assert path == tmp_path / "checkpoints" / "round-000012.safetensors"
    assert (found.round, found.state.step, found.metadata) == (12, 7, {"task": "digits"})
    assert torch.equal(found.parameters, X)
    assert list(found.state.buffers) == ["mean", "square", "step"]
    assert all(map(torch.equal, found.state.buffers.values(), STATE.buffers.values()))


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    """The file is plain safetensors; the parameters are the tensor ``parameters``."""
    assert torch.equal(safetensors.torch.load_file(save(tmp_path))["parameters"], X)


def test_the_newest_three_are_kept(tmp_path: Path) -> None:
    """Older checkpoints go, by number rather than by spelling; other files stay."""
    (tmp_path / "notes.txt").write_text("mine")
    for at in (999_999, 5, 1_000_000, 1_000_001):
        newest = save(tmp_path, at)
    assert newest_checkpoint(tmp_path) == newest
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt",
        "round-1000000.safetensors",
        "round-1000001.safetensors",
        "round-999999.safetensors",
    ]


def test_nothing_is_newest_where_there_is_nothing(tmp_path: Path) -> None:
    """An empty directory and a missing one both hold no checkpoint."""
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


@pytest.mark.parametrize("position", range(0, 1000, 97))
def test_any_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    """One flipped bit anywhere, header or tensors, and the file is refused."""
    path = save(tmp_path)
    content = bytearray(path.read_bytes())
    content[position * len(content) // 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 7, 300, -1])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    """A truncated file is damage, not a crash."""
    path = save(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ConfigError, match="damaged"):
        load_checkpoint(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """A safetensors file without our header, and no file at all, each say so."""
    safetensors.torch.save_file({"parameters": X}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="not a checkpoint of btard"):
        load_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="cannot read"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails midway leaves the previous content under the name, and no remains."""
    path = save(tmp_path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match=r"No space left.*free space"):
        save_checkpoint(tmp_path, 12, X + 1, STATE, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_directories_are_explained(tmp_path: Path) -> None:
    """A path that cannot be a directory gives one line that says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="another data directory"):
        save(tmp_path / "file")


def test_metadata_cannot_replace_our_header(tmp_path: Path) -> None:
    """The key ``btard`` is taken."""
    with pytest.raises(ConfigError, match="may not use"):
        save_checkpoint(tmp_path, 1, X, STATE, {"btard": "mine"})


def test_snapshots_are_the_checkpoints_that_are_whole(tmp_path: Path) -> None:
    """A restart finds every checkpoint by its number of rounds, and a damaged one is as good as none."""
    for number in (16, 32):
        save_checkpoint(tmp_path, number, torch.full((3,), float(number)), OptimizerState(number), {})
    snapshots = CheckpointSnapshots(tmp_path)
    assert snapshots.rounds() == (16, 32)
    found = snapshots.load(16)
    assert found is not None
    assert (found[0].tolist(), found[1].step) == ([16.0] * 3, 16)
    (tmp_path / "round-000032.safetensors").write_bytes(b"damaged")
    assert snapshots.load(32) is None


def test_a_mapped_checkpoint_is_what_was_saved(tmp_path: Path) -> None:
    """Step, parameters and buffers are the file's own bytes, and nothing is read that is no checkpoint."""
    path = save(tmp_path, 16)
    snapshots = CheckpointSnapshots(tmp_path)
    mapped = snapshots.map(16)
    assert mapped is not None
    assert mapped.step == STATE.step
    assert bytes(mapped.parameters) == X.numpy().tobytes()
    assert {name: bytes(view) for name, view in mapped.buffers.items()} == {
        name: buffer.numpy().tobytes() for name, buffer in STATE.buffers.items()
    }
    assert snapshots.map(32) is None
    whole = path.read_bytes()
    for damaged in (b"", whole[:4], whole[:60], b"\xff" * 8 + whole[8:], whole[:8] + b"[]" + whole[10:]):
        path.write_bytes(damaged)
        assert snapshots.map(16) is None


@pytest.mark.parametrize(
    "entry", ["{}", '{"dtype":"F64","data_offsets":[0,8]}', '{"dtype":"F32","data_offsets":[0,999]}']
)
def test_a_header_that_leads_elsewhere(entry: str, tmp_path: Path) -> None:
    """Tensors of another type or outside the file are not mapped."""
    header = '{"__metadata__":{"btard":"{\\"step\\":1}"},"parameters":' + entry + "}"
    data = len(header).to_bytes(8, "little") + header.encode() + bytes(16)
    (tmp_path / "round-000016.safetensors").write_bytes(data)
    assert CheckpointSnapshots(tmp_path).map(16) is None

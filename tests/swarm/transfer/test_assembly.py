"""A vector in a file: only what has its hash is held, however it came there."""

import os
from pathlib import Path

import pytest
import torch

from btard.errors import ConfigError
from btard.rules.merkle import compute_leaves
from btard.swarm.joining.assembly import Arrival, Assembly
from btard.swarm.state import as_bytes

VALUES = torch.arange(1, 101, dtype=torch.float32)  # ten chunks of ten, the last one whole
CHUNK_BYTES = 40


def make(path: Path, values: torch.Tensor = VALUES) -> Assembly:
    """The assembly of a vector of which nothing is here but its leaves."""
    leaves = b"".join(compute_leaves(as_bytes(values), 0, CHUNK_BYTES))
    return Assembly(path / "deep" / "vector.bin", values.numel(), leaves, CHUNK_BYTES)


def arrive(assembly: Assembly, chunks: range, values: torch.Tensor = VALUES) -> bool:
    """Have chunks arrive; return whether they were right."""
    return pass_through(assembly, chunks, as_bytes(values)[chunks.start * CHUNK_BYTES : chunks.stop * CHUNK_BYTES])


def pass_through(assembly: Assembly, chunks: range, data: memoryview) -> bool:
    """Have the bytes of chunks arrive, all at once; return whether they were right."""
    arrival = Arrival(assembly, chunks, data)
    arrival.take(len(data))
    return arrival.is_right()


def test_it_is_complete_when_every_chunk_was_kept(tmp_path: Path) -> None:
    """What is missing is told in pieces of bounded length, around what is held."""
    assembly = make(tmp_path)
    assert assembly.open() == 0
    assert list(assembly.find_missing(4)) == [range(4), range(4, 8), range(8, 10)]
    for chunks in (range(3, 5), range(9, 10)):
        assert arrive(assembly, chunks)
        assembly.keep(chunks)
    assert list(assembly.find_missing(4)) == [range(3), range(5, 9)]
    assert not arrive(assembly, range(10), VALUES + 1)
    assert arrive(assembly, range(10))
    assembly.keep(range(10))
    assert assembly.is_complete
    assert torch.equal(assembly.read(), VALUES)
    assembly.close()


def test_what_is_in_the_file_is_believed_for_its_hash(tmp_path: Path) -> None:
    """A later process finds the right chunks and no others, though nobody wrote down which they are."""
    first = make(tmp_path)
    first.open()
    assert arrive(first, range(2, 6))
    os.pwrite(first._file, b"x", 4 * CHUNK_BYTES + 3)
    first.close()
    second = make(tmp_path)
    assert second.open() == 3 * CHUNK_BYTES
    assert list(second.find_missing(10)) == [range(2), range(4, 5), range(6, 10)]
    second.close()


def test_a_file_of_another_length_is_begun_anew(tmp_path: Path) -> None:
    """It belongs to something else."""
    first = make(tmp_path)
    first.open()
    arrive(first, range(10))
    first.close()
    shorter = make(tmp_path, VALUES[:-5])
    assert shorter.open() == 0
    assert shorter.count_bytes(range(8, 10)) == CHUNK_BYTES + 20
    shorter.close()


def test_what_was_read_outlives_the_file(tmp_path: Path) -> None:
    """The memory is the reader's, also after the file is closed and gone."""
    assembly = make(tmp_path)
    assembly.open()
    assert arrive(assembly, range(10))
    assembly.keep(range(10))
    values = assembly.read()
    assembly.close()
    assembly._path.unlink()
    assert torch.equal(values, VALUES)


def test_what_is_done_to_the_vector_stays_in_memory(tmp_path: Path) -> None:
    """The file keeps what has the right hash, for a later process."""
    assembly = make(tmp_path)
    assembly.open()
    assert arrive(assembly, range(10))
    assembly.keep(range(10))
    assembly.read().mul_(2.0)
    assert torch.equal(assembly.read(), VALUES)
    assembly.close()


def test_a_vector_outlives_a_file_of_another_length(tmp_path: Path) -> None:
    """The place of a vector that is still in use is given to another one: it is not cut off from its bytes."""
    first = make(tmp_path)
    first.open()
    assert arrive(first, range(10))
    first.keep(range(10))
    values = first.read()
    first.close()
    shorter = make(tmp_path, VALUES[:-5])
    shorter.open()
    assert torch.equal(values, VALUES)
    shorter.close()


def test_more_than_is_written_at_once(tmp_path: Path) -> None:
    """Several writes and a rest are in the file alike, and a later process finds them."""
    values = torch.arange(20_000, dtype=torch.float32)
    leaves = b"".join(compute_leaves(as_bytes(values), 0, 32_768))
    for _ in range(2):
        assembly = Assembly(tmp_path / "vector.bin", 20_000, leaves, 32_768)
        kept = assembly.open()
        assert pass_through(assembly, range(2), as_bytes(values)[:65_536])
        assert pass_through(assembly, range(2, 3), as_bytes(values)[65_536:])
        assembly.close()
    assert kept == 80_000
    assert (tmp_path / "vector.bin").read_bytes() == bytes(as_bytes(values))


def test_only_what_was_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed early costs the next one no reading of a file that is empty for the most part."""
    values = torch.arange(80_000, dtype=torch.float32)
    leaves = b"".join(compute_leaves(as_bytes(values), 0, 32_768))
    for _ in range(2):
        first = Assembly(tmp_path / "vector.bin", 80_000, leaves, 32_768)
        assert first.open() == 0
    assert pass_through(first, range(2, 3), as_bytes(values)[65_536:98_304])
    first.close()
    read: list[int] = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, offset: read.append(offset) or preadv(file, views, offset))
    second = Assembly(tmp_path / "vector.bin", 80_000, leaves, 32_768)
    assert second.open() == 32_768
    assert 65_536 in read
    assert len(read) < 10
    second.close()


def test_a_vector_of_no_numbers(tmp_path: Path) -> None:
    """It is complete at once."""
    assembly = make(tmp_path, torch.empty(0))
    assert assembly.open() == 0
    assert assembly.is_complete
    assert assembly.read().shape == (0,)
    assembly.close()


def test_no_room(tmp_path: Path) -> None:
    """The error says how much is needed, before anything is asked for."""
    huge = Assembly(tmp_path / "vector.bin", 2**58, bytes(32), 2**60)
    with pytest.raises(ConfigError, match=f"the state needs {2**60} bytes there"):
        huge.open()
    huge.close()


@pytest.mark.parametrize("wrong", [None, 0, 1, 4])
@pytest.mark.parametrize("window", [2, 5])
def test_chunks_pass_through_a_window(tmp_path: Path, wrong: int | None, window: int) -> None:
    """Memory for two chunks is enough for five; of a piece with a wrong chunk only those before are held."""
    assembly, data = make(tmp_path), bytearray(as_bytes(VALUES)[: 5 * CHUNK_BYTES])
    assembly.open()
    if wrong is not None:
        data[wrong * CHUNK_BYTES] ^= 1
    memory = memoryview(bytearray(window * CHUNK_BYTES))
    arrival = Arrival(assembly, range(5), memory)
    for position in range(0, len(data), 20):
        memory[position % len(memory) :][:20] = data[position : position + 20]
        arrival.take(position + 20)
    assert arrival.is_right() == (wrong is None)
    assembly.close()
    assert make(tmp_path).open() == CHUNK_BYTES * (5 if wrong is None else wrong)


def test_a_piece_that_broke_off_is_not_right(tmp_path: Path) -> None:
    """All chunks that came are right, but one is missing."""
    assembly = make(tmp_path)
    assembly.open()
    arrival = Arrival(assembly, range(5), as_bytes(VALUES)[: 5 * CHUNK_BYTES])
    arrival.take(5 * CHUNK_BYTES - 1)
    assert not arrival.is_right()
    assembly.close()

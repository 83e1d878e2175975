"""What words bind us to is on disk with them, comes back as it was received, and goes when its rounds are over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trio
from msgspec.structs import replace

from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.merkle import compute_root
from btard.rules.messages import Commit
from btard.rules.parts import Part
from btard.swarm.binding import find_committed, recall_bound
from btard.swarm.bound_data import Bound, BoundData, make_bound_gradient, make_bound_part, make_bound_slice
from btard.swarm.compute import InlineCompute
from btard.swarm.gather import Parts
from btard.swarm.ledger import Ledger
from btard.swarm.ledger_files import SMALL_BLOB, UPDATES_DIRECTORY
from btard.swarm.scatter import Piece, Slices
from btard.swarm.state import as_bytes, commit_to

ME, OTHER = (Identity(letter * 32).peer_id for letter in (b"m", b"o"))
CHUNKS, ROUND, ATTEMPT = range(2, 5), 7, 3
SIZES = pytest.mark.parametrize("chunk_size", [8, SMALL_BLOB], ids=["small", "large"])


class Scene:
    """The slices and aggregates of one start of a member, and what its words bind it to."""

    def __init__(self, directory: Path, chunk_size: int = 8) -> None:
        self.config = RunConfig(founder=ME.hex(), genesis_size=2, elements=6 * chunk_size, chunk_size=chunk_size)
        self.gradient = commit_to(torch.arange(6.0 * chunk_size), chunk_size)
        self.root = self.gradient.tree.root
        self.part = Part(1, OTHER, CHUNKS, 2 * chunk_size, 5 * chunk_size, 1.0, 1.0)
        self.values = self.gradient.values[2 * chunk_size : 5 * chunk_size]
        self.ledger = Ledger.create(directory, self.config, ME)
        self.bound = BoundData(directory, self.ledger, InlineCompute())
        self.files = directory / UPDATES_DIRECTORY
        hub: Any = SimpleNamespace(bulk={}, serve={})
        self.slices = Slices(self.config, hub, lambda: None, lambda *_: True, lambda _peer: True)
        self.parts = Parts(self.config, hub, lambda: None, lambda _peer: True)

    def make_slice(self) -> Bound:
        """Another's slice."""
        return make_bound_slice(ROUND, self.root, Piece(CHUNKS, self.values, self.gradient.tree.prove(CHUNKS)))

    async def keep(self, *items: Bound, number: int = ROUND, attempt: int = ATTEMPT) -> None:
        """Be bound to them by the next message."""
        later = self.bound.keep(number, attempt, items)
        if later is not None:
            await later()

    async def recall(self) -> None:
        """Hold what is on disk."""
        await recall_bound(SimpleNamespace(bound=self.bound, slices=self.slices, parts=self.parts, me=ME))  # type: ignore[arg-type]

    def has_slice(self) -> bool:
        """Whether the slice is held, proof and all."""
        piece = self.slices.find_piece(ROUND, self.root, CHUNKS)
        return piece is not None and torch.equal(piece.values, self.values)

    def count_files(self) -> int:
        """How many files hold such data."""
        return len(list(self.files.glob("bound-*.bin")))


@contextmanager
def start(directory: Path, chunk_size: int = 8) -> Iterator[Scene]:
    """Start a member on its directory; an error within is a crash."""
    scene = Scene(directory, chunk_size)
    with scene.ledger:
        yield scene


@SIZES
async def test_a_slice_and_an_aggregate_come_back(chunk_size: int, tmp_path: Path) -> None:
    """The slice with its proof, the aggregate for its root: both can be sent again."""
    with start(tmp_path, chunk_size) as scene:
        aggregate = make_bound_part(ROUND, ATTEMPT, 1, as_bytes(scene.values))
        await scene.keep(scene.make_slice(), aggregate)
        assert scene.count_files() == (2 if chunk_size == SMALL_BLOB else 0)
    with start(tmp_path, chunk_size) as scene:
        await scene.recall()
        assert scene.has_slice()
        root = compute_root(as_bytes(scene.values), 4 * chunk_size)
        held = scene.parts.get(ROUND, ATTEMPT, scene.part, root)
        assert held is not None and torch.equal(held, scene.values)


@SIZES
async def test_a_crash_before_the_word_leaves_nothing(chunk_size: int, tmp_path: Path) -> None:
    """The next start removes the file that no row speaks of."""
    with pytest.raises(KeyError), start(tmp_path, chunk_size) as scene:
        await scene.keep(scene.make_slice())
        raise KeyError
    with start(tmp_path, chunk_size) as scene:
        await scene.recall()
        assert not scene.has_slice()
        assert scene.count_files() == 0


@pytest.mark.parametrize("left", [b"", b"123", bytes(12 * SMALL_BLOB), None])
async def test_what_was_damaged_is_not_believed(left: bytes | None, tmp_path: Path) -> None:
    """Then others are asked for it, like for all that a restart lost."""
    with start(tmp_path, SMALL_BLOB) as scene:
        await scene.keep(scene.make_slice())
        (file,) = scene.files.glob("bound-*.bin")
        if left is None:
            file.unlink()
        else:
            file.write_bytes(left)
    with start(tmp_path, SMALL_BLOB) as scene:
        await scene.recall()
        assert not scene.has_slice()


@SIZES
@pytest.mark.parametrize(
    ("number", "attempt", "is_kept"),
    [
        (ROUND, ATTEMPT, True),
        (ROUND, ATTEMPT + 1, True),
        (ROUND, ATTEMPT + 2, False),
        (ROUND + 1, ATTEMPT, True),
        (ROUND + 2, ATTEMPT, False),
    ],
)
async def test_two_rounds_and_two_attempts_are_kept(
    number: int, attempt: int, is_kept: bool, chunk_size: int, tmp_path: Path
) -> None:
    """A round may be run again, and nothing of a new attempt is on disk before its first word."""
    with start(tmp_path, chunk_size) as scene:
        await scene.keep(scene.make_slice())
        scene.bound.forget(number, attempt)
        assert scene.count_files() == (chunk_size == SMALL_BLOB and is_kept)
    with start(tmp_path, chunk_size) as scene:
        await scene.recall()
        assert scene.has_slice() == is_kept


async def test_new_data_takes_the_place_of_old(tmp_path: Path) -> None:
    """However many attempts there are."""
    with start(tmp_path, SMALL_BLOB) as scene:
        for attempt in range(5):
            payload = as_bytes(torch.full((SMALL_BLOB,), float(attempt)))
            await scene.keep(make_bound_part(ROUND, attempt, 1, payload), attempt=attempt)
            await scene.keep(scene.make_slice(), attempt=attempt)
        assert scene.count_files() == 3
        assert len(scene.ledger.bound.read()) == 3


async def test_nothing_is_written_where_nothing_binds(tmp_path: Path) -> None:
    """Neither a row nor a file, nor a transaction."""
    with start(tmp_path) as scene:
        assert scene.bound.keep(ROUND, ATTEMPT, ()) is None
        scene.bound.forget(ROUND + 5, ATTEMPT)
        assert not scene.ledger._database.in_transaction
        assert not scene.files.exists()


async def test_a_write_that_is_given_up_binds_to_nothing(tmp_path: Path) -> None:
    """The attempt is over by then, though a thread writes to its end."""
    scope = trio.CancelScope()

    class Unstoppable(InlineCompute):
        async def run(self, work: Callable[[], Any]) -> Any:
            scope.cancel()
            return work()

    with start(tmp_path, SMALL_BLOB) as scene:
        scene.bound = BoundData(tmp_path, scene.ledger, Unstoppable())
        with scope:
            await scene.keep(scene.make_slice())
        assert scope.cancelled_caught
        assert scene.ledger.bound.read() == []
        assert scene.count_files() == 1
        scene.bound.forget(ROUND + 2, ATTEMPT)
        assert scene.count_files() == 0


@SIZES
async def test_our_gradient_comes_back_whatever_attempt_it_is(chunk_size: int, tmp_path: Path) -> None:
    """It is dropped when the round after its own is over."""
    said = Commit(b"", False, (), b"s" * 32, b"g" * 64, False)
    with start(tmp_path, chunk_size) as scene:
        gradient = make_bound_gradient(ROUND, scene.gradient, 6)
        later = scene.bound.keep(ROUND, ATTEMPT, [gradient], is_lasting=True)
        if later is not None:
            await later()
        await scene.keep(scene.make_slice(), attempt=ATTEMPT + 5)
    with start(tmp_path, chunk_size) as scene:
        await scene.recall()
        held: Any = SimpleNamespace(slices=scene.slices, config=scene.config)
        found = find_committed(held, ROUND, replace(said, root=scene.root))
        assert found is not None
        assert torch.equal(found.values, scene.gradient.values)
        assert found.tree.root == scene.root
        assert find_committed(held, ROUND, said) is None
        scene.bound.forget(ROUND + 2, ATTEMPT)
        assert await scene.bound.load() == []

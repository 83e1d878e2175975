"""The colluders' board of notes: whole notes, by topic and author, in one process or in several."""

import pytest
import trio

from btard.attacks import DirectoryCoalition, SharedCoalition
from btard.attacks.coalition import wait_for_note
from btard.identity import Identity

ALICE, BOB = (Identity(bytes([k]) * 32).peer_id for k in (1, 2))


@pytest.fixture(params=["shared", "directory"])
def boards(request, tmp_path):
    """Return two members' views of one board."""
    if request.param == "shared":
        board = SharedCoalition()
        return board, board
    return DirectoryCoalition(tmp_path / "board"), DirectoryCoalition(tmp_path / "board")


def test_notes_are_read_as_written(boards):
    """A note comes back bit by bit, beside those of others on the same topic and no other topic's."""
    mine, theirs = boards
    mine.put("round-1", ALICE, (0.1, -1e300, 3.0))
    theirs.put("round-1", BOB, ())
    mine.put("round-10", BOB, (1.0,))
    assert theirs.get("round-1") == mine.get("round-1") == {ALICE: (0.1, -1e300, 3.0), BOB: ()}
    assert mine.get("round-2") == {}


def test_a_note_is_replaced_whole(boards):
    """The author's newest note counts, and no draft is left to be read."""
    mine, theirs = boards
    mine.put("members", ALICE, (1.0,))
    mine.put("members", ALICE, (2.0, 3.0))
    assert theirs.get("members") == {ALICE: (2.0, 3.0)}


async def test_waiting_ends_with_the_note_or_the_time(boards, autojump_clock):
    """A note that comes in time is returned; one that never comes costs the time allowed, and no more."""
    mine, theirs = boards
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def write() -> None:
            await trio.sleep(0.5)
            mine.put("cover", ALICE, (4.0,))

        assert await wait_for_note(theirs, "cover", ALICE, 1.0) == (4.0,)
    started = trio.current_time()
    assert await wait_for_note(theirs, "cover", BOB, 1.0) is None
    assert trio.current_time() - started == pytest.approx(1.0)

"""Solving: on all cores, beside the network, told honestly, interrupted at any moment and gone on with."""

import math
from dataclasses import replace

import pytest
import trio

from btard.identity import JoinTicket, PeerId, Puzzle, TicketTerms, find_flaw
from btard.identity.work import find_identity_nonce
from btard.swarm.compute import InlineCompute
from btard.training.notebook import MAX_FILE, NOTEBOOK_FILE, Notebook
from btard.training.solving import SAVE_REPORTS, Solving, make_lanes, solve_ticket, work_for_identity

ME, RUN = PeerId(b"m" * 32), b"r" * 32
TERMS = TicketTerms(RUN, 0, 8, 64)
PUZZLE = Puzzle(RUN, ME, 5, 12, b"q" * 32, 8, 6)
HOPELESS = replace(PUZZLE, bits=60)


class SlowCompute:
    """Takes 100 virtual milliseconds for each piece of work."""

    def __init__(self):
        self.done = 0

    async def run(self, work):
        await trio.sleep(0.1)
        self.done += 1
        return work()


def forget(_progress):
    """Hear nothing."""


def open_notebook(folder, peer=ME, run_id=RUN):
    """The notebook in a data directory."""
    return Notebook(folder / NOTEBOOK_FILE, peer, run_id)


async def search_for(seconds, puzzle, notebook, lanes, tell=forget):
    """Search until it succeeds or time is up; return the ticket, if any."""
    with trio.move_on_after(seconds):
        return await solve_ticket(lambda: puzzle, lanes, notebook, tell)
    return None


@pytest.mark.parametrize("cores", [1, 3])
async def test_the_ticket_found_is_good(tmp_path, cores):
    """Threads search, and a member finds nothing wrong with what they find."""
    notebook = open_notebook(tmp_path)
    ticket = await solve_ticket(lambda: PUZZLE, make_lanes(cores), notebook, forget)
    assert find_flaw(ticket, TERMS, 12, PUZZLE.q, PUZZLE.bits) is None
    assert open_notebook(tmp_path).ticket == notebook.ticket == ticket


async def test_no_solution_is_missed(tmp_path):
    """On one lane the lowest solution is found, after exactly as many evaluations."""
    lowest = next(nonce for nonce in range(10_000) if PUZZLE.is_solved_by(nonce))
    notebook = open_notebook(tmp_path)
    ticket = await solve_ticket(lambda: PUZZLE, [InlineCompute()], notebook, forget)
    assert ticket.nonce == lowest
    assert notebook.evaluations == lowest + 1


async def test_a_second_ticket_is_another_one(tmp_path):
    """Whoever has no luck in the draw goes on behind the solution that it has."""
    notebook, tickets = open_notebook(tmp_path), set()
    for _ in range(3):
        tickets.add(await solve_ticket(lambda: PUZZLE, [InlineCompute()], notebook, forget))
    assert len(tickets) == 3


async def test_all_lanes_work(autojump_clock, tmp_path):
    """Four lanes do four times as much, and no nonce twice."""
    lanes = [SlowCompute() for _ in range(4)]
    notebook = open_notebook(tmp_path)
    await search_for(10.05, HOPELESS, notebook, lanes)
    assert [lane.done for lane in lanes] == [100] * 4
    assert notebook.find_start(HOPELESS) == notebook.evaluations == 400


async def test_an_interrupted_search_goes_on(autojump_clock, tmp_path):
    """A second process begins where the first ended: every nonce is tried once, and the count goes on."""
    solution = next(nonce for nonce in range(40, 10_000) if PUZZLE.is_solved_by(nonce))
    target = replace(PUZZLE, bits=60)
    await search_for(0.1 * solution + 0.05, target, open_notebook(tmp_path), [SlowCompute()])
    again = open_notebook(tmp_path)
    assert again.find_start(target) == again.evaluations == solution
    lane = SlowCompute()
    assert (await search_for(100, PUZZLE, again, [lane])).nonce == solution
    assert lane.done == 1


async def test_a_killed_search_loses_seconds(autojump_clock, tmp_path):
    """The file is written every few reports, so whoever is killed goes on from there."""
    async with trio.open_nursery() as nursery:
        notebook = open_notebook(tmp_path)
        nursery.start_soon(search_for, 1000, HOPELESS, notebook, [SlowCompute()])
        await trio.sleep(3 * SAVE_REPORTS + 0.5)
        on_disk = open_notebook(tmp_path)
        assert 10 * 3 * SAVE_REPORTS - 2 <= on_disk.find_start(HOPELESS) <= 10 * 3 * SAVE_REPORTS
        nursery.cancel_scope.cancel()


async def test_cancelling_waits_for_no_more_than_the_evaluation_under_way(tmp_path):
    """Real threads stop at once, and everything that they tried is noted."""
    notebook = open_notebook(tmp_path)
    with trio.move_on_after(0.2):
        await solve_ticket(lambda: HOPELESS, make_lanes(2), notebook, forget)
    assert notebook.evaluations == notebook.find_start(HOPELESS) > 0


async def test_a_newer_round_is_begun_with_and_told(autojump_clock, tmp_path):
    """When the draw changes the search starts anew on it, says so once, and the count of work goes on."""
    newer = replace(HOPELESS, round=20, q=b"p" * 32)
    heard = []
    begun = trio.current_time()
    notebook = open_notebook(tmp_path)
    with trio.move_on_after(6.55):
        await solve_ticket(
            lambda: HOPELESS if trio.current_time() < begun + 2.55 else newer, [SlowCompute()], notebook, heard.append
        )
    assert [progress.round for progress in heard] == [12, 12, 20, 20, 20, 20]
    assert [progress.is_new_round for progress in heard] == [False, False, True, False, False, False]
    assert notebook.evaluations == 65
    assert notebook.find_start(newer) == 39
    assert notebook.find_start(HOPELESS) == 0


async def test_a_solution_of_the_round_before_still_counts(autojump_clock, tmp_path):
    """An evaluation that was under way when the round changed is not thrown away."""
    first = replace(PUZZLE, bits=0)
    newer = replace(HOPELESS, round=20, q=b"p" * 32)
    puzzles = iter([first, first])
    ticket = await solve_ticket(
        lambda: next(puzzles, newer), [SlowCompute(), SlowCompute()], open_notebook(tmp_path), forget
    )
    assert ticket == JoinTicket(ME, 12, 5, 0)


async def test_the_estimate_is_honest(autojump_clock, tmp_path):
    """2^bits evaluations on average at the rate of late, three times that with 95%, the same at every moment."""
    heard = []
    await search_for(60.5, HOPELESS, open_notebook(tmp_path), [SlowCompute()], heard.append)
    rates = [progress.per_second for progress in heard]
    assert rates == pytest.approx([10] * len(heard), abs=1.1)
    assert heard[-1].mean_s == pytest.approx(2**60 / rates[-1])
    assert heard[-1].likely_s == pytest.approx(-math.log(0.05) * heard[-1].mean_s)
    assert heard[-1].evaluations == pytest.approx(600, abs=10)


async def test_the_rate_follows_the_machine(autojump_clock, tmp_path):
    """Other work on the machine shows within half a minute."""
    heard = []
    begun = trio.current_time()

    class Tiring(SlowCompute):
        async def run(self, work):
            await trio.sleep(0.3 if trio.current_time() > begun + 40 else 0)
            return await super().run(work)

    await search_for(80, HOPELESS, open_notebook(tmp_path), [Tiring()], heard.append)
    assert heard[30].per_second == pytest.approx(10, rel=0.1)
    assert heard[-1].per_second == pytest.approx(2.5, rel=0.1)


def test_without_a_rate_nothing_is_promised():
    """Before the first evaluation ends no time is named."""
    assert Solving(12, 0, 0.0, 4096).mean_s == math.inf


async def test_identity_work_is_done_once(tmp_path):
    """The notebook has it for every later run, unless that asks for more."""
    lane = SlowCompute()
    nonce = await work_for_identity(ME, 10, InlineCompute(), open_notebook(tmp_path))
    assert find_identity_nonce(ME, 10, nonce, 1) == nonce
    assert await work_for_identity(ME, 10, lane, open_notebook(tmp_path, run_id=b"s" * 32)) == nonce
    assert lane.done == 0
    harder = await work_for_identity(ME, 14, InlineCompute(), open_notebook(tmp_path))
    assert find_identity_nonce(ME, 14, harder, 1) == harder


def leave_work(folder):
    """A notebook after some work."""
    notebook = open_notebook(folder)
    notebook.note_identity(5)
    notebook.note_search(PUZZLE, 40, 41, PUZZLE.make_ticket(7))


@pytest.mark.parametrize(
    "change",
    [{"run_id": b"s" * 32}, {"identity_nonce": 6}, {"round": 13}, {"q": b"p" * 32}],
    ids=lambda change: next(iter(change)),
)
def test_work_on_another_puzzle_is_none(tmp_path, change):
    """Nothing is skipped but what was tried on this very puzzle."""
    leave_work(tmp_path)
    assert open_notebook(tmp_path).find_start(PUZZLE) == 40
    assert open_notebook(tmp_path).find_start(replace(PUZZLE, **change)) == 0


def test_ticket_that_got_us_a_place_is_spent(tmp_path):
    """Whoever comes back needs another one; the nonces that were tried are not tried again."""
    leave_work(tmp_path)
    open_notebook(tmp_path).spend_ticket()
    notebook = open_notebook(tmp_path)
    assert (notebook.ticket, notebook.find_start(PUZZLE), notebook.evaluations) == (None, 40, 41)
    Notebook(None, ME, PUZZLE.run_id).spend_ticket()


def test_another_key_or_run_begins_anew(tmp_path):
    """A copied directory with another key has nothing; another run has only the identity work."""
    leave_work(tmp_path)
    other, later = open_notebook(tmp_path, peer=PeerId(b"o" * 32)), open_notebook(tmp_path, run_id=b"s" * 32)
    assert (other.identity_nonce, other.ticket, other.evaluations) == (None, None, 0)
    assert (later.identity_nonce, later.ticket, later.evaluations) == (5, None, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 4000,
        b"null",
        b'{"peer": 3}',
        b"\xff\xfe",
        b'{"peer": "bQ==", "search": {}}',
        b" " * (MAX_FILE + 1),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_notebook_is_an_empty_one(tmp_path, content):
    """It is worth some work, not an error."""
    (tmp_path / NOTEBOOK_FILE).write_bytes(content)
    notebook = open_notebook(tmp_path)
    assert (notebook.identity_nonce, notebook.ticket, notebook.find_start(PUZZLE)) == (None, None, 0)


def test_a_notebook_that_cannot_be_written_is_kept_in_memory(tmp_path):
    """A full disk does not end the search."""
    notebook = Notebook(tmp_path / "missing" / NOTEBOOK_FILE, ME, RUN)
    notebook.note_search(PUZZLE, 40, 41, None)
    assert notebook.find_start(PUZZLE) == 40


def test_the_largest_notebook_can_be_read(tmp_path):
    """Whatever the numbers, what is written fits the limit."""
    top = 2**53 - 1
    notebook = open_notebook(tmp_path)
    notebook.note_identity(top)
    notebook.note_search(replace(PUZZLE, identity_nonce=top, round=top), top, top, JoinTicket(ME, top, top, top))
    assert (tmp_path / NOTEBOOK_FILE).stat().st_size < MAX_FILE / 4
    assert open_notebook(tmp_path).evaluations == top

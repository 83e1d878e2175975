"""
What it costs to join, and what it costs the members that somebody does.

    memory    CPU milliseconds of one evaluation of Argon2id, by the memory that it fills; how much of them the
              system takes, mostly to hand out that memory: what a solver that keeps its memory saves
    ratio     what a ticket costs to solve and to verify at the default difficulty: counted, and by the clock
    cheap     CPU microseconds to refuse what a glance refuses, and the hashes per second of identity work
    solve     tickets solved on 1, 2 ... cores with fewer bits, scaled to the default: evaluations per second, and
              how far the evaluations needed are from 2^bits

CPU time does not depend on what else the machine does; seconds do, and so does the gain from a second core.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Annotated, Any

import msgspec
import trio
import typer
from typer import Option

from benchmarks.report import describe, write
from btard.identity import JoinTicket, PeerId, Puzzle, TicketTerms, find_flaw
from btard.identity.work import find_cheap_flaw, find_identity_nonce
from btard.rules.config import RunConfig
from btard.training.notebook import Notebook
from btard.training.solving import make_lanes, solve_ticket

MEMORIES_KIB = (1024, 2048, 4096, 8192, 16_384, 32_768)
ME, RUN, Q = PeerId(b"m" * 32), b"r" * 32, b"q" * 32
ROUND = 100
HASHES = 1 << 18
CHEAP_REPEATS = 20_000

Result = dict[str, Any]


def measure_cpu(work: Callable[[int], object], repeats: int) -> list[float]:
    """Return the CPU seconds of each of ``repeats`` calls, in ascending order; the first, not counted, warms up."""
    work(0)
    times = []
    for number in range(1, repeats + 1):
        begun = time.thread_time()
        work(number)
        times.append(time.thread_time() - begun)
    return sorted(times)


def measure_memory(repeats: int) -> Result:
    """Return the cost of one evaluation for each size of memory."""
    puzzle, result = Puzzle(RUN, ME, 0, ROUND, Q, 8, 0), {}
    for memory in MEMORIES_KIB:
        begun = getrusage(RUSAGE_SELF)
        times = measure_cpu(replace(puzzle, memory_kib=memory).evaluate, repeats)
        ended = getrusage(RUSAGE_SELF)
        user_s, system_s = ended.ru_utime - begun.ru_utime, ended.ru_stime - begun.ru_stime
        result[f"{memory} KiB"] = {
            "cpu_ms_median": to_ms(statistics.median(times)),
            "cpu_ms_min": to_ms(times[0]),
            "system_share": round(system_s / (user_s + system_s), 2),
        }
    return result


def measure_ratio(config: RunConfig, repeats: int) -> Result:
    """Return the work of solving and of verifying at the difficulty of ``config``."""
    terms = TicketTerms(RUN, config.identity_bits, config.ticket_memory_kib, config.ticket_window)
    identity = find_identity_nonce(ME, config.identity_bits, 0, 1 << 40)
    assert identity is not None
    ticket = JoinTicket(ME, ROUND, identity, 0)
    verify_s = statistics.median(
        measure_cpu(
            lambda nonce: find_flaw(msgspec.structs.replace(ticket, nonce=nonce), terms, ROUND, Q, config.ticket_bits),
            repeats,
        )
    )
    puzzle = Puzzle(RUN, ME, identity, ROUND, Q, terms.memory_kib, config.ticket_bits)
    evaluate_s = statistics.median(measure_cpu(puzzle.evaluate, repeats))
    expected = 1 << config.ticket_bits
    return {
        "evaluations_to_solve": expected,
        "evaluations_to_verify": 1,
        "verify_cpu_ms": to_ms(verify_s),
        "solve_cpu_s": round(expected * evaluate_s, 1),
        "solve_over_verify_by_cpu": round(expected * evaluate_s / verify_s),
    }


def measure_cheap(config: RunConfig) -> Result:
    """Return what refusing at a glance costs, and identity work."""
    terms = config.ticket_terms
    ticket = JoinTicket(ME, ROUND, 0, 0)
    stale_s = measure_cpu(lambda _: repeat(lambda: find_cheap_flaw(ticket, terms, 10 * ROUND, Q)), 5)[0]
    idle_s = measure_cpu(lambda _: repeat(lambda: find_cheap_flaw(ticket, terms, ROUND, Q)), 5)[0]
    hashing_s = measure_cpu(lambda number: find_identity_nonce(ME, 64, number * HASHES, HASHES), 3)[0]
    return {
        "stale_refused_us": round(1e6 * stale_s / CHEAP_REPEATS, 2),
        "missing_identity_work_refused_us": round(1e6 * idle_s / CHEAP_REPEATS, 2),
        "identity_hashes_per_cpu_s": round(HASHES / hashing_s),
        "identity_cpu_s_at_default": round((1 << config.identity_bits) * hashing_s / HASHES, 2),
    }


def repeat(work: Callable[[], object]) -> None:
    """Do ``work`` many times."""
    for _ in range(CHEAP_REPEATS):
        work()


async def measure_solving(config: RunConfig, cores: int, bits: int, tickets: int) -> Result:
    """Return how ``tickets`` are solved one after another on ``cores`` threads, with fewer bits."""
    evaluations, begun, cpu_begun = 0, time.perf_counter(), time.process_time()
    for number in range(tickets):
        puzzle = Puzzle(RUN, ME, number, ROUND, Q, config.ticket_memory_kib, bits)
        notebook = Notebook(None, ME, RUN)
        await solve_ticket(lambda puzzle=puzzle: puzzle, make_lanes(cores), notebook, lambda _: None)
        evaluations += notebook.evaluations
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
    return {
        "cores": cores,
        "bits": bits,
        "tickets": tickets,
        "evaluations_per_ticket_over_expected": round(evaluations / tickets / (1 << bits), 3),
        "evaluations_per_s": round(evaluations / wall_s, 1),
        "cpu_ms_per_evaluation": to_ms(cpu_s / evaluations),
        "cores_got": round(cpu_s / wall_s, 2),
        "scaled_to_default_wall_s": round((1 << config.ticket_bits) * wall_s / evaluations, 1),
        "scaled_to_default_cpu_s": round((1 << config.ticket_bits) * cpu_s / evaluations, 1),
    }


def to_ms(seconds: float) -> float:
    """Return milliseconds with two digits."""
    return round(1e3 * seconds, 2)


def play(name: str, measure: Callable[..., Result], *words: Any) -> Result:
    """Measure and print."""
    print(f"{name} ...", flush=True)
    result = measure(*words)
    print(json.dumps(result, indent=2), flush=True)
    return result


def run(
    bits: Annotated[int, Option(min=1, max=20, help="difficulty of the tickets that are really solved")] = 5,
    tickets: Annotated[int, Option(min=1, help="solved on each number of cores")] = 24,
    cores: Annotated[list[int] | None, Option(help="numbers of cores to solve on; several times for several")] = None,
    repeats: Annotated[int, Option(min=3, help="evaluations for each median")] = 25,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure what a join ticket and identity work cost, at the defaults of a run file."""
    config = RunConfig()
    result: Result = {
        **describe("join"),
        "defaults": {name: getattr(config, name) for name in ("identity_bits", "ticket_bits", "ticket_memory_kib")},
        "memory": play("memory", measure_memory, repeats),
        "ratio": play("ratio", measure_ratio, config, repeats),
        "cheap": play("cheap", measure_cheap, config),
        "solve": [
            play(f"solve on {count}", trio.run, measure_solving, config, count, bits, tickets)
            for count in cores or (1, 2)
        ],
    }
    write(path, result)


if __name__ == "__main__":
    typer.run(run)

"""
CenteredClip with all its checks beside the direct loop.

The fast side checks every row for finiteness, finds the medoid, runs to convergence and recomputes
the residual in float64 from the final aggregate. The direct loop gets the medoid for free, checks
nothing, and stops when its own float32 residual is as small. ByzFL's CenteredClipping, where it is
installed (``nox -s byzfl`` runs this with it), starts at zero, makes a fixed number of steps and checks
nothing either. Sides take turns; page faults are removed for all by running again with a malloc that keeps its memory.
"""

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from torch import Tensor
from typer import Option

from benchmarks.report import Result, compute_median, compute_ratios, describe, format_table, shorten, write
from btard.robust import Clipped, compute_centered_clip, compute_residual, compute_residual_bound

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
TAUS = (1.0, 0.8, 0.6, 0.5, 0.2)
MAX_ITERATIONS = 10_000
OURS = "btard"


class Step(StrEnum):
    """What the direct loop divides the sum of clipped differences by."""

    PAPER = "paper"
    """The number of rows, as published."""

    REWEIGHTED = "reweighted"
    """The sum of the weights: the same fixed point in fewer steps."""


@dataclass(frozen=True)
class Problem:
    """``rows``: (L,) float32 each; honest ones share a mean of norm 1 and have noise of norm 1."""

    rows: list[Tensor]
    medoid: Tensor


def make_problem(peers: int, byzantine: int, elements: int, scale: float, seed: int) -> Problem:
    """Return honest rows and ``byzantine`` last ones that push along one direction ``scale`` times as far."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(peers + 2, elements, generator=generator) / elements**0.5
    rows = [noise[peers] + noise[index] for index in range(peers - byzantine)]
    rows += [scale * (noise[peers + 1] + 0.1 * noise[peers - 1 - index]) for index in range(byzantine)]
    distances = torch.cdist(torch.stack(rows), torch.stack(rows), compute_mode="donot_use_mm_for_euclid_dist")
    medians = distances.sort(dim=1).values[:, peers // 2]
    return Problem(rows, rows[int(medians.argmin())].clone())


def run_direct_loop(
    rows: Tensor, start: Tensor, tau: float, epsilon: float, kind: Step, scratch: Tensor
) -> tuple[Tensor, int]:
    """Return CenteredClip of ``rows`` (n, L) by direct iteration in float32, and its number of steps."""
    count, x, steps = len(rows), start.clone(), 0
    while True:
        steps += 1
        torch.sub(rows, x, out=scratch)
        weights = (tau / torch.linalg.vector_norm(scratch, dim=1).clamp_(min=1e-30)).clamp_(max=1.0)
        step = weights @ scratch
        # The same bound as the fast side's: below it float32 cannot tell whether it still moves.
        bound = compute_residual_bound(float(x.norm()), count, tau, epsilon)
        if float(step.norm()) <= bound or steps == MAX_ITERATIONS:
            return x, steps
        x.add_(step, alpha=1 / (float(weights.sum()) if kind is Step.REWEIGHTED else count))


Rival = Callable[[Tensor, float], Tensor]
"""Returns the aggregate of rows (n, L) for a clipping radius."""


def find_byzfl(steps: int) -> Rival | str:
    """Return ByzFL's CenteredClipping with so many steps, or why it cannot run.

    Its package imports a training loop and torchvision; its aggregators need neither, so they are taken alone.
    """
    found = importlib.util.find_spec("byzfl")
    if found is None:
        return "it is not installed here; nox -s byzfl makes an environment with it and runs this"
    package = ModuleType("byzfl")
    package.__path__ = list(found.submodule_search_locations or ())
    sys.modules["byzfl"] = package
    try:
        aggregators = importlib.import_module("byzfl.aggregators.aggregators")
    except ImportError as error:
        return f"it cannot be imported: {error}"
    return lambda rows, tau: aggregators.CenteredClipping(L=steps, tau=tau)(rows)


def measure(function: Callable[[], object]) -> float:
    """Return the milliseconds one call takes."""
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1e3


def compare(problem: Problem, tau: float, epsilon: float, kind: Step, repeats: int, byzfl: Rival | str) -> Result:
    """Return the figures for one radius: milliseconds of each side, our time over theirs, residuals over the bound."""
    matrix = torch.stack(problem.rows)
    scratch = torch.empty_like(matrix)

    def run_fast() -> Clipped:
        return compute_centered_clip(problem.rows, tau, epsilon)

    def run_direct() -> tuple[Tensor, int]:
        return run_direct_loop(matrix, problem.medoid, tau, epsilon, kind, scratch)

    (direct, steps), aggregates = run_direct(), {OURS: run_fast().aggregate}
    aggregates["direct"] = direct
    sides: dict[str, Callable[[], object]] = {OURS: run_fast, "direct": run_direct}
    if not isinstance(byzfl, str):
        sides["byzfl"] = partial(byzfl, matrix, tau)
        aggregates["byzfl"] = byzfl(matrix, tau)
    turns = [{name: measure(side) for name, side in sides.items()} for _ in range(repeats)]
    times = {name: [turn[name] for turn in turns] for name in sides}
    results = {
        name: summarise(times[name], compute_ratio(problem.rows, aggregates[name], tau, epsilon)) for name in sides
    }
    ratios = {name: compute_ratios(times[OURS], times[name]) for name in sides if name != OURS}
    return {"tau": tau, "direct_steps": steps, "results": results, "ratios": ratios}


def summarise(times: Sequence[float], over_bound: float) -> Result:
    """Return what is told of one side: milliseconds, and the true residual of its aggregate over the bound."""
    return {
        "median_ms": round(compute_median(times), 2),
        "min_ms": round(min(times), 2),
        "residual_over_bound": float(f"{over_bound:.3g}"),
    }


def compute_ratio(rows: Sequence[Tensor], aggregate: Tensor, tau: float, epsilon: float) -> float:
    """Return the float64 residual over the bound that Verification 1 allows."""
    norm = float(aggregate.double().norm())
    return compute_residual(rows, aggregate, tau) / compute_residual_bound(norm, len(rows), tau, epsilon)


def format_result(result: Result) -> str:
    """Return the result as Markdown; a gain is the other's time over ours, of the turn in the middle."""
    names = list(result["cases"][0]["results"])
    rows = [
        [
            float(case["tau"]), case["direct_steps"],
            *(case["results"][name]["median_ms"] for name in names),
            *(1 / case["ratios"][name]["median"] for name in names if name != OURS),
            *(case["results"][name]["residual_over_bound"] for name in names),
        ]
        for case in result["cases"]
    ]  # fmt: skip
    headings = ["tau", "steps of direct", *(f"{name} ms" for name in names)]
    headings += [f"gain over {name}" for name in names if name != OURS]
    headings += [f"residual of {name} over the bound" for name in names]
    lines = [
        f"`{result['command']}`  ",
        f"{result['machine']}, torch {result['torch']}, commit {shorten(result['commit'])}",
    ]
    lines += ["", f"{result['peers']} rows ({result['byzantine']} Byzantine) of {result['elements']} elements", ""]
    lines += [format_table(headings, rows), ""]
    return "\n".join(lines + [f"- {name}: {reason}" for name, reason in result["reasons"].items()])


def main(
    peers: Annotated[int, Option(help="rows per part")] = 16,
    byzantine: Annotated[int, Option(help="rows that push in one direction")] = 7,
    elements: Annotated[int, Option(help="elements per row")] = 1_000_000,
    scale: Annotated[float, Option(help="length of the Byzantine rows; honest ones have length 1.4")] = 1000.0,
    epsilon: Annotated[float, Option(help="stopping residual in units of tau")] = 1e-6,
    threads: Annotated[int, Option(help="torch threads; a peer uses one")] = 1,
    kind: Annotated[
        Step, Option("--step", help="what the direct loop divides by: n, or the weights' sum")
    ] = Step.PAPER,
    repeats: Annotated[int, Option(help="interleaved runs of each side")] = 7,
    byzfl_steps: Annotated[int, Option(help="steps of ByzFL's CenteredClipping, if it is installed")] = 11,
    seed: Annotated[int, Option(help="seed of the rows")] = 0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure CenteredClip against the direct loop and ByzFL, once for each of five clipping radii."""
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.clip", *sys.argv[1:]], {**os.environ, **MALLOC})  # noqa: S606, ourselves
    torch.set_num_threads(threads)
    problem, byzfl = make_problem(peers, byzantine, elements, scale, seed), find_byzfl(byzfl_steps)
    result = describe("clip", seed)
    result |= {"peers": peers, "byzantine": byzantine, "elements": elements, "threads": threads, "step": kind.value}
    result["torch"] = torch.__version__
    result["reasons"] = {"byzfl": byzfl} if isinstance(byzfl, str) else {}
    result["cases"] = []
    for tau in TAUS:
        print(f"tau {tau:g} ...", file=sys.stderr, flush=True)
        result["cases"].append(compare(problem, tau, epsilon, kind, repeats, byzfl))
    write(path, result)
    print(format_result(result))


if __name__ == "__main__":
    typer.run(main)

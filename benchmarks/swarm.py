"""
How a swarm scales: real processes as far as the machine carries, the simulator beyond, a cost model beyond that.

    processes   N processes over loopback, round after round: all share this machine's cores
    simulated   the real peer code on a virtual clock, every peer verifying for itself: CPU seconds, bytes, hops
    modelled    what benchmarks/model.py makes of those; fitted at some sizes, held against the largest one measured

With ``--simulate`` all sizes are simulated, else those that the memory does not hold. Seconds of a round on links of
their own are projected for every row: all that is sent, computed and waited for, one after another.
"""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from typer import Option

from benchmarks.contest import OURS, Task, open_contest
from benchmarks.drawing import draw_lines
from benchmarks.model import Costs, compute_error, compute_seconds, count_data_bytes, evaluate, fit_exponent
from benchmarks.report import Result, describe, format_table, shorten, write
from benchmarks.swarm_simulation import simulate
from btard.identity import Identity, is_signed_by

LEAST = 3
"""Simulated sizes that the model is fitted to: the largest but one and those below; the largest is held against it."""
MODELLED = (128, 256, 512, 1024)
LINKS = {"100 Mbit/s": 100e6, "1 Gbit/s": 1e9}
LATENCY_S = 0.05
"""One way, between two peers anywhere."""
PROCESS_BYTES = 160 << 20
"""Memory of a process of its own before its first vector; the libraries are there once."""
VECTORS = 14
"""Vectors of length D that a process may hold at the peak."""

Row = dict[str, Any]


def read_sizes(text: str) -> list[int]:
    """Return the numbers in a list with commas, in ascending order.

    Raises:
        BadParameter: one is no number above 1.
    """
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers with commas") from None
    if sizes[0] < 2:
        raise typer.BadParameter("a swarm and a vector have at least 2")
    return sizes


def find_free_memory() -> int:
    """Return the bytes that new processes may take."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def find_needed_memory(peers: int, elements: int) -> int:
    """Return the bytes that so many processes may take."""
    return peers * (PROCESS_BYTES + VECTORS * 4 * elements)


def measure_processes(peers: int, elements: int, rounds: int, seed: int, directory: Path | None) -> Row:
    """Return the row of a swarm of real processes."""
    with open_contest(Task(peers, elements, seed), (), {}, directory) as contest:
        contest.play(2, rounds)
        ours = contest.sum_up()["results"][OURS]
    wanted = "median_ms", "cpu_s_per_peer", "bytes_data", "bytes_protocol", "rss_bytes", "reason"
    row = {"peers": peers, "elements": elements, "how": "processes", "is_interrupted": contest.is_interrupted}
    return row | {key: ours[key] for key in wanted if key in ours}


def measure_simulated(peers: int, elements: int, rounds: int, seed: int) -> Row:
    """Return the row of a simulated swarm."""
    costs = {key: round(value, 5) for key, value in simulate(peers, elements, rounds, seed).items()}
    return {"peers": peers, "elements": elements, "how": "simulated", **costs}


def measure_signatures() -> Result:
    """Return the CPU microseconds of a signature and of its verification here."""
    identity, count = Identity(bytes(32)), 2000
    started = time.thread_time()
    signatures = [identity.sign(number.to_bytes(200, "little")) for number in range(count)]
    signed = time.thread_time()
    for number, signature in enumerate(signatures):
        is_signed_by(identity.peer_id, number.to_bytes(200, "little"), signature)
    return {"sign_us": 1e6 * (signed - started) / count, "verify_us": 1e6 * (time.thread_time() - signed) / count}


def model(rows: Sequence[Row]) -> tuple[Costs | None, list[Row], Result]:
    """Return the costs fitted to simulated rows, the modelled rows, and how the largest simulated one was predicted."""
    simulated = sorted((row for row in rows if row["how"] == "simulated"), key=lambda row: row["peers"])
    if len(simulated) < LEAST:
        return None, [], {"reason": f"the model is fitted at {LEAST} simulated sizes; {len(simulated)} are there"}
    held_out = simulated[-1] if len(simulated) > LEAST else None
    chosen = [row for row in simulated if row is not held_out][-LEAST:]
    costs = Costs.fit(
        chosen[0]["elements"],
        [row["peers"] for row in chosen],
        [row["bytes_protocol"] for row in chosen],
        [row["cpu_s_per_peer"] for row in chosen],
        max(row["hops"] for row in chosen),
    )
    measured = {row["peers"] for row in simulated}
    modelled = [predict(costs, peers) for peers in MODELLED if peers not in measured]
    return costs, modelled, {"fitted_at": [row["peers"] for row in chosen], **_find_errors(costs, held_out)}


def _find_errors(costs: Costs, held_out: Row | None) -> Result:
    if held_out is None:
        return {"reason": f"no size but the {LEAST} fitted ones was simulated"}
    predicted, keys = predict(costs, held_out["peers"]), ("bytes_protocol", "bytes_data", "cpu_s_per_peer")
    return {"of": held_out["peers"]} | {key: round(compute_error(predicted[key], held_out[key]), 4) for key in keys}


def predict(costs: Costs, peers: int) -> Row:
    """Return the row that the model gives."""
    return {
        "peers": peers,
        "elements": costs.elements,
        "how": "modelled",
        "cpu_s_per_peer": round(evaluate(costs.cpu_s, peers), 5),
        "bytes_data": round(count_data_bytes(peers, costs.elements)),
        "bytes_protocol": round(costs.protocol_bytes(peers)),
        "hops": costs.hops,
    }


def complete(row: Row, hops: float) -> Row:
    """Return the row with its protocol's share of the bytes and the seconds that a round takes on links of its own."""
    if "cpu_s_per_peer" not in row:
        return row
    sent, hops = row["bytes_data"] + row["bytes_protocol"], row.get("hops", hops)
    cpu_s = row["cpu_s_per_peer"]
    projected = {name: round(compute_seconds(hops, LATENCY_S, sent, speed, cpu_s), 3) for name, speed in LINKS.items()}
    return {**row, "protocol_share": round(row["bytes_protocol"] / sent, 4), "projected_s": projected}


def fit(rows: Sequence[Row]) -> Result:
    """Return the exponents of n (largest vector) and of D (largest swarm) that the figures of each kind of row show."""
    fits: Result = {}
    for how in dict.fromkeys(row["how"] for row in rows):
        kind = [row for row in rows if row["how"] == how and "cpu_s_per_peer" in row]
        for along, across in (("peers", "elements"), ("elements", "peers")):
            most = max((row[across] for row in kind), default=0)
            line = [row for row in kind if row[across] == most]
            for key in ("bytes_protocol", "bytes_data", "cpu_s_per_peer"):
                exponent = fit_exponent([row[along] for row in line], [row[key] for row in line])
                if exponent is not None:
                    fits[f"{how}: {key} in {along}"] = exponent
    return fits


def draw(rows: Sequence[Row]) -> str:
    """Return a plot of the bytes that a peer sends in a round, by how they were found."""
    kinds = dict.fromkeys((row["how"], key) for row in rows for key in ("bytes_data", "bytes_protocol"))
    series = {}
    for how, key in kinds:
        points = [(row["peers"], row[key]) for row in rows if row["how"] == how and key in row]
        series[f"{key.removeprefix('bytes_')}, {how}"] = points
    return draw_lines("Bytes sent per peer and round", series, "peers", "bytes")


HEADINGS = ("peers", "elements", "how", "median_ms", "cpu_s_per_peer", "bytes_data", "bytes_protocol", "protocol_share")


def format_result(result: Result) -> str:
    """Return the result as Markdown."""
    rows = [
        [*(row.get(key) for key in HEADINGS), *(row.get("projected_s", {}).get(name) for name in LINKS)]
        for row in result["rows"]
    ]
    lines = [f"`{result['command']}`  ", f"{result['machine']}, commit {shorten(result['commit'])}", ""]
    lines += [format_table([*HEADINGS, *(f"s on {name}" for name in LINKS)], rows), ""]
    lines += [f"- {row['peers']} processes: {row['reason']}" for row in result["rows"] if "reason" in row]
    lines += ["", format_table(["exponent of", ""], result["fits"].items())]
    lines += ["", f"prediction: {result['prediction']}", f"model: {result['model']}"]
    return "\n".join(lines)


def measure_all(
    sizes: Sequence[tuple[int, int]], rounds: int, seed: int, directory: Path | None, *, simulated: bool
) -> list[Row]:
    """Return a row for every (peers, elements); Ctrl-C leaves what there is."""
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for peers, elements in sizes:
            print(f"{peers} peers, {elements} elements ...", file=sys.stderr, flush=True)
            needed, free = find_needed_memory(peers, elements), find_free_memory()
            if not simulated and needed > free:
                reason = f"they may take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; simulated instead"
                rows.append({"peers": peers, "elements": elements, "how": "processes", "reason": reason})
            if simulated or needed > free:
                rows.append(measure_simulated(peers, elements, rounds, seed))
            else:
                rows.append(measure_processes(peers, elements, rounds, seed, directory))
            if rows[-1].pop("is_interrupted", False):
                break
            print(f"    {rows[-1]}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted: what there is", file=sys.stderr)
    return rows


def main(
    peers: Annotated[str, Option(help="sizes of the swarm, commas between")] = "4,8,16",
    elements: Annotated[str, Option(help="lengths D of the vector, commas between")] = "100000",
    simulate_all: Annotated[  # noqa: FBT002 - a flag
        bool, Option("--simulate", help="simulate all sizes; three fit the model, a fourth is held against it")
    ] = False,
    rounds: Annotated[int, Option(min=1, help="rounds that count")] = 3,
    seed: Annotated[int, Option(help="of vectors and keys")] = 0,
    directory: Annotated[
        Path | None, Option(exists=True, help="where ledgers and aggregates are written; else where temporary files go")
    ] = None,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
    svg: Annotated[Path | None, Option(help="where to draw bytes per peer over the size of the swarm")] = None,
) -> None:
    """Measure swarms of several sizes, fit what they cost, and project it."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    result = describe("swarm", seed)
    sizes = [(count, length) for length in read_sizes(elements) for count in read_sizes(peers)]
    rows = measure_all(sizes, rounds, seed, directory, simulated=simulate_all)
    costs, modelled, errors = model(rows)
    hops = max((row["hops"] for row in rows if "hops" in row), default=6.0)
    result |= {
        "signatures": measure_signatures(),
        "rows": [complete(row, hops) for row in (*rows, *modelled)],
        "fits": fit(rows),
        "model": {"bytes_to_each": costs.bytes_to_each, "cpu_s": costs.cpu_s, "hops": hops} if costs else None,
        "prediction": errors,
    }
    write(path, result)
    if svg is not None:
        svg.write_text(draw(result["rows"]), "utf-8")
    print(format_result(result))


if __name__ == "__main__":
    typer.run(main)

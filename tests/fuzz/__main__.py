"""
Throw malformed bytes at a live peer, and see that nothing comes of it.

A swarm of three honest peers and one attacker trains over TCP in another process. One of the honest is the
victim of whoever has not completed a handshake (noise, truncated, replayed, half-open, dripping), of
authenticated strangers, and of the attacker, a member whose hub also sends what no honest peer would.
Wrong is: a traceback, an honest peer that leaves, rounds that stop, memory that grows. Should an honest peer leave, the
verdict says whether Delta was kept, and if not, whether the attack or the machine kept the target waiting. Counted is
only what no correct peer would send; well-formed questions and repetitions are thrown too.
"""

import argparse
import json
import sys
from pathlib import Path

import structlog
import trio
from tests.fuzz.attack import Attack
from tests.fuzz.summary import Summary


def show(summary: Summary) -> None:
    """Print where the attack stands, every ten seconds or so."""
    if len(summary.statuses) % 20 == 1:
        last = summary.statuses[-1]
        figures = f"{summary.frames:,} frames, swarm {last['epoch']}, {last['rounds']} rounds"
        worst = f"{last['delay']:.2f} s delay, {last['stall']:.2f} s stall, load {last['load']:.1f}"
        sys.stdout.write(
            f"{summary.seconds:6.0f} s: {figures}, {last['rss'] >> 20} MiB, {last['links']} links, {worst}\n"
        )
        sys.stdout.flush()


def main() -> None:
    """Parse the command line, attack, print; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="frames the peer must have read (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="of what is thrown; the timing is not repeatable")
    parser.add_argument("--guided", type=int, default=20_000, help="inputs tried to grow the corpus by coverage")
    parser.add_argument("--seconds", type=float, default=7200, help="stop after so long in any case (default 7200)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    summary = trio.run(Attack(options.frames, options.seed, options.guided, show, options.seconds).run)
    text = json.dumps(summary.as_json(), indent=1)
    sys.stdout.write(text + "\n")
    if options.json:
        options.json.write_text(text + "\n")
    sys.exit(1 if summary.violations else 0)


if __name__ == "__main__":
    main()

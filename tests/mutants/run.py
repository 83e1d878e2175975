"""
Break one rule at a time and see which test notices: ``nox -s mutants``.

Each mutant is a copy of the sources with one replacement; the tests that the catalogue names run against
it, unchanged. A mutant that survives makes the exit status 1. Tests that fail without any mutant make the
whole run worthless, so they are run first.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600.0
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class End:
    """What became of a mutant: the first test that noticed it, or None."""

    mutant: Mutant
    killer: str | None
    wall_s: float


def apply(mutant: Mutant, sources: Path) -> None:
    """Break the rule in a copy of ``src``.

    Raises:
        ValueError: the text to replace does not occur exactly once.
    """
    path = sources / "btard" / mutant.path
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.path} has {text.count(mutant.old)} places like: {mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new))


def run_tests(sources: Path, tests: Sequence[str]) -> str | None:
    """Return the first test that fails against these sources, or None if all pass."""
    environment = {**os.environ, "PYTHONPATH": f"{sources}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *tests]
    try:
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no end within {TIMEOUT_S:.0f} s"
    if result.returncode == 0:
        return None
    found = FAILED.search(result.stdout)
    return found[1] if found else f"pytest exit status {result.returncode}: {result.stdout[-300:]}"


def try_mutant(mutant: Mutant) -> End:
    """Return what became of one mutant."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        sources = Path(directory) / "src"
        shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
        apply(mutant, sources)
        killer = run_tests(sources, mutant.tests)
    return End(mutant, killer, time.monotonic() - started)


def check_sound(mutants: Sequence[Mutant]) -> str | None:
    """Return a test that fails although nothing is broken, if there is one."""
    return run_tests(ROOT / "src", sorted({test for mutant in mutants for test in mutant.tests}))


def main() -> int:
    """Try the chosen mutants and print what killed each; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at the same time")
    parser.add_argument("--skip-sound", action="store_true", help="do not run the tests without any mutant first")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    if not options.skip_sound and (broken := check_sound(chosen)):
        print(f"without any mutant, {broken} fails: mend that first")
        return 2
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for number, end in enumerate(pool.map(try_mutant, chosen), 1):
            survivors += end.killer is None
            verdict = f"killed by {end.killer}" if end.killer else "SURVIVED"
            print(
                f"{number}/{len(chosen)} {end.mutant.name} ({end.mutant.source}): {verdict}, {end.wall_s:.0f} s",
                flush=True,
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

"""The table over many demos, on results that were made up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def attacker(first: int, banned: int | None, removed: int | None = None) -> dict:
    """Return what the table reads of one attacker."""
    left = {"banned_in_round": banned, "removed_in_round": removed}
    return {"byzantine": True, "attacked_from_round": first, **left}


def write_result(directory: Path, name: str, accuracy: float, *attackers: dict, verdict: str = "ok") -> None:
    """Write what the table reads of one demo."""
    report = {
        "verdict": verdict,
        "reasons": [],
        "peers": list(attackers),
        "false_bans": 0,
        "false_removals": 0,
        "accuracy": accuracy,
        "round_ms": {"median": 150.0, "p90": 200.0},
        "wall_s": 40.0,
        "state_digests": ["ab"],
    }
    (directory / f"{name}.json").write_text(json.dumps(report))


def run_table(directory: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the benchmark on what lies in a directory."""
    command = [sys.executable, "-m", "benchmarks.attack_table", "--directory", str(directory), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)


@pytest.fixture
def cells(tmp_path):
    """The cells of the table over two seeds of two kinds, by kind."""
    for seed, accuracy in ((0, 0.97), (1, 0.95)):
        write_result(tmp_path, f"clean-btard-{seed}", accuracy)
        write_result(tmp_path, f"sign-flip-btard-{seed}", accuracy - 0.01, attacker(5, 6 + seed), attacker(5, 10))
        write_result(tmp_path, f"sign-flip-none-{seed}", 0.1, attacker(5, None), verdict="no defence")
    write_result(tmp_path, "withhold-btard-0", 0.96, attacker(5, None, 5))
    done = run_table(tmp_path, "--kinds", "sign-flip,withhold", "--seeds", "2", "--no-run")
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return {row[0]: row for row in rows}


def test_bans_and_rounds_are_counted(cells):
    """A line counts runs, attackers that acted, bans, and the rounds until they were gone."""
    assert cells["sign-flip"][1:8] == ["2/2", "4", "4", "0", "0", "0", "3.2 ± 2.0"]
    assert cells["withhold"][1:8] == ["1/1", "1", "0", "1", "0", "0", "0.0"]


def test_accuracy_is_compared_seed_by_seed(cells):
    """Accuracy is given with its range, beside the same seeds without attackers and without defence."""
    assert cells["clean"][8:11] == ["96.0 (95.0 to 97.0)", "", ""]
    assert cells["sign-flip"][8:11] == ["95.0 (94.0 to 96.0)", "-1.0 (-1.0)", "10.0 (10.0 to 10.0)"]


def test_what_is_there_is_not_run_again(tmp_path):
    """With all results present nothing is run, and nothing is changed."""
    for name in ("clean-btard-0", "equivocate-btard-0"):
        write_result(tmp_path, name, 0.9)
    done = run_table(tmp_path, "--kinds", "equivocate", "--seeds", "1", "--no-undefended")
    assert done.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean-btard-0.json", "equivocate-btard-0.json"]

"""Real processes over TCP: a stranger joins while the run goes on, and one that does no work stays outside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PEERS, ROUNDS = 4, 100


@pytest.mark.timeout(300)
def test_a_late_joiner_becomes_a_member_and_a_sybil_does_not(tmp_path: Path) -> None:
    """With the ticket alone one of two strangers comes in and ends with the state of all; the other is banned."""
    result = tmp_path / "out.json"
    command = [sys.executable, "-m", "btard.cli", "demo", "--peers", str(PEERS), "--byzantine", "0", "--quiet"]
    command += ["--late-joiners", "1", "--sybils", "1", "--rounds", str(ROUNDS)]
    command += ["--json", str(result), "--data-dir", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(result.read_text())
    (joiner,), (sybil,) = report["late_joiners"], report["sybils"]
    assert joiner["promoted_in_round"] - joiner["joined_in_round"] > report["joining"]["probation"]
    assert [joiner["state"]] == report["state_digests"]
    assert (sybil["promoted_in_round"], sybil["ended"]) == (None, "banned")
    assert sybil["rejected"] == "banned: false-gradient"
    assert "late joiners that became members: 1 of 1" in done.stdout

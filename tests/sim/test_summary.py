"""What many runs covered, added up from forged reports."""

import json
import sys

import pytest

from btard.cli.simulate_many import main
from btard.sim.law import Law, compute_chance
from btard.sim.summary import Summary


def report(adversaries, *, peers=5, bans=(), removals=(), acts=None, **changes):
    """Return the JSON of a report; ``bans`` and ``removals`` are pairs of peer and round."""
    scenario = {"peers": peers, "adversaries": adversaries, "faults": ["loss"], "is_synchronous": True}
    return {
        "seed": 1,
        "scenario": scenario | {key: changes.pop(key) for key in list(changes) if key in scenario},
        "bans": [{"peer": peer, "round": number} for peer, number in bans],
        "removals": [{"peer": peer, "round": number} for peer, number in removals],
        "acts": dict.fromkeys(adversaries, 2) if acts is None else acts,
        "rounds_done": 10,
        "violations": [],
        **changes,
    }


def test_a_peer_of_two_kinds_counts_for_both_and_once_in_the_total():
    """Each kind has the fates of its own peers and the rounds and recoveries of its seeds, each seed once."""
    summary = Summary()
    kinds = {"1": "equivocate+flap", "2": "flap", "3": "flap"}
    summary.add(report(kinds, bans=[(1, 3)], removals=[(2, 4)], recoveries=6, fallbacks=2))
    flap, equivocate, total = summary.adversaries["flap"], summary.adversaries["equivocate"], summary.total
    fates = {"peers": 3, "acted": 3, "banned": 1, "removed": 1, "stayed": 1}
    both = {"rounds_done": 10, "recoveries": 6, "fallbacks": 2, "bans": 1, "removals": 1}
    assert (flap.seeds, +flap.counts) == (1, fates | both)
    assert (equivocate.counts["peers"], equivocate.counts["banned"], equivocate.counts["removed"]) == (1, 1, 0)
    assert (total.seeds, +total.counts) == (1, fates | both)


def test_runs_without_adversaries_and_kinds_that_never_came_up_have_rows():
    """What was not covered is as plain as what was."""
    summary = Summary()
    summary.add(report({}, faults=[], recoveries=3))
    assert summary.adversaries["none"].counts == summary.faults["none"].counts
    assert summary.adversaries["none"].counts["recoveries"] == 3
    rows = [line.split() for line in summary.describe()]
    assert ["halt-always", *9 * ["0"]][:9] in [row[:9] for row in rows]
    assert ["partition", "0"] in [row[:2] for row in rows]


def test_the_tables_can_be_made_again_without_playing(tmp_path, monkeypatch, capsys):
    """From the lines that a campaign wrote come its tables, its failures, and its exit code."""
    broken = {"invariant": "progress", "round": 7, "detail": "it stands still"}
    path = tmp_path / "campaign.jsonl"
    path.write_text("".join(json.dumps(report({"1": "flap"}, violations=found)) + "\n" for found in ([], [broken])))
    monkeypatch.setattr(sys, "argv", ["simulate_many", "--summarise", str(path)])
    assert main() == 1
    told = capsys.readouterr().out
    assert "seed 1: progress, round 7: it stands still" in told
    assert f"{'all together':<24}{2:>8}{20:>14}" in told


def test_an_attacker_of_gradients_is_exposed_until_it_leaves():
    """Expected are the chances of every round from the first act on, of the roster as it was in that round."""
    law = Law()
    law.add(report({"1": "sign-flip"}, bans=[(1, 5)], removals=[(0, 4)]))
    assert (law.attackers, law.rounds, law.bans) == (1, 3, 1)
    assert law.expected == pytest.approx(2 * compute_chance(5, 1) + compute_chance(4, 1))
    assert compute_chance(16, 7) == pytest.approx(1 / 15 * 9 / 16)


@pytest.mark.parametrize(
    "result",
    [
        report({"1": "sign-flip"}, is_synchronous=False),
        report({"1": "sign-flip+flap"}),
        report({"1": "sign-flip"}, acts={}),
    ],
    ids=["without synchrony", "of two kinds", "without an act"],
)
def test_the_law_is_silent_on_others(result):
    """Who may have left for another reason, or never cheated, is not counted."""
    law = Law()
    law.add(result)
    assert law == Law()


def test_too_few_bans_are_noticed():
    """Attackers that stay for long in many runs break the law; those that are caught in time do not."""
    kept, broken = Law(), Law()
    for number in range(60):
        broken.add(report({"1": "sign-flip"}))
        kept.add(report({"1": "sign-flip"}, bans=[(1, 3 + number % 8)]))
    assert broken.expected > 10
    assert not broken.is_kept
    assert kept.is_kept
    assert "too few bans" in broken.describe()

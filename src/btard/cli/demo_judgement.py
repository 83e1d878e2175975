"""The result of a demo as JSON values, and the judgement on it: a pure function of those values alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from btard.cli.exits import ExitCode

WITHHOLDING = frozenset({"withhold", "withhold-reveal"})
"""Attacks of which all one can see is silence: a removal is all that they deserve."""


class PeerReport(TypedDict):
    """One peer of the demo. ``ended`` is one word: finished, banned, removed, interrupted, ...;
    ``opponent`` stood against it in the dispute that it lost.
    """

    id: str
    byzantine: bool
    attack: str | None
    attacked_from_round: int | None
    banned_in_round: int | None
    removed_in_round: int | None
    cause: str | None
    opponent: str | None
    ended: str
    ledger: str


class NewcomerReport(TypedDict):
    """One stranger of the demo: a late joiner, or a Sybil. The rounds are those of members' seals.

    ``joined_in_round`` admitted it as a candidate, from ``promoted_in_round`` on it was a member. ``rejected`` says why
    it did not become one: banned, lapsed (without blame), not through probation in time, or never admitted;
    ``rejected_in_round`` is when, if there was such a round. ``state`` is what it finished with.
    """

    id: str
    comes_after_round: int
    joined_in_round: int | None
    promoted_in_round: int | None
    rejected: str | None
    rejected_in_round: int | None
    ended: str
    state: str | None
    ledger: str


class RoundTimes(TypedDict):
    """Milliseconds per round, over all rounds of all honest peers; None if there was none."""

    median: float | None
    p90: float | None


class RoundBytes(TypedDict):
    """Bytes sent per honest peer and round; None if none finished."""

    data: float | None
    protocol: float | None


class Report(TypedDict):
    """What ``demo --json`` writes. ``exempt`` are the ids of attackers that may stay: merely never accusing
    cannot be proven. ``joining`` are the fields of the run file that differ for the sake of strangers.
    """

    rounds: int
    task: str
    seed: int
    attack: str
    defence: str
    accuracy: float | None
    loss: float | None
    wall_s: float
    startup_s: float
    round_ms: RoundTimes
    recoveries: int
    state_digests: list[str]
    peers: list[PeerReport]
    late_joiners: list[NewcomerReport]
    sybils: list[NewcomerReport]
    joining: dict[str, int | float]
    exempt: list[str]
    false_bans: int
    false_removals: int
    bytes_per_round: RoundBytes
    audits_ok: bool | None
    problems: list[str]
    verdict: str
    reasons: list[str]
    command: str


class Outcome(StrEnum):
    """What is to be said of a demo."""

    OK = "ok"
    FAILED = "failed"
    UNDECIDED = "undecided"
    NO_DEFENCE = "no defence"


EXITS: Mapping[Outcome, ExitCode] = {
    Outcome.OK: ExitCode.OK,
    Outcome.FAILED: ExitCode.FAILED,
    Outcome.UNDECIDED: ExitCode.UNDECIDED,
    Outcome.NO_DEFENCE: ExitCode.OK,
}


@dataclass(frozen=True)
class Judgement:
    """An outcome, and a sentence for each reason."""

    outcome: Outcome
    reasons: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the demo."""
        return EXITS[self.outcome]


def judge(report: Report) -> Judgement:
    """Return whether the swarm did what it promises: its attackers are gone, its honest members are not, and agree.

    An attacker that began to act less than 4·n rounds before the end and is still there leaves it undecided.
    """
    failures = [*report["problems"], *_find_unfinished(report)]
    if report["defence"] == "none":
        return Judgement(Outcome.FAILED, tuple(failures)) if failures else Judgement(Outcome.NO_DEFENCE, ())
    failures += [*_find_false_blame(report), *_find_disagreement(report), *_find_survivors(report)]
    failures += _find_wrong_doors(report)
    late = _find_late_survivors(report)
    if failures:
        return Judgement(Outcome.FAILED, tuple(failures))
    return Judgement(Outcome.UNDECIDED, tuple(late)) if late else Judgement(Outcome.OK, ())


def is_gone(peer: PeerReport) -> bool:
    """Return whether an attacker has got what its kind deserves."""
    is_removed = peer["removed_in_round"] is not None and peer["attack"] in WITHHOLDING
    return peer["banned_in_round"] is not None or is_removed


def _find_unfinished(report: Report) -> list[str]:
    honest = [peer for peer in report["peers"] if not peer["byzantine"]]
    return [
        f"the honest peer {peer['id'][:8]} did not finish: {peer['ended']}"
        for peer in honest
        if peer["ended"] != "finished"
    ]


def _find_false_blame(report: Report) -> list[str]:
    lines = []
    for peer in report["peers"]:
        for verb, number in (("banned", peer["banned_in_round"]), ("removed", peer["removed_in_round"])):
            if not peer["byzantine"] and number is not None:
                lines.append(f"the honest peer {peer['id'][:8]} was {verb} in round {number}: {peer['cause']}")
    return lines


def _find_wrong_doors(report: Report) -> list[str]:
    """Return which late joiners stayed outside, or came in and did not end like all, and which Sybils came in."""
    lines = []
    for peer in report["late_joiners"]:
        name = f"the late joiner {peer['id'][:8]}"
        if peer["promoted_in_round"] is None:
            lines.append(f"{name} was not promoted: {peer['rejected']}; it ended {peer['ended']}")
        elif peer["ended"] != "finished":
            lines.append(f"{name} was promoted and did not finish: {peer['ended']}")
        elif peer["state"] not in report["state_digests"]:
            lines.append(f"{name} did not finish with the swarm's parameters")
    return lines + [
        f"the Sybil {peer['id'][:8]} became a member in round {peer['promoted_in_round']}"
        for peer in report["sybils"]
        if peer["promoted_in_round"] is not None
    ]


def _find_disagreement(report: Report) -> list[str]:
    lines = []
    if len(report["state_digests"]) > 1:
        lines.append(f"honest peers finished with {len(report['state_digests'])} different parameters")
    if report["audits_ok"] is False:
        lines.append("the ledger of an honest peer does not audit")
    return lines


def _survivors(report: Report) -> list[tuple[PeerReport, int]]:
    """Return the attackers that acted and are not gone, each with its first act's round."""
    return [
        (peer, peer["attacked_from_round"])
        for peer in report["peers"]
        if peer["attacked_from_round"] is not None and peer["id"] not in report["exempt"] and not is_gone(peer)
    ]


def _is_late(report: Report, first: int) -> bool:
    return report["rounds"] - first < 4 * len(report["peers"])


def _find_survivors(report: Report) -> list[str]:
    return [
        f"{peer['id'][:8]} ({peer['attack']}) attacked from round {first} on and was not banned"
        for peer, first in _survivors(report)
        if not _is_late(report, first)
    ]


def _find_late_survivors(report: Report) -> list[str]:
    return [
        f"{peer['id'][:8]} ({peer['attack']}) attacked from round {first} on, too late to judge; give it more rounds"
        for peer, first in _survivors(report)
        if _is_late(report, first)
    ]

"""Which reports are ok, failed or undecided."""

import json
from copy import deepcopy

import pytest

from btard.cli.demo_judgement import NewcomerReport, Outcome, PeerReport, Report, judge
from btard.cli.exits import ExitCode

PEERS, ROUNDS = 8, 100


def peer(number: int, attack: str | None = None, **changes) -> PeerReport:
    """Return the report on a peer that finished, or on an attacker that was banned as soon as it acted."""
    told = PeerReport(
        id=f"{number:02d}" * 32,
        byzantine=attack is not None,
        attack=attack,
        attacked_from_round=5 if attack else None,
        banned_in_round=6 if attack else None,
        removed_in_round=None,
        cause="false-gradient" if attack else None,
        opponent=None,
        ended="banned" if attack else "finished",
        ledger=f"peer-{number}/ledger.sqlite3",
    )
    return {**told, **changes}


def report(*attackers: PeerReport, **changes) -> Report:
    """Return the report on a demo that went well, with these attackers."""
    honest = [peer(number) for number in range(PEERS - len(attackers))]
    told = Report(
        rounds=ROUNDS,
        task="digits",
        seed=0,
        attack="sign-flip",
        defence="btard",
        accuracy=0.97,
        loss=0.1,
        wall_s=40.0,
        startup_s=10.0,
        round_ms={"median": 150.0, "p90": 250.0},
        recoveries=0,
        state_digests=["ab" * 32],
        peers=[*honest, *attackers],
        late_joiners=[],
        sybils=[],
        joining={},
        exempt=[attacker["id"] for attacker in attackers if attacker["attack"] == "lazy-validator"],
        false_bans=0,
        false_removals=0,
        bytes_per_round={"data": 3e5, "protocol": 8e3},
        audits_ok=True,
        problems=[],
        verdict="",
        reasons=[],
        command="btard-peer demo",
    )
    return {**told, **changes}


def newcomer(number: int, **changes) -> NewcomerReport:
    """Return the report on a late joiner that became a member and finished with all others."""
    told = NewcomerReport(
        id=f"{number:02d}" * 32,
        comes_after_round=2,
        joined_in_round=20,
        promoted_in_round=30,
        rejected=None,
        rejected_in_round=None,
        ended="finished",
        state="ab" * 32,
        ledger=f"peer-{number}/ledger.sqlite3",
    )
    return {**told, **changes}


def rejected(number: int, why: str, ended: str) -> NewcomerReport:
    """Return the report on a stranger that did not become a member."""
    return newcomer(number, promoted_in_round=None, rejected=why, ended=ended, state=None)


def staying(number: int, attack: str, first: int) -> PeerReport:
    """Return an attacker that is still there at the end."""
    return peer(number, attack, attacked_from_round=first, banned_in_round=None, cause=None, ended="finished")


def removed(number: int, attack: str) -> PeerReport:
    """Return an attacker that was removed, not banned."""
    return peer(number, attack, banned_in_round=None, removed_in_round=7, cause="silence", ended="removed")


@pytest.mark.parametrize(
    "attackers",
    [
        (),
        (peer(7, "sign-flip"), peer(6, "collude")),
        (removed(7, "withhold"), removed(6, "withhold-reveal")),
        (staying(7, "lazy-validator", 5),),
        (peer(7, "false-accusation", attacked_from_round=None, banned_in_round=None, cause=None, ended="finished"),),
    ],
    ids=["nobody", "banned", "removed for withholding", "exempt", "never acted"],
)
def test_it_went_well(attackers):
    """With every attacker that acted gone, nobody else gone and one final state, the verdict is ok."""
    judgement = judge(report(*attackers))
    assert (judgement.outcome, judgement.reasons, judgement.exit_code) == (Outcome.OK, (), ExitCode.OK)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (report(staying(7, "sign-flip", 5)), "07070707 (sign-flip) attacked from round 5 on and was not banned"),
        (report(removed(7, "sign-flip")), "was not banned"),
        (report(peer(7, banned_in_round=9, cause="false-report")), "was banned in round 9: false-report"),
        (report(peer(7, removed_in_round=9, cause="silence")), "was removed in round 9: silence"),
        (report(peer(7, ended="undecided")), "did not finish: undecided"),
        (report(state_digests=["ab" * 32, "cd" * 32]), "2 different parameters"),
        (report(audits_ok=False), "does not audit"),
        (report(problems=["no peer said anything"]), "no peer said anything"),
        (
            report(late_joiners=[newcomer(8), rejected(9, "lapsed, without blame", "removed")]),
            "the late joiner 09090909 was not promoted: lapsed, without blame; it ended removed",
        ),
        (report(late_joiners=[newcomer(8, ended="removed", state=None)]), "was promoted and did not finish: removed"),
        (report(late_joiners=[newcomer(8, state="cd" * 32)]), "did not finish with the swarm's parameters"),
        (report(sybils=[newcomer(8)]), "the Sybil 08080808 became a member in round 30"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_went_wrong(case, reason):
    """Whatever the swarm promises and does not keep makes it fail, and is named."""
    judgement = judge(case)
    assert (judgement.outcome, judgement.exit_code) == (Outcome.FAILED, ExitCode.FAILED)
    assert len(judgement.reasons) == 1
    assert reason in judgement.reasons[0]


@pytest.mark.parametrize(
    ("why", "ended"),
    [("banned: false-gradient", "banned"), ("never admitted", "refused"), ("still on probation at the end", "exit 5")],
)
def test_however_a_sybil_ends_outside(why, ended):
    """A Sybil that did not become a member is no failure, whatever its process said; nor is a late joiner that did."""
    judgement = judge(report(late_joiners=[newcomer(8)], sybils=[rejected(9, why, ended)]))
    assert (judgement.outcome, judgement.reasons) == (Outcome.OK, ())


@pytest.mark.parametrize(
    ("first", "outcome"),
    [(ROUNDS - 4 * PEERS, Outcome.FAILED), (ROUNDS - 4 * PEERS + 1, Outcome.UNDECIDED), (ROUNDS, Outcome.UNDECIDED)],
)
def test_a_late_attacker_is_not_judged(first, outcome):
    """Who began to act less than 4n rounds before the end and is there makes it undecided; earlier, it fails."""
    assert judge(report(staying(7, "sign-flip", first))).outcome is outcome


def test_undecided_has_its_exit_code():
    """Scripts tell undecided by exit code 3."""
    assert judge(report(staying(7, "sign-flip", 99))).exit_code == 3


def test_a_failure_outweighs_a_late_attacker():
    """A demo that failed is not undecided."""
    case = report(staying(7, "sign-flip", 99), staying(6, "equivocate", 5))
    assert judge(case).outcome is Outcome.FAILED


def test_without_defence_only_the_end_counts():
    """Plain averaging promises nothing: attackers stay, and the exit code is 0 if all honest peers ended."""
    undefended = report(staying(7, "sign-flip", 5), defence="none", audits_ok=None, state_digests=["00", "01"])
    assert (judge(undefended).outcome, judge(undefended).exit_code) == (Outcome.NO_DEFENCE, ExitCode.OK)
    broken = {**undefended, "peers": [*undefended["peers"][1:], peer(0, ended="exit 1")]}
    assert judge(broken).outcome is Outcome.FAILED


def test_the_judgement_needs_nothing_but_the_json():
    """What was written and read again is judged the same, and judging changes nothing."""
    case = report(staying(7, "sign-flip", 99))
    before = deepcopy(case)
    assert judge(json.loads(json.dumps(case))) == judge(case)
    assert case == before

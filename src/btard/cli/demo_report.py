"""The report of a demo that is over: what its peers told, as JSON values."""

import shlex
import statistics
from collections.abc import Mapping, Sequence

from btard.attacks import EXEMPT
from btard.cli.demo_judgement import PeerReport, Report, RoundBytes, RoundTimes, judge
from btard.cli.demo_plan import Plan
from btard.cli.demo_story import Account, Story
from btard.cli.demo_strangers import choose_joining
from btard.cli.demo_ways import Way, report_newcomers


def build_report(
    plan: Plan,
    story: Story,
    *,
    wall_s: float,
    startup_s: float,
    audits_ok: bool | None,
    ways: Mapping[str, Way] | None = None,
    problems: Sequence[str] = (),
) -> Report:
    """Return the report of a demo that is over, judged.

    ``ways`` tell how far strangers came, ``problems`` what the demo itself saw go wrong.
    """
    peers = [_report_peer(story, account) for account in story.members]
    finished = [account.finished for account in story.honest if account.finished]
    finished_members = [account.finished for account in story.honest_members if account.finished]
    evaluations = [event for event in finished if event.get("accuracy") is not None]
    report = Report(
        rounds=plan.settings.rounds,
        task=plan.settings.task,
        seed=plan.settings.seed,
        attack=plan.settings.attack if plan.settings.byzantine else "none",
        defence=plan.settings.defence,
        accuracy=statistics.fmean(event["accuracy"] for event in evaluations) if evaluations else None,
        loss=statistics.fmean(event["loss"] for event in evaluations) if evaluations else None,
        wall_s=round(wall_s, 1),
        startup_s=round(startup_s, 1),
        round_ms=_summarize_times(story.round_ms),
        recoveries=max((account.recoveries for account in story.honest), default=0),
        state_digests=sorted({event["state"] for event in finished_members}),
        peers=peers,
        late_joiners=report_newcomers(story, ways or {}, is_sybil=False),
        sybils=report_newcomers(story, ways or {}, is_sybil=True),
        joining=choose_joining(plan.settings),
        exempt=[account.player.peer for account in story.accounts if account.player.attack in EXEMPT],
        false_bans=_count_blamed(story, "ban"),
        false_removals=_count_blamed(story, "removal"),
        bytes_per_round=RoundBytes(data=_mean_bytes(story, "data"), protocol=_mean_bytes(story, "protocol")),
        audits_ok=audits_ok,
        problems=list(problems),
        verdict="",
        reasons=[],
        command=format_command(plan),
    )
    judgement = judge(report)
    report["verdict"], report["reasons"] = judgement.outcome.value, list(judgement.reasons)
    return report


def _report_peer(story: Story, account: Account) -> PeerReport:
    player = account.player
    ban = story.first_departure(player.peer, "ban")
    removal = story.first_departure(player.peer, "removal")
    why = ban or removal
    return PeerReport(
        id=player.peer,
        byzantine=player.attack is not None,
        attack=player.attack,
        attacked_from_round=account.attacked_in_round,
        banned_in_round=ban.round if ban else None,
        removed_in_round=removal.round if removal else None,
        cause=why.cause if why else None,
        opponent=why.opponent if why else None,
        ended=account.state,
        ledger=str(player.ledger),
    )


def _count_blamed(story: Story, kind: str) -> int:
    """Return how many honest peers left in this way, late joiners included."""
    return sum(story.first_departure(account.player.peer, kind) is not None for account in story.honest)


def _summarize_times(values: Sequence[float]) -> RoundTimes:
    if not values:
        return RoundTimes(median=None, p90=None)
    ordered = sorted(values)
    tenth = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    return RoundTimes(median=round(statistics.median(ordered), 1), p90=round(tenth, 1))


def _mean_bytes(story: Story, kind: str) -> float | None:
    """Return the mean over honest peers there from the beginning, that finished, of bytes sent per round."""
    finished = [account.finished for account in story.honest_members if account.finished]
    shares = [event["bytes"][kind] / max(1, event["rounds"]) for event in finished]
    return round(statistics.fmean(shares), 1) if shares else None


def format_command(plan: Plan) -> str:
    """Return the command line that runs this demo again."""
    settings = plan.settings
    words = ["btard-peer", "demo", "--peers", str(settings.peers), "--byzantine", str(settings.byzantine)]
    words += ["--attack", settings.attack, "--attack-from", str(settings.attack_from)]
    words += ["--rounds", str(settings.rounds), "--task", settings.task, "--seed", str(settings.seed)]
    if settings.strangers:
        words += ["--late-joiners", str(settings.late_joiners), "--sybils", str(settings.sybils)]
    words += ["--defence", settings.defence, "--delay-s", f"{settings.delay_bound_s:g}"]
    return shlex.join(words)

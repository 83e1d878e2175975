"""How a demo looks: a table that moves on a terminal, plain lines elsewhere, and a summary at the end."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from btard.cli.demo_judgement import NewcomerReport, PeerReport, Report, is_gone
from btard.cli.demo_plan import Plan
from btard.cli.demo_story import Account, Departure, Story

LINE_EVERY = 10
"""Rounds between plain lines."""
VERBS = {"ban": "banned", "removal": "removed", "goodbye": "said goodbye"}


class Screen:
    """Shows a running demo; ``refresh`` is called a few times a second and shows what is new."""

    def __init__(self, plan: Plan, story: Story, console: Console, *, is_quiet: bool = False) -> None:
        self._plan, self._story, self._console, self._is_quiet = plan, story, console, is_quiet
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal and not is_quiet else None
        self._lines = PlainLines(plan, story)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(Group(), refresh=True)
            self._live.stop()

    def refresh(self) -> None:
        """Show what is new."""
        news = list(self._lines.take())
        if self._is_quiet:
            return
        for line, is_lasting in news:
            if is_lasting or self._live is None:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self._live:
            self._live.update(render(self._plan, self._story), refresh=True)


class PlainLines:
    """The story as lines; each is yielded once, with whether it is worth keeping above a table that moves."""

    def __init__(self, plan: Plan, story: Story) -> None:
        self._plan, self._story = plan, story
        self._warm = self._round = 0
        self._has_started = False
        self._told: set[tuple[str, str]] = set()

    def take(self) -> Iterator[tuple[str, bool]]:
        """Yield the lines since the last call."""
        story, peers = self._story, len(self._plan.members)
        if story.ready > self._warm and not self._has_started:
            self._warm = story.ready
            yield f"{self._warm} of {peers} peers are warm", False
        if story.is_started and not self._has_started:
            self._has_started = True
            yield f"training begins: {peers} peers, {self._plan.config.elements} parameters", True
        for departure in self._take_departures():
            yield describe_departure(self._plan, departure), True
        yield from ((line, True) for line in self._take_arrivals())
        newest = story.newest
        if newest and newest["round"] // LINE_EVERY > self._round // LINE_EVERY:
            self._round = newest["round"]
            yield describe_round(self._plan, story), False

    def _take_arrivals(self) -> Iterator[str]:
        """Yield what late joiners tell of their way; Sybils may tell anything."""
        for account in self._story.strangers:
            told = (("admitted on probation", account.admitted_in_round), ("promoted", account.promoted_in_round))
            for what, number in told if account.player.attack is None else ():
                if number is not None and (account.player.peer, what) not in self._told:
                    self._told.add((account.player.peer, what))
                    yield f"round {number}: {account.player.peer[:8]} (late joiner) {what}"

    def _take_departures(self) -> Iterator[Departure]:
        for account in self._story.honest:
            for departure in account.departures:
                if (departure.peer, departure.kind) not in self._told:
                    self._told.add((departure.peer, departure.kind))
                    yield departure


def describe_departure(plan: Plan, departure: Departure) -> str:
    """Return who left, how, why, and whom it lost against."""
    attack = next((player.attack for player in plan.players if player.peer == departure.peer), None)
    by = f", against {departure.opponent[:8]}" if departure.opponent else ""
    verb = VERBS.get(departure.kind, departure.kind)
    return f"round {departure.round}: {departure.peer[:8]} ({attack or 'honest'}) {verb}: {departure.cause}{by}"


def describe_round(plan: Plan, story: Story) -> str:
    """Return the newest round in one line."""
    newest = story.newest
    if newest is None:
        return f"{story.ready} of {len(plan.members)} peers are warm"
    told = story.evaluation
    model = f"loss {told['loss']:.3f}, accuracy {told['accuracy']:.1%}, " if told else ""
    pairs = " ".join(f"{validator[:8]}→{target[:8]}" for validator, target in newest["assignments"])
    return (
        f"round {newest['round']} of {plan.settings.rounds}: {model}{newest['roster_size']} peers, "
        f"{newest['wall_ms']:.0f} ms{', validates: ' + pairs if pairs else ''}"
    )


def render(plan: Plan, story: Story) -> RenderableType:
    """Return the table of a running demo."""
    table = Table(title=describe_round(plan, story), title_justify="left", expand=False)
    for heading in ("peer", "is", "rounds", "state", "validates"):
        table.add_column(heading)
    newest = story.newest
    pairs = dict(newest["assignments"]) if newest else {}
    for account in story.accounts:
        table.add_row(*_render_peer(story, account, pairs))
    return table


def _render_peer(story: Story, account: Account, pairs: dict[str, str]) -> tuple[str, ...]:
    player = account.player
    role = player.attack or ("founder" if player.number == 0 else "late joiner" if player.is_stranger else "honest")
    style = "red" if player.attack else "green"
    rounds = str(account.rounds[-1]["round"]) if account.rounds else ""
    target = pairs.get(player.peer, "")[:8]
    return player.peer[:8], f"[{style}]{role}[/]", rounds, _describe_state(story, account), target


def _describe_state(story: Story, account: Account) -> str:
    peer = account.player.peer
    left = story.first_departure(peer, "ban") or story.first_departure(peer, "removal")
    if left is not None:
        return f"[bold]{VERBS[left.kind]}[/] in round {left.round}: {left.cause}"
    return account.state


def print_summary(console: Console, report: Report, directory: str) -> None:
    """Print what came of it, and what to look at next."""
    table = Table(box=None, pad_edge=False)
    for heading in ("peer", "is", "attacked", "end"):
        table.add_column(heading)
    for peer in report["peers"]:
        table.add_row(*_summarize_peer(peer, is_exempt=peer["id"] in report["exempt"]))
    for word, newcomers in (("late joiner", report["late_joiners"]), ("Sybil", report["sybils"])):
        for newcomer in newcomers:
            table.add_row(newcomer["id"][:8], word, "", _summarize_newcomer(newcomer))
    console.print(table)
    console.print()
    for line in summary_lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nEverything is in {directory}", markup=False, soft_wrap=True)
    witness = next((peer["ledger"] for peer in report["peers"] if not peer["byzantine"]), None)
    if report["defence"] == "btard" and witness is not None:
        console.print("Check a ledger yourself, evidence of every ban included:", markup=False, soft_wrap=True)
        console.print(f"  btard-peer audit {witness}", markup=False, highlight=False, soft_wrap=True)


def _summarize_peer(peer: PeerReport, *, is_exempt: bool) -> tuple[str, ...]:
    acted = peer["attacked_from_round"]
    attacked = "" if not peer["byzantine"] else f"round {acted}" if acted is not None else "never acted"
    return peer["id"][:8], peer["attack"] or "honest", attacked, _summarize_end(peer, is_exempt=is_exempt)


def _summarize_newcomer(peer: NewcomerReport) -> str:
    if peer["promoted_in_round"] is not None:
        return f"candidate in round {peer['joined_in_round']}, member from round {peer['promoted_in_round']}"
    when = f" in round {peer['rejected_in_round']}" if peer["rejected_in_round"] is not None else ""
    return f"{peer['rejected']}{when}"


def _summarize_end(peer: PeerReport, *, is_exempt: bool) -> str:
    if peer["banned_in_round"] is not None:
        return f"banned in round {peer['banned_in_round']}: {peer['cause']}"
    if peer["removed_in_round"] is not None:
        return f"removed in round {peer['removed_in_round']}: {peer['cause']}"
    if is_exempt:
        return "exempt: nobody can prove it"
    return "[bold red]still there[/]" if peer["attacked_from_round"] is not None else peer["ended"]


def summary_lines(report: Report) -> Iterator[str]:
    """Yield the figures of a demo, the last line being the verdict."""
    attackers = [peer for peer in report["peers"] if peer["attacked_from_round"] is not None]
    gone = sum(is_gone(peer) for peer in attackers)
    times, traffic = report["round_ms"], report["bytes_per_round"]
    yield f"attackers that acted: {len(attackers)}, gone: {gone}"
    yield f"honest peers banned: {report['false_bans']}, removed: {report['false_removals']}"
    for word, newcomers in (("late joiners", report["late_joiners"]), ("Sybils", report["sybils"])):
        if newcomers:
            promoted = sum(item["promoted_in_round"] is not None for item in newcomers)
            yield f"{word} that became members: {promoted} of {len(newcomers)}"
    if report["accuracy"] is not None:
        yield f"accuracy on the hold-out: {report['accuracy']:.1%}, loss {report['loss']:.3f}"
    yield f"different final parameters among honest peers: {len(report['state_digests'])}"
    if report["audits_ok"] is not None:
        yield f"ledgers of honest peers audited: {'all ok' if report['audits_ok'] else 'NOT OK'}"
    if times["median"] is not None:
        yield f"{times['median']:.0f} ms per round (median; 90%: {times['p90']:.0f}), {report['wall_s']:.0f} s in all"
    if traffic["data"] is not None and traffic["protocol"] is not None:
        yield f"bytes per peer and round: {traffic['data']:.0f} data, {traffic['protocol']:.0f} protocol"
    for reason in report["reasons"]:
        yield f"{report['verdict']}: {reason}"
    yield f"verdict: {report['verdict']}"

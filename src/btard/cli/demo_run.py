"""A demo from the first process to the judgement."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from rich.console import Console

from btard.cli.demo_children import Children, Event, Start, last_line
from btard.cli.demo_judgement import Report, judge
from btard.cli.demo_plan import OUTPUT, Plan, Player, Settings, make_command, make_plan
from btard.cli.demo_report import build_report
from btard.cli.demo_story import Story
from btard.cli.demo_strangers import describe_joining
from btard.cli.demo_table import Screen, print_summary
from btard.cli.demo_ways import read_ways
from btard.cli.exits import ExitCode

LOOK_S = 0.25
"""How often the screen is refreshed and the end is looked for."""
ATTACKERS_GRACE_S = 5.0
"""How long attackers may go on when all honest peers have ended."""
WIDTH = 110
"""Columns of the summary where there is no terminal."""
STALL_S = 300.0
"""A demo in which no peer says anything for so long is ended."""


def run_demo(settings: Settings, directory: Path, *, is_quiet: bool) -> tuple[Report, ExitCode]:
    """Return what came of a demo, shown to the user already, and its exit code.

    Raises:
        ConfigError: such a demo cannot be run.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    if not is_quiet:
        console.print(f"{settings.peers} peers, {settings.byzantine} of them attack; everything is in {directory}")
        for line in describe_joining(settings):
            console.print(line, soft_wrap=True)
    began = time.monotonic()
    plan = make_plan(settings, directory)
    demo = Demo(plan, Story(plan.players))
    with Screen(plan, demo.story, console, is_quiet=is_quiet) as screen:
        trio.run(demo.run, screen)
    wall_s = time.monotonic() - began
    witnesses = [account.player for account in demo.story.honest if account.is_member]
    audits_ok = None if settings.defence == "none" or demo.is_interrupted else audit_ledgers(witnesses, demo.problems)
    report = build_report(
        plan,
        demo.story,
        wall_s=wall_s,
        startup_s=demo.startup_s(began),
        audits_ok=audits_ok,
        ways=read_ways([player.ledger for player in plan.members if player.attack is None]) if plan.strangers else {},
        problems=demo.problems,
    )
    if demo.is_interrupted:
        console.print(f"interrupted; every process has ended. What they wrote is in {directory}", soft_wrap=True)
        return report, ExitCode.INTERRUPTED
    print_summary(console, report, str(directory))
    return report, judge(report).exit_code


@dataclass
class Demo:
    """A running demo: its processes, its story, and the decision when it is over."""

    plan: Plan
    story: Story
    problems: list[str] = field(default_factory=list)
    is_interrupted: bool = False
    _started_at: float | None = None
    _last_event_at: float = field(default_factory=time.monotonic)

    async def run(self, screen: Screen) -> None:
        """Run every process to its end, which no process survives; SIGINT and SIGTERM bring it about."""
        starts = [
            Start(make_command(self.plan, player), player.log, player.directory / OUTPUT, self._find_cue(player))
            for player in self.plan.players
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_at_signal, nursery.cancel_scope)
            nursery.start_soon(self._supervise, nursery.cancel_scope, screen)
            await Children(starts, self._tell).run()
            nursery.cancel_scope.cancel()
        screen.refresh()
        self.problems += self._find_crashes()

    def _find_cue(self, player: Player) -> Callable[[], bool] | None:
        """Return what tells that a stranger may come, None for whoever is there from the beginning."""
        return None if player.comes_after is None else partial(self.story.is_done, player.comes_after)

    def startup_s(self, began: float) -> float:
        """Return how long it took until training began, since ``began``; 0 if it never did."""
        return max(0.0, self._started_at - began) if self._started_at is not None else 0.0

    def _tell(self, number: int, event: Event) -> None:
        self._last_event_at = time.monotonic()
        self.story.tell(number, event)
        if self._started_at is None and self.story.is_started:
            self._started_at = self._last_event_at

    async def _stop_at_signal(self, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self.is_interrupted = True
                self.problems.append("interrupted")
                scope.cancel()

    async def _supervise(self, scope: trio.CancelScope, screen: Screen) -> None:
        """Refresh the screen until the demo is over or hopeless, then end what still runs."""
        while not (self.story.is_over or self.story.cannot_start or self._is_stalled()):
            screen.refresh()
            await trio.sleep(LOOK_S)
        if self.story.is_over:
            await trio.sleep(ATTACKERS_GRACE_S)
        elif self.story.cannot_start:
            self.problems.append("a peer gave up before training began")
        else:
            self.problems.append(f"no peer said anything for {STALL_S:g} s")
        scope.cancel()

    def _is_stalled(self) -> bool:
        return time.monotonic() - self._last_event_at > STALL_S

    def _find_crashes(self) -> Iterator[str]:
        """Yield the last words of honest members that ended without saying why."""
        for account in self.story.honest:
            if account.is_member and account.finished is None and account.ended is None and not self.is_interrupted:
                words = last_line(account.player.directory / OUTPUT)
                yield f"peer {account.player.number} ended with code {account.exit_code}: {words}"


def audit_ledgers(players: Sequence[Player], problems: list[str]) -> bool:
    """Return whether the ledger of every one of these audits; what does not is added to ``problems``."""
    from btard.swarm.audit import audit_ledger

    print("auditing the ledgers of honest peers ...", file=sys.stderr, flush=True)
    is_ok = True
    for player in players:
        result = audit_ledger(player.ledger)
        is_ok = is_ok and result.ok
        problems += [f"ledger of peer {player.number}: {problem}" for problem in result.problems[:3]]
    return is_ok

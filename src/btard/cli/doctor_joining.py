"""What it takes to join a run that has begun: the work on this machine, probation, and whether places are free."""

from dataclasses import dataclass

from btard.cli.doctor_findings import Finding, failed, passed, warned
from btard.cli.solving import format_duration
from btard.rules.admission import count_admissions, count_places, find_closure, is_open
from btard.rules.config import MAX_MEMBERS, RunConfig
from btard.rules.seal import Seal
from btard.rules.succession import roster_of
from btard.training.solving import Solving

LONG_WORK_S = 3600.0
"""Beyond this a ticket takes so long on average that the user should know a way out."""


@dataclass(frozen=True)
class Rate:
    """How many evaluations of a ticket's function this machine does in a second, on so many threads."""

    per_second: float
    threads: int


@dataclass(frozen=True)
class News:
    """What members show of a run that has begun: its newest seal, verified from the genesis on, or why there is none.

    ``is_refused`` is whether they show something else than the ticket's run.
    """

    seal: Seal | None = None
    problem: str = ""
    is_refused: bool = False


def judge_line(news: News | None) -> Finding | None:
    """Return whether members show a history that a newcomer would believe; None where the run has not begun."""
    if news is None:
        return None
    if news.seal is None:
        verdict = failed if news.is_refused else warned
        remedy = (
            "ask somebody you trust for a new ticket: btard-peer status prints one"
            if news.is_refused
            else "run it again"
        )
        return verdict("history", news.problem, remedy)
    return passed("history", f"signed from the genesis to round {news.seal.round}, and led on by its members")


def judge_work(config: RunConfig, news: News, rate: Rate | None) -> Finding:
    """Return what a stranger has to do, as far as we know; ``rate`` is None where it could not be measured."""
    seal = news.seal
    closure = find_closure(config, seal)
    if closure:
        return failed("joining", closure, "ask for the ticket of another run")
    if seal is not None and seal.round >= config.rounds:
        return failed("joining", "the run is over: nothing is left to join", "ask for the ticket of another run")
    bits = seal.ticket_bits if seal is not None else config.ticket_bits
    line = (
        f"{_describe_work(config, bits, rate)}, then {config.probation} rounds of probation; {_describe_places(seal)}"
    )
    if seal is not None and config.rounds - seal.round <= config.probation:
        left = f"only {config.rounds - seal.round} rounds are left"
        return warned("joining", f"{line}; {left}", "it would be over before you are a member: wait for the next run")
    if rate is None or _estimate(bits, rate).mean_s > LONG_WORK_S:
        return warned("joining", line, "the work goes on where it was after Ctrl-C: use more cores, or take your time")
    if seal is not None and not is_open(config, seal):
        return warned(
            "joining", line, "join all the same: the state is fetched and a ticket solved meanwhile, it waits"
        )
    return passed("joining", line)


def _estimate(bits: int, rate: Rate) -> Solving:
    return Solving(0, 0, rate.per_second, 1 << bits)


def _describe_work(config: RunConfig, bits: int, rate: Rate | None) -> str:
    task = f"2^{bits} evaluations of {config.ticket_memory_kib / 1024:g} MiB for a ticket"
    if rate is None:
        return f"{task}, which fail here"
    found = _estimate(bits, rate)
    mean, likely = format_duration(found.mean_s), format_duration(found.likely_s)
    speed = f"{rate.per_second:.1f}/s on {rate.threads} threads"
    return f"{task}: {mean} on average, with 95% no more than {likely}, at {speed}"


def _describe_places(seal: Seal | None) -> str:
    if seal is None:
        return "whether places are free only the members know"
    roster = roster_of(seal)
    free = max(0, count_places(roster) - len(seal.candidates))
    if len(roster) >= MAX_MEMBERS:
        return f"the run is full: a run has at most {MAX_MEMBERS} members"
    an_epoch = count_admissions(roster)
    return f"{free} of {count_places(roster)} places are free, and {an_epoch} in an epoch are given"

"""Plans of demos without run files, keys or processes."""

from dataclasses import replace
from pathlib import Path

from btard.cli.demo_plan import Plan, Player, Settings
from btard.rules.config import RunConfig


def make_players(directory: Path, *attacks: str | None) -> tuple[Player, ...]:
    """Return players with these attacks; their ids repeat their numbers."""
    return tuple(
        Player(number, f"{number:02d}" * 32, attack, directory / f"peer-{number}")
        for number, attack in enumerate(attacks)
    )


def make_small_plan(directory: Path, *attacks: str | None, rounds: int = 20) -> Plan:
    """Return a plan for players with these attacks."""
    byzantine = sum(attack is not None for attack in attacks)
    settings = Settings(peers=len(attacks), byzantine=byzantine, rounds=rounds)
    config = RunConfig(genesis_size=len(attacks), rounds=rounds)
    return Plan(settings, config, "btard1-ticket", directory, make_players(directory, *attacks))


def add_strangers(plan: Plan, *attacks: str | None) -> Plan:
    """Return a plan with strangers more; the first comes after round 2, each next one five rounds later."""
    players = make_players(plan.directory, *(None for _ in plan.players), *attacks)[len(plan.players) :]
    strangers = [replace(player, comes_after=2 + 5 * index) for index, player in enumerate(players)]
    sybils = sum(attack is not None for attack in attacks)
    settings = replace(plan.settings, late_joiners=len(attacks) - sybils, sybils=sybils)
    return replace(plan, settings=settings, players=(*plan.players, *strangers))

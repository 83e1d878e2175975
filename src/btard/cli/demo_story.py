"""
What happened in a demo, as its peers tell it: events in, facts out; no I/O and no clock.

Facts about others (who left, who accused whom) are believed only if an honest peer tells them. The
demo knows who attacks; the peers do not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from btard.cli.demo_plan import Player

Event = dict[str, Any]
EXIT = "exit"
"""The event that the demo adds when a process has ended."""


@dataclass(frozen=True)
class Departure:
    """Somebody left, as one peer saw it: ``kind`` is ban, removal or goodbye."""

    peer: str
    round: int
    kind: str
    cause: str
    opponent: str | None


@dataclass
class Account:
    """What one peer told about itself and others so far."""

    player: Player
    is_ready: bool = False
    is_started: bool = False
    attacked_in_round: int | None = None
    admitted_in_round: int | None = None
    promoted_in_round: int | None = None
    rounds: list[Event] = field(default_factory=list)
    departures: list[Departure] = field(default_factory=list)
    opponents: dict[str, str] = field(default_factory=dict)
    recoveries: int = 0
    finished: Event | None = None
    ended: str | None = None
    message: str = ""
    exit_code: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        return self.exit_code is not None

    @property
    def is_member(self) -> bool:
        """Whether it is there from the beginning, or has been promoted."""
        return not self.player.is_stranger or self.promoted_in_round is not None

    @property
    def state(self) -> str:
        """One word for how it is."""
        if self.finished is not None:
            return "finished"
        if self.ended is not None:
            return self.ended
        if self.is_over:
            return f"exit {self.exit_code}"
        if self.is_started:
            return "training"
        return "candidate" if self.admitted_in_round else "warm" if self.is_ready else "starting"

    def tell(self, event: Event) -> None:
        """Add one event of this peer; kinds that nobody asked for are ignored."""
        if (listen := _LISTENERS.get(event["event"])) is not None:
            listen(self, event)


def _hear_ready(account: Account, event: Event) -> None:
    account.is_ready = True


def _hear_started(account: Account, event: Event) -> None:
    account.is_started = True


def _hear_attacked(account: Account, event: Event) -> None:
    account.attacked_in_round = int(event["round"])


def _hear_admitted(account: Account, event: Event) -> None:
    account.admitted_in_round = int(event["round"])


def _hear_promoted(account: Account, event: Event) -> None:
    account.promoted_in_round = int(event["round"])


def _hear_round(account: Account, event: Event) -> None:
    account.rounds.append(event)


def _hear_dispute(account: Account, event: Event) -> None:
    """Note who stands against whom: either may be the one that has to go."""
    accused, accuser = event["accused"], event["accuser"]
    if accuser:
        account.opponents |= {accused: accuser, accuser: accused}


def _hear_departed(account: Account, event: Event) -> None:
    opponent = account.opponents.get(event["peer"])
    account.departures.append(Departure(event["peer"], int(event["round"]), event["kind"], event["cause"], opponent))


def _hear_recovered(account: Account, event: Event) -> None:
    account.recoveries += 1


def _hear_finished(account: Account, event: Event) -> None:
    account.finished = event


def _hear_ended(account: Account, event: Event) -> None:
    account.ended, account.message = event["reason"], event["message"]


def _hear_exit(account: Account, event: Event) -> None:
    account.exit_code = event["code"]


_LISTENERS: dict[str, Callable[[Account, Event], None]] = {
    "ready": _hear_ready,
    "started": _hear_started,
    "attacked": _hear_attacked,
    "admitted": _hear_admitted,
    "promoted": _hear_promoted,
    "round": _hear_round,
    "dispute": _hear_dispute,
    "departed": _hear_departed,
    "recovered": _hear_recovered,
    "finished": _hear_finished,
    "ended": _hear_ended,
    EXIT: _hear_exit,
}


class Story:
    """The accounts of all peers, and what follows from them."""

    def __init__(self, players: Sequence[Player]) -> None:
        self.accounts = tuple(Account(player) for player in players)
        self.events = 0

    def tell(self, number: int, event: Event) -> None:
        """Add an event of the peer with this number."""
        self.events += 1
        self.accounts[number].tell(event)

    @property
    def honest(self) -> tuple[Account, ...]:
        """The accounts that are believed."""
        return tuple(account for account in self.accounts if account.player.attack is None)

    @property
    def members(self) -> tuple[Account, ...]:
        """The accounts of those who are there from the beginning."""
        return tuple(account for account in self.accounts if not account.player.is_stranger)

    @property
    def honest_members(self) -> tuple[Account, ...]:
        """The honest ones among them."""
        return tuple(account for account in self.members if account.player.attack is None)

    @property
    def strangers(self) -> tuple[Account, ...]:
        """The accounts of those who come later."""
        return tuple(account for account in self.accounts if account.player.is_stranger)

    @property
    def ready(self) -> int:
        """How many of those who are there from the beginning are warm."""
        return sum(account.is_ready or account.is_started for account in self.members)

    @property
    def is_started(self) -> bool:
        """Whether training has begun."""
        return any(account.is_started for account in self.members)

    @property
    def cannot_start(self) -> bool:
        """Whether somebody gave up before training began: the genesis roster will never be complete."""
        return not self.is_started and any(account.is_over for account in self.members)

    @property
    def is_over(self) -> bool:
        """Whether the process of every honest member has ended."""
        return all(account.is_over for account in self.honest if account.is_member)

    @property
    def newest(self) -> Event | None:
        """The newest finished round that an honest peer tells of."""
        rounds = [account.rounds[-1] for account in self.honest if account.rounds]
        return max(rounds, key=lambda event: int(event["round"]), default=None)

    def is_done(self, round_number: int) -> bool:
        """Whether an honest peer has finished this round."""
        return self.newest is not None and self.newest["round"] >= round_number

    @property
    def evaluation(self) -> Event | None:
        """The newest event of an honest peer that tells loss and accuracy."""
        finished = [account.finished for account in self.honest if account.finished]
        rounds = [event for account in self.honest for event in account.rounds]
        told = [event for event in (*finished, *rounds) if event.get("accuracy") is not None]
        return max(told, key=lambda event: int(event["round"]), default=None)

    @property
    def round_ms(self) -> list[float]:
        """How long every round took every honest peer, in milliseconds."""
        return [float(event["wall_ms"]) for account in self.honest for event in account.rounds]

    def departures_of(self, peer: str) -> Iterator[Departure]:
        """Yield how a peer left, as each honest peer other than itself saw it."""
        for account in self.honest:
            if account.player.peer != peer:
                yield from (departure for departure in account.departures if departure.peer == peer)

    def first_departure(self, peer: str, kind: str) -> Departure | None:
        """Return the earliest departure of this kind, None if nobody saw one."""
        seen = (departure for departure in self.departures_of(peer) if departure.kind == kind)
        return min(seen, key=lambda departure: departure.round, default=None)

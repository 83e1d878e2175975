"""
What must always hold (design section 3), checked from outside while a simulated run goes on.

The checkers know who is Byzantine, who crashes and whether synchrony holds; the peers do not. They are
fed with what honest peers told their observers, with every message seen on the wire, and at the end
with the ledgers. Each records violations; none of them stops the run by itself.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import ClassVar

from btard.errors import (
    Banned,
    BtardError,
    ConfigError,
    InternalError,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    Removed,
    Unreachable,
)
from btard.identity import PeerId
from btard.rules.evidence import DepartureKind
from btard.rules.messages import SignedMessage, Slot
from btard.sim.scenario import Entrance
from btard.swarm.events import Departed, Event, Promoted, Recovered, RoundDone
from btard.wire import compute_seal_digest

OWN_MISTAKES = (ConfigError, InternalError, LocalProtocolError, RemoteProtocolError)
"""Errors that must not end an honest peer, whatever the others do."""


class Invariant(StrEnum):
    """The five invariants, by the names that the command line uses."""

    AGREEMENT = "agreement"
    NO_FALSE_BAN = "no-false-ban"
    ACCOUNTABILITY = "accountability"
    PROGRESS = "progress"
    NOTHING_LOST = "nothing-lost"


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, and the round in which that was seen."""

    invariant: Invariant
    round: int
    detail: str


@dataclass(frozen=True)
class Truth:
    """What the checkers know and the peers do not; peers by index. Who is ``late`` is away too long after a crash."""

    peers: tuple[PeerId, ...]
    adversaries: Mapping[int, str] = field(default_factory=dict)
    crashed: frozenset[int] = frozenset()
    late: frozenset[int] = frozenset()
    is_synchronous: bool = True
    rounds: int = 0
    validators: int = 1
    genesis: int | None = None
    entrance: Entrance | None = None
    patience_s: float = 600.0
    """Virtual seconds without a finished round after which the swarm stands still."""

    @property
    def strangers(self) -> frozenset[int]:
        """The peers that come midway."""
        return frozenset(range(len(self.peers) if self.genesis is None else self.genesis, len(self.peers)))

    @property
    def honest(self) -> frozenset[int]:
        """The peers that run the plain code."""
        return frozenset(range(len(self.peers))) - self.adversaries.keys()

    @property
    def stable(self) -> frozenset[int]:
        """The honest peers that never crash."""
        return self.honest - self.crashed

    @property
    def prompt(self) -> frozenset[int]:
        """The honest peers that never crash, or are back each time before anybody may miss them."""
        return self.honest - self.late

    @cached_property
    def _numbers(self) -> dict[bytes, int]:
        return {peer: index for index, peer in enumerate(self.peers)}

    def index(self, peer: bytes) -> int:
        """The number of a peer."""
        return self._numbers[peer]

    def find(self, peer: bytes) -> int | None:
        """The number of a peer, None for a key that is nobody's."""
        return self._numbers.get(peer)


class Balance:
    """Who is left, as far as any honest peer tells: without synchrony honest peers may be removed.

    Where the Byzantine are no longer outnumbered the assumption behind every invariant is gone.
    """

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._gone = dict.fromkeys(truth.strangers, 0)

    def note(self, event: Event) -> None:
        """Take note of who leaves, and who comes or is back."""
        if isinstance(event, Departed) and (index := self._truth.find(event.peer)) is not None:
            self._gone[index] = max(event.round, self._gone.get(index, 0))
        if self._gone and isinstance(event, RoundDone):
            here = {index for peer in event.roster if (index := self._truth.find(peer)) is not None}
            self._gone = {index: left for index, left in self._gone.items() if index not in here or left >= event.round}

    @property
    def is_kept(self) -> bool:
        """Whether more than half of those who are left are honest."""
        gone = self._gone.keys()
        return len(self._truth.honest - gone) > len(self._truth.adversaries.keys() - gone)


class Checker:
    """One invariant; what an honest peer tells comes in through ``observe``, ``ended`` is its last word."""

    invariant: ClassVar[Invariant]

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.violations: list[Violation] = []

    def fail(self, round_number: int, detail: str) -> None:
        """Record a violation."""
        self.violations.append(Violation(self.invariant, round_number, detail))

    def observe(self, index: int, event: Event) -> None:
        """Take note of what an honest peer told."""

    def ended(self, index: int, error: BaseException | None) -> None:
        """Take note of how an honest peer ended: well, or by an error."""

    def came_back(self, index: int) -> None:
        """Take note that a peer that had ended comes again, as a stranger with a new ledger."""


class Agreement(Checker):
    """Honest peers apply the same update in the same round and hold the same roster and ban list.

    A peer's word on a round is final once it has finished the next one: until then the round may be
    opened again. The seal's tuple holds state, roster and bans. Without synchrony double-signers can
    split the swarm; then there is nothing to compare.
    """

    invariant = Invariant.AGREEMENT
    DOUBLE_SIGNERS: ClassVar = ("equivocat", "plan", "lie-")

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._latest: dict[int, RoundDone] = {}
        self._final: dict[int, tuple[bytes, int]] = {}
        kinds = "+".join(truth.adversaries.values())
        self._may_split = not truth.is_synchronous and any(word in kinds for word in self.DOUBLE_SIGNERS)
        self._balance = Balance(truth)

    def observe(self, index: int, event: Event) -> None:
        """Compare the round before with what the others finished."""
        self._balance.note(event)
        self._may_split = self._may_split or not self._balance.is_kept
        if isinstance(event, RoundDone) and not self._may_split:
            before = self._latest.get(index)
            self._latest[index] = event
            if before is not None and before.round == event.round - 1:
                self._settle(index, before)

    def ended(self, index: int, error: BaseException | None) -> None:
        """Compare the last round, which the closing COMMIT sealed."""
        if error is None and index in self._latest and not self._may_split:
            self._settle(index, self._latest[index])

    def came_back(self, index: int) -> None:
        """Its next round does not follow the last one."""
        self._latest.pop(index, None)

    def _settle(self, index: int, done: RoundDone) -> None:
        seal = compute_seal_digest(done.result.seal)
        known, first = self._final.setdefault(done.round, (seal, index))
        if known != seal:
            self.fail(done.round, f"peers {first} and {index} finished round {done.round} with different seals")


class NoFalseBan(Checker):
    """No honest peer is ever banned; under synchrony none is removed that lives, or is back at once after a crash."""

    invariant = Invariant.NO_FALSE_BAN

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._balance = Balance(truth)

    def observe(self, index: int, event: Event) -> None:
        """Look at who leaves."""
        if not isinstance(event, Departed) or not self._balance.is_kept:
            self._balance.note(event)
            return
        victim = self.truth.index(event.peer)
        spared = self.truth.prompt if self.truth.is_synchronous else frozenset()
        is_wrong = (event.kind is DepartureKind.BAN and victim in self.truth.honest) or (
            event.kind is DepartureKind.REMOVAL and victim in spared
        )
        if is_wrong:
            kind, cause = event.kind.value, event.cause.value
            self.fail(event.round, f"honest peer {victim} left by {kind} ({cause}), says peer {index}")
        self._balance.note(event)

    def ended(self, index: int, error: BaseException | None) -> None:
        """Look at who was thrown out."""
        is_spared = self.truth.is_synchronous and index in self.truth.prompt
        is_banned = isinstance(error, Banned) and self._balance.is_kept
        if is_banned or (isinstance(error, Removed) and is_spared):
            self.fail(0, f"honest peer {index} was thrown out: {error}")


class Accountability(Checker):
    """Whoever changes an outcome is gone: soon where it is provable, else with the odds of the law.

    ``acts`` tells, by peer, the round in which each adversary first cheated.
    """

    invariant = Invariant.ACCOUNTABILITY
    WITHIN: ClassVar[Mapping[str, int]] = {
        "wrong-aggregate": 2,
        "lying-projection": 2,
        "equivocate": 2,
        "withhold-reveal": 2,
        "false-accusation": 2,
        "false-naming": 2,
    }
    """Rounds after its first act in which a provable cheat is still on the roster, at most."""
    BY_CHANCE: ClassVar = frozenset({"sign-flip", "random-direction"})
    LEAST_LOG_ODDS: ClassVar = math.log(1e-9)

    def __init__(self, truth: Truth, acts: Callable[[], Mapping[int, int]]) -> None:
        super().__init__(truth)
        self._acts = acts
        self._newest = 0
        self._log_odds: dict[int, float] = {}

    def observe(self, index: int, event: Event) -> None:
        """Look, once per round, at who should be gone by now."""
        if not isinstance(event, RoundDone) or event.round <= self._newest or not self.truth.is_synchronous:
            return
        self._newest = event.round
        acts = self._acts()
        present = [self.truth.index(peer) for peer in event.roster]
        for culprit in sorted(set(present) & acts.keys()):
            self._judge(culprit, event.round, acts[culprit], present)

    def _judge(self, culprit: int, round_number: int, acted: int, present: list[int]) -> None:
        kinds = self.truth.adversaries[culprit].split("+")
        if all(kind in self.WITHIN for kind in kinds):
            if round_number > acted + max(self.WITHIN[kind] for kind in kinds):
                self.fail(
                    round_number, f"peer {culprit} ({'+'.join(kinds)}) cheated in round {acted} and is still here"
                )
        elif all(kind in self.WITHIN or kind in self.BY_CHANCE for kind in kinds) and round_number > acted + 2:
            self._judge_odds(culprit, round_number, present)

    def _judge_odds(self, culprit: int, round_number: int, present: list[int]) -> None:
        size, bad = len(present), len([index for index in present if index in self.truth.adversaries])
        chance = self.truth.validators / (size - 1) * (size - bad) / size
        odds = self._log_odds[culprit] = self._log_odds.get(culprit, 0.0) + math.log1p(-chance)
        if odds < self.LEAST_LOG_ODDS:
            self.fail(round_number, f"peer {culprit} cheated for so long that chance does not explain it")


class Progress(Checker):
    """Rounds continue, and Byzantine peers force no more recoveries than they have pairs to use up.

    Only under synchrony. ``look`` is to be called now and then with the virtual time.
    """

    invariant = Invariant.PROGRESS

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._newest, self._seen, self._since = 0, 0, 0.0
        self._balance, self._members, self._ended = Balance(truth), set[int](), set[int]()
        self._recoveries: dict[int, int] = {}
        self._has_failed = False

    @property
    def most_recoveries(self) -> int:
        """What adversaries and crashes can force in a run (attacks C1): each Byzantine f+1 pairs and itself."""
        bad, size = len(self.truth.adversaries), len(self.truth.peers)
        tolerated = (size + 1) // 2 - 1
        return bad * (tolerated + 2) + 3 * len(self.truth.crashed)

    def observe(self, index: int, event: Event) -> None:
        """Count rounds and recoveries."""
        self._balance.note(event)
        if isinstance(event, RoundDone | Promoted):
            self._members.add(index)
        if isinstance(event, RoundDone):
            self._newest = max(self._newest, event.round)
        if isinstance(event, Recovered) and self.truth.is_synchronous:
            count = self._recoveries[index] = self._recoveries.get(index, 0) + 1
            if count > self.most_recoveries and not self._has_failed:
                self._has_failed = True
                self.fail(
                    event.round, f"peer {index} went through {count} recoveries, more than {self.most_recoveries}"
                )

    def ended(self, index: int, error: BaseException | None) -> None:
        """An honest peer ends with its run; no error of its own code ends it ever."""
        self._ended.add(index)
        expected = isinstance(error, BtardError) and not isinstance(error, OWN_MISTAKES)
        if error is not None and not expected:
            self.fail(self._newest, f"peer {index} broke: {type(error).__name__}: {error}")
        elif error is not None and self._must_go_on(index) and not self._is_too_late(index, error):
            self.fail(self._newest, f"peer {index} stopped: {type(error).__name__}: {error}")

    def came_back(self, index: int) -> None:
        """It is a stranger again."""
        self._members.discard(index)

    def _must_go_on(self, index: int) -> bool:
        return self.truth.is_synchronous and index in self.truth.prompt and self._balance.is_kept

    def _is_too_late(self, index: int, error: BaseException) -> bool:
        """Whether a stranger found the run at its end."""
        is_over = self._newest >= self.truth.rounds - 1
        return index not in self._members and is_over and isinstance(error, Refused | Unreachable)

    def look(self, now: float) -> bool:
        """Return whether the swarm stands still: no round was finished for a long time.

        After the last one, and when all honest members have ended, strangers may look for it still: that is no fault.
        """
        if self._newest > self._seen:
            self._seen, self._since = self._newest, now
        is_still = now - self._since > self.truth.patience_s
        is_over = self._newest >= self.truth.rounds and self._members <= self._ended | {*self.truth.adversaries}
        if is_still and not is_over and self.truth.is_synchronous and self._balance.is_kept:
            self.fail(self._newest + 1, f"no round was finished for {self.truth.patience_s:.0f} virtual seconds")
        return is_still


class NothingLost(Checker):
    """No honest peer ever signs two messages for one slot, and every ban has its evidence on disk."""

    invariant = Invariant.NOTHING_LOST

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._signed: dict[Slot, bytes] = {}
        self._bans: dict[int, set[tuple[bytes, int]]] = {}
        self._balance = Balance(truth)
        self._keys = {truth.peers[index]: index for index in truth.honest}

    def see(self, message: SignedMessage) -> None:
        """Take note of a message, verified, whoever sent it on."""
        index = self._keys.get(message.sender)
        if index is not None and self._signed.setdefault(message.slot, message.digest) != message.digest:
            stage = message.slot.stage
            self.fail(stage.round, f"honest peer {index} signed two messages for {stage}")

    def observe(self, index: int, event: Event) -> None:
        """Remember who was banned."""
        self._balance.note(event)
        if isinstance(event, Departed) and event.kind is DepartureKind.BAN:
            self._bans.setdefault(index, set()).add((event.peer, event.round))

    def came_back(self, index: int) -> None:
        """What it knew before is in the ledger that was audited; the new one begins after that."""
        self._bans.pop(index, None)

    def audit(self, index: int, problems: Iterable[str], recorded: Iterable[tuple[bytes, int]]) -> None:
        """Compare a peer's ledger with what it told: ``recorded`` are the bans in it, by peer and round.

        Where the Byzantine came to be half, what a peer follows needs to convince nobody else.
        """
        for problem in problems if self._balance.is_kept else ():
            self.fail(0, f"the ledger of peer {index} does not hold: {problem}")
        for peer, round_number in sorted(self._bans.get(index, set()) - set(recorded)):
            victim = self.truth.index(peer)
            self.fail(round_number, f"peer {index} banned {victim} and has no evidence of it on disk")

"""Where a peer stands in the run, and what it waits for there: the round moves it, the services read it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from btard.identity import PeerId
from btard.rules.marks import Marks
from btard.rules.messages import SignedMessage, Stage
from btard.rules.roster import Roster

HEARD_AFTER = 3
"""Δ after we have come to something: by then we have asked for what follows, and hear of all that begins later."""


@dataclass
class Expectation:
    """What a stage needs to be complete: a valid message of every member, signed in the same context.

    ``complete`` are the messages that count once all are here; what comes later changes nothing.
    """

    stage: Stage
    roster: Roster
    signed_roster: bytes
    previous: bytes
    is_valid: Callable[[SignedMessage], bool]
    complete: dict[PeerId, SignedMessage] | None = field(default=None, compare=False, repr=False)
    _verdicts: dict[bytes, bool] = field(default_factory=dict, compare=False, repr=False)

    def accepts(self, message: SignedMessage) -> bool:
        """Return whether a message counts for this stage; once said, it stays."""
        verdict = self._verdicts.get(message.digest)
        if verdict is None:
            verdict = self._verdicts[message.digest] = self._judge(message)
        return verdict

    def _judge(self, message: SignedMessage) -> bool:
        return (
            message.sender in self.roster.everyone
            and message.roster == self.signed_roster
            and message.previous == self.previous
            and self.is_valid(message)
        )


@dataclass
class Place:
    """Where this peer stands in the run; ``is_agreed``: AGREE is complete here.

    ``is_over``: it is settled that the attempt ends, by that or because somebody leaves. After a restart we know from
    ``on_time_from`` on that we hear of a recovery as it begins. ``is_behind``: the others may have waited for us since,
    and still do, unless a stage is complete after ``behind_until`` or we have said something new.
    """

    round: int = 0
    attempt: int = 0
    serial: int = 0
    roster: Roster = Roster(())
    common: Marks = field(default_factory=Marks)
    last: Expectation | None = None
    current: Expectation | None = None
    overdue: bool = False
    is_agreed: bool = False
    is_over: bool = False
    on_time_from: float = 0.0
    behind_until: float = 0.0
    is_behind: bool = False

    def come_back(self, now: float, delay_s: float) -> None:
        """Take part again after a restart."""
        self.is_behind = True
        self.on_time_from = self.behind_until = now + HEARD_AFTER * delay_s

    def finish_stage(self, now: float, delay_s: float) -> None:
        """Leave a stage that is complete: long ago, maybe, where we have not heard of everything yet."""
        self.is_behind &= now < self.behind_until
        if self.is_behind:
            self.on_time_from = self.behind_until = now + HEARD_AFTER * delay_s

    def take_up(self, now: float, delay_s: float) -> None:
        """Go on from what was settled; as late as that reaches us what follows it may."""
        if now < self.on_time_from:
            self.on_time_from = now + HEARD_AFTER * delay_s

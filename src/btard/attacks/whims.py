"""
Whims: an adversary without a plan, which draws anew for every stage whom it tells, when, and what it says beside that.

Planned attacks try what their author thought of. Most faults that reviews have found were a handful of small acts, each
allowed by itself, in an order that nobody had thought of: so here the seed thinks of the order.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from btard.attacks.attacker import Attacker, choose, prefer
from btard.attacks.equivocation import sign_another
from btard.identity import Identity, PeerId
from btard.rules.messages import AnyPayload, Commit, Halt, Holding, Phase, Position, SignedMessage, Stage, View
from btard.rules.roster import Roster
from btard.swarm.frames import Kind
from btard.wire import encode, open_message, prove_equivocation, sign_message

Weights = Mapping[str, int]
TELLINGS: Final[Weights] = {"all": 24, "one": 2, "but one": 2, "half": 1, "late": 2, "late to one": 2, "nobody": 1}
"""Whom to tell what is due, by how often."""
HALTS: Final[Weights] = {"none": 24, "proof": 3, "slander": 1, "empty": 1, "bulky": 1, "huge": 1, "two": 1}
"""What HALT to say beside it, by how often."""
VIEWS: Final[Weights] = {"true": 3, "blank": 2, "one less": 2, "overdue": 1}
"""What view to show, by how often."""
LEAVINGS: Final[Weights] = {"stay": 40, "leave": 1}
"""Whether to say goodbye in a COMMIT."""
BULK: Final = {"bulky": 1_000, "huge": 160_000, "two": 160_000}
EDGES: Final = 2
"""The first and the last so many rounds know no calm."""


def draw_often(weights: Weights, *reasons: object) -> str:
    """Return a key, as often as its weight says; the same for equal reasons."""
    return choose([key for key, weight in weights.items() for _ in range(weight)], *reasons)


class Whims(Attacker):
    """Every second round is calm: then it is honest. In the others each stage has its own whim.

    It signs every slot once, but for HALTs, and shows a proof against itself only when it likes: a proof that it can
    have at any time, for it needs nothing but its own key. All who share the seed have equal whims in one half of the
    stages, so that they act as one there.
    """

    def __init__(self, first_round: int, seed: int, me: PeerId, last_round: int, delay_s: float) -> None:
        super().__init__(first_round)
        self._seed, self._me, self._last_round, self._delay_s = seed, me, last_round, delay_s
        self._has_halted: set[Stage] = set()

    def _has_whims(self, stage: Stage) -> bool:
        number = self.round_of(stage)
        is_edge = not EDGES < number <= self._last_round - EDGES
        return self.is_due(number) and (is_edge or choose((True, False), self._seed, "whims", number))

    def _reasons(self, stage: Stage, what: str) -> Sequence[object]:
        is_common = choose((True, False), self._seed, "common", tuple(stage))
        return (self._seed, what, tuple(stage), self.newest_round, *(() if is_common else (self._me,)))

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return another view now and then, and a goodbye once in many rounds."""
        if not self._has_whims(stage):
            return payload
        changed = payload
        if isinstance(payload, View):
            changed = _show(payload, draw_often(VIEWS, *self._reasons(stage, "view")), roster, self._me)
        elif isinstance(payload, Commit) and draw_often(LEAVINGS, *self._reasons(stage, "leave")) == "leave":
            changed = replace(payload, goodbye=True)
        if changed != payload:
            self.note_act(self.newest_round)
        return changed

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Return the message for those whom we like to tell now, and begin what we say beside it."""
        stage = message.slot.stage
        if not self._has_whims(stage) or self.nursery is None:
            return message.envelope
        self._halt(message, identity, run_id, self.nursery)
        telling = draw_often(TELLINGS, *self._reasons(stage, "tell"))
        favourite = prefer(self.victims, *self._reasons(stage, "favourite")) == recipient
        is_told, is_late = {
            "all": (True, False),
            "one": (favourite, False),
            "but one": (not favourite, False),
            "half": (choose((True, False), *self._reasons(stage, "half"), recipient), False),
            "late": (True, True),
            "late to one": (favourite, True),
            "nobody": (False, False),
        }[telling]
        if telling != "all":
            self.note_act(self.newest_round)
        if is_told and is_late:
            self.nursery.start_soon(self._send_later, recipient, message.envelope, self._draw_wait(stage, recipient))
        return message.envelope if is_told and not is_late else None

    def _draw_wait(self, stage: Stage, recipient: PeerId) -> float:
        return self._delay_s * choose((0.3, 0.9, 1.9, 2.9, 3.9, 6.0), *self._reasons(stage, "wait"), recipient)

    async def _send_later(self, recipient: PeerId, envelope: bytes, wait_s: float) -> None:
        await trio.sleep(wait_s)
        if self.hub is not None:
            self.hub.send(recipient, Kind.MESSAGE, envelope)

    def _halt(self, message: SignedMessage, identity: Identity, run_id: bytes, nursery: trio.Nursery) -> None:
        """Say a HALT to some, now or later, where we like to; once in a stage."""
        stage = message.slot.stage
        kind = draw_often(HALTS, *self._reasons(stage, "halt"))
        if kind == "none" or stage in self._has_halted:
            return
        self._has_halted.add(stage)
        self.note_act(self.newest_round)
        place = Stage(0, stage.attempt, Phase.HALT, choose((0, 0, 0, 1, 2), *self._reasons(stage, "serial")))
        position = Position(*map(int, stage))
        victims = tuple(sorted(peer for peer in self.victims if peer != self._me))
        slandered = victims and (choose(victims, *self._reasons(stage, "slander")),)
        texts = {
            "proof": [Halt(position, (self._me,), (_prove_ourselves(message, identity, run_id),))],
            "slander": [Halt(position, slandered or (), ())],
            "empty": [Halt(position, (), ())],
        }.get(kind) or [Halt(position, (), (letter * BULK[kind],)) for letter in (b"x", b"y")[: 1 + (kind == "two")]]
        told = choose((victims, victims[::2], victims[:1]), *self._reasons(stage, "told"))
        for text in texts:
            envelope = sign_message(identity, run_id, message.roster, place, b"", text).envelope
            for peer in told:
                nursery.start_soon(self._send_later, peer, envelope, self._draw_wait(stage, peer) / 2)


def _show(view: View, whim: str, roster: Roster, me: PeerId) -> View:
    """Return the view with what is wanted of it; a blank one is what a restarted member might show."""
    if whim == "overdue":
        return replace(view, overdue=not view.overdue)
    if whim == "true":
        return view
    own = roster.members.index(me) if me in roster else 0

    def forget(held: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if whim == "blank":
            return tuple(b"" for _ in held)
        dropped = (own + 1) % len(held) if held else 0
        return tuple(b"" if place == dropped else item for place, item in enumerate(held))

    return replace(view, holdings=tuple(Holding(item.position, forget(item.digests)) for item in view.holdings))


def _prove_ourselves(message: SignedMessage, identity: Identity, run_id: bytes) -> bytes:
    """Return a proof that we signed two things for the slot of ``message``, which nobody has seen the second of."""
    return encode(prove_equivocation(message, open_message(run_id, sign_another(message, identity, run_id))))

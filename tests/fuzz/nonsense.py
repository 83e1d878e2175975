"""What a member of a run may say or do that makes no sense: signed oddities, broken words, data that nobody wants."""

import itertools

from tests.fuzz.generate import HEADS, Generator
from tests.fuzz.strangers import make_control

from btard.identity import Identity
from btard.net.requests import encode_request
from btard.net.session import REQUEST
from btard.rules.messages import Phase, Stage
from btard.swarm.board import RECOVERY_PHASES
from btard.swarm.frames import Kind, SliceHead, SliceRequest
from btard.wire import encode

FAR = 4  # rounds or attempts ahead
GUILTY = 1 / 20_000
"""How often it signs what convicts it: then its part in this swarm is over."""
RECOVERY = (Phase.HALT, Phase.VIEW, Phase.BALLOT)


class Nonsense:
    """A source of what a member throws; ``round`` and ``attempt`` are where the swarm is."""

    def __init__(self, generator: Generator, identity: Identity, run_id: bytes, roster: bytes) -> None:
        self.round = self.attempt = 0
        self._generator, self._chance = generator, generator.chance
        self._identity, self._run_id, self._roster = identity, run_id, roster
        self._serials = itertools.count(7)

    def make_lethal(self) -> tuple[int, bytes]:
        """Return what ends a member's link: no message, no request, or somebody else's words."""
        generator, recorded = self._generator, self._generator.recorded()
        match self._chance.randrange(4):
            case 0:
                return make_control(generator)
            case 1:
                return Kind.MESSAGE, generator.mutate(recorded)
            case 2:
                return Kind.MESSAGE, generator.resigned(self._identity, recorded)
            case _:
                return Kind.MESSAGE, self._sign()

    def make_bearable(self) -> tuple[int, bytes]:
        """Return what a member may say, and what makes no sense: odd but valid payloads, repetitions, questions."""
        roll = self._chance.random()
        with self._generator.fitting():
            if roll < 0.8:
                return Kind.MESSAGE, self._sign()
            if roll < 0.85:
                return Kind.MESSAGE, self._generator.recorded_heard()
            return REQUEST, encode_request(self._chance.randrange(2**32), *self._ask())

    def _sign(self) -> bytes:
        """Return an envelope with our signature over something odd."""
        chance = self._chance
        if chance.random() < GUILTY:
            stage = Stage(self.round + 1, self.attempt, chance.choice(list(Phase)), chance.randrange(2))
        else:
            stage = self._choose_harmless_stage(chance.randint(FAR, 2**20), chance.choice(list(Phase)))
        return self._generator.signed(self._identity, self._run_id, self._roster, stage)

    def _choose_harmless_stage(self, far: int, phase: Phase) -> Stage:
        """Return a stage in which we never say anything else: far away, past, or of a recovery that never comes.

        Two messages for one slot would convict us: a past stage is none of a recovery, and no recovery comes twice.
        """
        past = phase if phase not in RECOVERY_PHASES else Phase.CHECK
        stages = [
            Stage(self.round + far, self.attempt, phase),
            Stage(max(0, self.round - far), self.attempt, past),
            Stage(self.round, self.attempt + far, phase, far % 3),
            Stage(0, self.attempt + 1, self._chance.choice(RECOVERY), next(self._serials)),
        ]
        return self._chance.choice(stages)

    def _ask(self) -> tuple[int, bytes]:
        """Return the kind and the body of a question."""
        if self._chance.random() < 0.3:
            first, count = self._chance.randrange(20), self._chance.randint(1, 5)
            return Kind.PULL_SLICE, encode(SliceRequest(self.round, self._chance.randbytes(32), first, first + count))
        kind = self._chance.choice([Kind.PULL_STAGE, Kind.PULL_PART, 77])
        return kind, self._generator.struct(HEADS.get(kind, SliceHead))

    def make_bulk(self) -> tuple[int, bytes, memoryview]:
        """Return the kind, the head and a payload that does not fit it, or that nobody asked for."""
        kind = self._chance.choice([Kind.SLICE, Kind.PART])
        size = self._chance.choice([0, 1, 4, 32, 33, 320, 800, 1 << 16])
        with self._generator.fitting():
            return kind, self._generator.struct(HEADS[kind])[: 16 << 10], memoryview(bytes(size))

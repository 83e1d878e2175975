"""Attacks by silence: what was promised is not sent."""

import trio

from btard.attacks.attacker import Attacker, prefer
from btard.identity import PeerId
from btard.net import Hub
from btard.net.session import RequestHandler
from btard.rules.messages import AnyPayload, Phase, Stage
from btard.rules.roster import Roster


class Withhold(Attacker):
    """Keeps its slice from some aggregators, and does not publish it when they complain.

    Victims are the first ``victims`` aggregators that a round would serve, or all of them where it is 0.
    """

    def __init__(self, first_round: int, *, victims: int = 0, is_published: bool = False) -> None:
        super().__init__(first_round)
        self._victims, self._is_published = victims, is_published
        self._chosen: dict[int, list[PeerId]] = {}

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for a victim."""
        if not self.is_due(round_number):
            return True
        chosen = self._chosen.setdefault(round_number, [])
        if recipient not in chosen and (not self._victims or len(chosen) < self._victims):
            chosen.append(recipient)
        if recipient not in chosen:
            return True
        self.note_act(round_number)
        return False

    def publishes_slice(self, round_number: int) -> bool:
        """Return whether to publish when somebody complains."""
        return self._is_published or not self.is_due(round_number)


class WithholdReveal(Attacker):
    """Never reveals the nonce of the draw r: it will not have the directions that it has seen coming."""

    def says(self, stage: Stage) -> bool:
        """Return False for REVEAL."""
        if stage.phase is not Phase.REVEAL or not self.is_due(stage.round):
            return True
        self.note_act(stage.round)
        return False


class WithholdPart(Attacker):
    """Keeps its aggregate from everyone, or from one victim alone that it chooses anew in every round."""

    def __init__(self, first_round: int, seed: int, *, is_from_all: bool = False) -> None:
        super().__init__(first_round)
        self._seed, self._is_from_all = seed, is_from_all

    def sends_part(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for the victim."""
        if not self.is_due(round_number):
            return True
        if not self._is_from_all and prefer(self.victims, self._seed, round_number) != recipient:
            return True
        self.note_act(round_number)
        return False


class WithholdFromOne(Attacker):
    """Keeps its slice from one victim, the same in every round, and publishes it when that one complains."""

    def __init__(self, first_round: int, seed: int) -> None:
        super().__init__(first_round)
        self._seed = seed

    def sends_slice(self, round_number: int, recipient: PeerId) -> bool:
        """Return False for the victim."""
        if not self.is_due(round_number) or prefer(self.victims, self._seed) != recipient:
            return True
        self.note_act(round_number)
        return False


class Deaf(Attacker):
    """Answers no request: what it does not send, nobody gets from it."""

    async def accompany(self, hub: Hub) -> None:
        """Wrap every handler of requests."""
        for kind, serve in list(hub.serve.items()):
            hub.serve[kind] = self._wrap(serve)
        await super().accompany(hub)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload, and learn the round from its stage."""
        self.round_of(stage)
        return payload

    def _wrap(self, serve: RequestHandler) -> RequestHandler:
        async def hear_nothing(peer: PeerId, body: bytes) -> tuple[bytes, memoryview | None]:
            if self.is_due(self.newest_round):
                self.note_act(self.newest_round)
                await trio.sleep_forever()
            return await serve(peer, body)

        return hear_nothing

"""Attacks by silence: what was promised is not sent."""

from collections.abc import Callable

import trio

from btard.attacks.attacker import Attacker, choose, prefer
from btard.identity import PeerId
from btard.net import Hub, Loan
from btard.rules.messages import AnyPayload, Phase, Stage
from btard.rules.roster import Roster
from btard.swarm.frames import Kind


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


class WithholdWord(Attacker):
    """Never says its message of one phase.

    Of REVEAL: it will not have the directions that it has seen coming. Of BALLOT: it shows its view and votes for
    nothing, so that no certificate forms. Of CONCLUDE: it keeps to itself what the final vector gave.
    """

    def __init__(self, first_round: int, phase: Phase) -> None:
        super().__init__(first_round)
        self._phase = phase

    def says(self, stage: Stage) -> bool:
        """Return False for that phase."""
        if not self.act_in(stage) or stage.phase is not self._phase:
            return True
        self.note_act(self.round_of(stage))
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

    def __init__(self, first_round: int) -> None:
        super().__init__(first_round)
        self._is_deaf = False

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload; from the first round on no handler of requests is left."""
        if self.act_in(stage) and self.hub is not None and not self._is_deaf:
            self._is_deaf = True
            self.hub.serve.update(dict.fromkeys(self.hub.serve, self._hear_nothing))
        return payload

    async def _hear_nothing(self, peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        self.note_act(self.newest_round)
        await trio.sleep_forever()


class WithholdFrames(Attacker):
    """Sends control frames of some kinds to nobody, or (``to_half``) to one half of the others, drawn in each round."""

    def __init__(self, first_round: int, seed: int, kinds: frozenset[Kind], *, to_half: bool = False) -> None:
        super().__init__(first_round)
        self._seed, self._kinds, self._to_half = seed, kinds, to_half
        self.send_all_the_same: Callable[[PeerId, int, bytes], None] = lambda peer, kind, head: None

    async def accompany(self, hub: Hub) -> None:
        """Stand between the protocol and the links."""
        self.send_all_the_same = hub.send
        hub.send = self._send  # type: ignore[method-assign]
        await super().accompany(hub)

    def _send(self, peer: PeerId, kind: int, head: bytes) -> None:
        is_kept = kind in self._kinds and self.is_due(self.newest_round)
        if is_kept:
            self.note_act(self.newest_round)
        if not is_kept or (self._to_half and self.is_chosen(peer)):
            self.send_all_the_same(peer, kind, head)

    def is_chosen(self, peer: PeerId) -> bool:
        """Return whether a peer belongs to the half of this round; the same for all who share the seed."""
        return choose((True, False), self._seed, "half", self.newest_round, peer)

    def says(self, stage: Stage) -> bool:
        """Return True, and learn the round from the stage."""
        self.round_of(stage)
        return True

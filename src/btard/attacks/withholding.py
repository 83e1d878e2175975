"""Attacks by silence: what was promised is not sent."""

from btard.attacks.attacker import Attacker
from btard.identity import PeerId
from btard.rules.messages import Phase, Stage


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

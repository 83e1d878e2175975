"""Attacks on justice: accuse the innocent, name the truthful, look away."""

from btard.attacks.attacker import Attacker, choose
from btard.identity import PeerId


class FalseAccusation(Attacker):
    """As a validator, accuses its target whatever it found."""

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Return guilty."""
        if not self.is_due(round_number):
            return guilty
        if not guilty:
            self.note_act(round_number)
        return True


class LazyValidator(Attacker):
    """As a validator, never accuses; nobody can prove that it did not look."""

    def verdict(self, round_number: int, target: PeerId, guilty: bool) -> bool:
        """Return not guilty."""
        if not self.is_due(round_number):
            return guilty
        if guilty:
            self.note_act(round_number)
        return False


class FalseNaming(Attacker):
    """As an aggregator, names a contributor whose report on its part is true."""

    def __init__(self, first_round: int, seed: int, me: PeerId) -> None:
        super().__init__(first_round)
        self._seed, self._me = seed, me

    def namings(
        self, round_number: int, false_reporters: tuple[PeerId, ...], contributors: tuple[PeerId, ...]
    ) -> tuple[PeerId, ...]:
        """Return the false reporters and one that is not."""
        truthful = [peer for peer in contributors if peer not in false_reporters and peer != self._me]
        if not self.is_due(round_number) or not truthful:
            return false_reporters
        self.note_act(round_number)
        return (*false_reporters, choose(truthful, self._seed, round_number))

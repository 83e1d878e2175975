"""
Attacks on what a message says: well-formed, signed once, told to everyone alike, and untrue.

Nobody who does only this equivocates; what it says has to be found false, or to make no difference.
"""

from abc import abstractmethod

from msgspec.structs import replace

from btard.attacks.attacker import Attacker, choose
from btard.identity import Context, PeerId, digest
from btard.rules.messages import (
    AnyPayload,
    Attest,
    Ballot,
    Commit,
    Confirm,
    Holding,
    Opinion,
    Phase,
    Reveal,
    Stage,
    View,
    Vote,
)
from btard.rules.roster import Roster


class Rephrase(Attacker):
    """Signs another payload than it should."""

    def __init__(self, first_round: int, seed: int, me: PeerId) -> None:
        super().__init__(first_round)
        self._seed, self._me = seed, me

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return what ``rephrase`` makes of it once the attack has begun."""
        number = self.round_of(stage)
        other = self.rephrase(stage, roster, payload) if self.is_due(number) else payload
        if other is not payload:
            self.note_act(number)
        return other

    @abstractmethod
    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the payload to sign; the same object where there is nothing to change."""


class LieInAttest(Rephrase):
    """Attests to hold whatever is asked for, or (``denies``) to hold nothing at all."""

    def __init__(self, first_round: int, seed: int, me: PeerId, *, denies: bool = False) -> None:
        super().__init__(first_round, seed, me)
        self._claim = not denies

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the same answer to every complaint."""
        if not isinstance(payload, Attest) or all(held is self._claim for held in payload.held):
            return payload
        return Attest(tuple(self._claim for _ in payload.held))


class VoteAgainst(Rephrase):
    """Votes against the evidence: who is guilty is innocent, who is innocent is guilty, or did not publish."""

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the opposite opinion on every dispute."""
        if not isinstance(payload, Vote):
            return payload
        others = tuple(peer for peer in roster.members if peer != self._me)
        blamed = choose((Opinion(others, (), ()), Opinion((), others, ())), self._seed, tuple(stage))
        innocent = Opinion((), (), ())
        return Vote(tuple(innocent if item.guilty or item.silent else blamed for item in payload.opinions))


class LieInView(Rephrase):
    """Shows a view of what it does not hold: everything, nothing, or something else than it was sent."""

    LIES = ("all", "nothing", "other")

    def __init__(self, first_round: int, seed: int, me: PeerId, *, lie: str = "") -> None:
        super().__init__(first_round, seed, me)
        self._lie = lie

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the view with other digests, and the opposite of the truth about its deadline."""
        if not isinstance(payload, View):
            return payload
        lie = self._lie or choose(self.LIES, self._seed, tuple(stage))
        holdings = tuple(_forge_holding(holding, lie) for holding in payload.holdings)
        return replace(payload, holdings=holdings, supplied=(), overdue=not payload.overdue)


def _forge_holding(holding: Holding, lie: str) -> Holding:
    def forge(place: int, held: bytes) -> bytes:
        invented = digest(Context.EXPAND, b"never sent", bytes([place]), held)
        return {"all": held or invented, "nothing": b"", "other": invented}[lie]

    return Holding(holding.position, tuple(forge(place, held) for place, held in enumerate(holding.digests)))


class LieAboutPosition(Rephrase):
    """Shows a view from one stage earlier than it is in, as if it had been left behind."""

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the view from the place where the previous one ended."""
        if not isinstance(payload, View) or len(payload.holdings) < 2:
            return payload
        return replace(payload, position=payload.holdings[0].position, holdings=payload.holdings[:1], supplied=())


class LieInBallot(Rephrase):
    """Votes in every recovery for views that nobody has, or calls a member silent that was heard."""

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return a ballot that no other will equal."""
        if not isinstance(payload, Ballot):
            return payload
        others = tuple(peer for peer in roster.members if peer != self._me and peer not in payload.silent)
        slandered = choose((None, *others), self._seed, tuple(stage))
        if slandered is not None:
            return Ballot(tuple(sorted({*payload.silent, slandered})), payload.views)
        return replace(payload, views=digest(Context.EXPAND, b"no views", payload.views))


class OtherState(Rephrase):
    """Claims to have come to another state than everyone else."""

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the COMMIT with another digest of x."""
        if not isinstance(payload, Commit):
            return payload
        return replace(payload, state=digest(Context.EXPAND, b"another state", payload.state))


class BadSeal(Rephrase):
    """Signs something else in place of the previous round's seal."""

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the COMMIT with a signature that is none."""
        return replace(payload, seal=bytes(len(payload.seal))) if isinstance(payload, Commit) else payload


class BreakPromise(Rephrase):
    """Reveals another nonce than it promised, in one of the two draws."""

    def rephrase(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Return the REVEAL or CONFIRM with another nonce."""
        phase = choose((Phase.REVEAL, Phase.CONFIRM), self._seed, stage.round)
        if stage.phase is not phase or not isinstance(payload, Reveal | Confirm):
            return payload
        return replace(payload, nonce=digest(Context.EXPAND, b"another nonce", payload.nonce))

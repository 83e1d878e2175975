"""
What a recovery settled, with its proof: certificate or conclusion, and the decision that follows from its views.

Everything here is a function of signed messages: a member that took part, one that was only told, and an audit years
later come to the same decision.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from btard.errors import RemoteProtocolError
from btard.identity import Context, PeerId, digest
from btard.net import MAX_CONTROL
from btard.rules.agreement import find_conclusion
from btard.rules.config import RunConfig
from btard.rules.evidence import CertificateProof, ConclusionProof, EquivocationProof
from btard.rules.messages import Halt, Phase, SignedMessage, Stage, View
from btard.rules.recovery import (
    Decision,
    Equivocation,
    belongs,
    compute_views_digest,
    decide,
    find_certificate,
    is_equivocation,
    is_first_try,
)
from btard.rules.roster import Roster
from btard.wire import decode, open_header, open_message

log = structlog.get_logger(__name__)

Messages = Mapping[PeerId, SignedMessage]


def hold_nothing(_stage: Stage) -> Messages:
    """Be somebody who was not there."""
    return {}


@dataclass(frozen=True)
class Settlement:
    """The agreed views of a recovery, and the equal BALLOTs or CONCLUDEs that say so.

    ``unvoted`` showed a view without a vote, ``split`` two of a kind, as far as CONCLUDEs say.
    """

    views: Messages
    unvoted: tuple[PeerId, ...]
    split: tuple[PeerId, ...]
    votes: tuple[SignedMessage, ...]

    @property
    def stage(self) -> Stage:
        """The stage of the votes, which tells attempt and serial."""
        return self.votes[0].slot.stage

    @property
    def order(self) -> tuple[int, int]:
        """By which a later one is known: attempt and serial."""
        return self.stage.attempt, self.stage.serial

    @property
    def roster(self) -> bytes:
        """The digest of the members that voted."""
        return self.votes[0].roster

    @property
    def is_certificate(self) -> bool:
        """Whether ballots settled it, without the fallback."""
        return self.stage.phase is Phase.BALLOT

    @property
    def digest(self) -> bytes:
        """By which the next attempt names it; the same for a certificate and for a conclusion from its views."""
        return digest(Context.VIEWS, compute_views_digest(self.views), *self.unvoted, *self.split)

    @property
    def ballots(self) -> CertificateProof:
        """A certificate as it is told to those who voted: whoever signed such a ballot holds the views."""
        return CertificateProof(tuple(vote.envelope for vote in self.votes), ())

    @property
    def proof(self) -> CertificateProof | ConclusionProof:
        """What the ledger keeps and others are told."""
        views = tuple(self.views[peer].envelope for peer in sorted(self.views))
        votes = tuple(vote.envelope for vote in self.votes)
        return CertificateProof(votes, views) if self.is_certificate else ConclusionProof(votes, views)


def settle_by_ballots(roster: Roster, ballots: Messages, views: Messages) -> Settlement | None:
    """Return the certificate that ballots make, if the views that they name are among ``views``."""
    found = find_certificate(roster, ballots)
    if found is None:
        return None
    silent, views_digest, votes = found
    named = {peer: view for peer, view in views.items() if peer not in silent}
    return Settlement(named, (), (), votes) if compute_views_digest(named) == views_digest else None


def settle_by_conclusions(roster: Roster, conclusions: Messages, views: Messages) -> Settlement | None:
    """Return what more than half of the roster conclude, if it is about exactly these views."""
    found = find_conclusion(roster, conclusions)
    if found is None or found[0].views != compute_views_digest(views):
        return None
    unvoted, split = (tuple(map(PeerId, peers)) for peers in (found[0].unvoted, found[0].split))
    return Settlement(views, unvoted, split, found[1])


def open_settlement(
    config: RunConfig, roster: Roster, attempt: int, body: bytes, held: Callable[[Stage], Messages] = hold_nothing
) -> Settlement | None:
    """Return the settlement that another member shows, or None if it proves nothing to this roster in this attempt.

    Ballots may come without views, to who signed an equal one: they are among those of their stage that are ``held``.

    Raises:
        RemoteProtocolError: malformed, or a bad signature.
    """
    proof: CertificateProof | ConclusionProof = decode(
        body,
        CertificateProof | ConclusionProof,  # type: ignore[arg-type]
        limit=MAX_CONTROL,
    )
    envelopes, phase = (
        (proof.ballots, Phase.BALLOT) if isinstance(proof, CertificateProof) else (proof.conclusions, Phase.CONCLUDE)
    )
    votes, views = _open_all(config, envelopes), _open_all(config, proof.views)
    serials = {vote.slot.stage.serial for vote in votes.values()}
    if len(serials) != 1:
        return None
    stage = Stage(0, attempt, phase, serials.pop())
    viewing = stage._replace(phase=Phase.VIEW)
    if phase is Phase.BALLOT and not views:
        views = {peer: view for peer, view in held(viewing).items() if belongs(view, roster, viewing)}
    is_ours = all(belongs(vote, roster, stage) for vote in votes.values())
    if not is_ours or not all(belongs(view, roster, viewing) for view in views.values()):
        return None
    return (settle_by_ballots if phase is Phase.BALLOT else settle_by_conclusions)(roster, votes, views)


def _open_all(config: RunConfig, envelopes: Iterable[bytes]) -> dict[PeerId, SignedMessage]:
    return {message.sender: message for message in (open_message(config.run_id, item) for item in envelopes)}


def draw_decision(config: RunConfig, roster: Roster, settlement: Settlement) -> Decision:
    """Return what follows from agreed views."""
    views = {peer: view.payload for peer, view in settlement.views.items() if isinstance(view.payload, View)}
    serial = settlement.stage.serial
    return decide(
        roster,
        views,
        find_equivocations(config, views.values()),
        roster.tolerated(config.byzantine_bound),
        open_supplied(config, views.values()),
        is_first=is_first_try(serial, views.values()),
        unvoted=settlement.unvoted,
        split=settlement.split,
        halts=_open_halts(config, views.values(), settlement),
        attempt=settlement.stage.attempt,
    )


def find_equivocations(config: RunConfig, views: Iterable[View]) -> tuple[Equivocation, ...]:
    """Return what views prove, of each culprit the earliest."""
    shown = [item for view in views for item in open_evidence(config, view.evidence)]
    found = {item.culprit: item for item in sorted(shown, key=lambda item: item.order, reverse=True)}
    return tuple(found[peer] for peer in sorted(found))


def open_evidence(config: RunConfig, proofs: Iterable[bytes]) -> list[Equivocation]:
    """Return the equivocations among pieces of evidence; anybody may send anything, what proves nothing is ignored."""
    opened = []
    for proof in proofs:
        with suppress(RemoteProtocolError):
            pair: EquivocationProof = decode(proof, EquivocationProof)
            first, second = (open_header(config.run_id, item) for item in (pair.first, pair.second))
            if is_equivocation(first, second):
                opened.append(Equivocation(first, second))
    return opened


def open_supplied(config: RunConfig, views: Collection[View]) -> list[SignedMessage]:
    """Return the messages that agreed views supply; what is no message was supplied by a cheat."""
    opened = []
    for envelope in sorted({envelope for view in views for envelope in view.supplied}):
        try:
            opened.append(open_message(config.run_id, envelope))
        except RemoteProtocolError as error:
            log.warning("a view supplied a bad message", reason=str(error))
    return opened


def _open_halts(config: RunConfig, views: Iterable[View], settlement: Settlement) -> list[SignedMessage]:
    """The HALTs of this recovery that views answer."""
    opened = []
    for envelope in sorted({view.halt for view in views}):
        with suppress(RemoteProtocolError):
            halt = open_message(config.run_id, envelope)
            is_ours = halt.slot.stage == settlement.stage._replace(phase=Phase.HALT)
            if isinstance(halt.payload, Halt) and is_ours and halt.roster == settlement.roster:
                opened.append(halt)
    return opened

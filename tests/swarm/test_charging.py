"""A candidate's going is written down with the seal that says so, and taken back with it."""

from pathlib import Path

from msgspec.structs import replace
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, Idle, build, find, play, require_sound

from btard.identity import Identity, PeerId
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import Confirm, Finding, Phase, SignedMessage
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, RoundDone
from btard.swarm.ledger import Ledger
from btard.wire import sign_message


class SplitsOverItsCharge(Conduct):
    """The first checker to charge says two things in the CONFIRM in which that charge is answered."""

    culprit: PeerId | None = None
    round: int | None = None

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Tell every second member that the sample is true after all."""
        said, number = message.payload, message.slot.stage.round
        if not isinstance(said, Confirm) or identity.peer_id not in {item.checker for item in said.answers}:
            return message.envelope
        if self.culprit is None:
            self.culprit, self.round = identity.peer_id, number
        if (self.culprit, self.round) != (identity.peer_id, number) or recipient[-1] % 2:
            return message.envelope
        other = replace(said, answers=tuple(replace(item, finding=Finding.UNKNOWN) for item in said.answers))
        return sign_message(identity, run_id, message.roster, message.slot.stage, message.previous, other).envelope


def test_ban_is_taken_back_with_the_round_that_decided_it(tmp_path: Path) -> None:
    """Without its author the charge is none; the candidate goes by the next one, and no ledger knows another story."""
    cheat = SplitsOverItsCharge()
    swarm = build(tmp_path, {STRANGER: COMES_S}, {**dict.fromkeys(range(1, MEMBERS), cheat), STRANGER: Idle()})
    outcome = play(swarm)
    assert cheat.round is not None
    bans = {event.peer: event for event in find(outcome, 0, Departed) if event.kind is DepartureKind.BAN}
    candidate = swarm.identities[STRANGER].peer_id
    assert {peer: event.cause for peer, event in bans.items()} == {
        cheat.culprit: Cause.EQUIVOCATION,
        candidate: Cause.FALSE_GRADIENT,
    }
    with Ledger.create(swarm.data_dir(0), swarm.config, swarm.identities[0].peer_id) as ledger:
        kept = [(item.round, item.attempt) for item in ledger.departures() if item.peer == candidate]
    assert kept == [(bans[candidate].round, bans[candidate].attempt)]
    assert kept[0][0] > cheat.round
    require_sound(swarm, outcome)


def test_ban_of_a_candidate_begins_no_attempt(tmp_path: Path) -> None:
    """It changes no roster of speakers: nobody says AGREE, no recovery settles anything, no round is run again."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: Idle()})
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    assert {event.attempts for event in find(outcome, 0, RoundDone)} == {1}
    with Ledger.create(swarm.data_dir(0), swarm.config, swarm.identities[0].peer_id) as ledger:
        phases = {Phase(row[0]) for row in ledger._database.execute("SELECT DISTINCT phase FROM messages")}
    assert phases & {Phase.VOTE, Phase.VIEW, Phase.BALLOT, Phase.HALT} == set()
    require_sound(swarm, outcome)

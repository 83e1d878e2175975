"""A candidate's going is written down with the seal that says so, and taken back with it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.swarm.joining_scenes import COMES_S, MEMBERS, STRANGER, Idle, build, find, play, require_sound

from btard.identity import Identity, PeerId
from btard.rules.evidence import Cause, DepartureKind
from btard.rules.messages import AnyPayload, Commit, Confirm, Finding, Phase, Report, SignedMessage, Stage
from btard.rules.roster import Roster
from btard.swarm.conduct import Conduct
from btard.swarm.events import Departed, RoundDone
from btard.swarm.ledger import Ledger
from btard.wire import sign_message


class SplitsOverItsCharge(Conduct):
    """The first checker to charge says two things in the CONFIRM in which that charge is answered."""

    culprit: PeerId | None = None
    round: int | None = None

    def is_culprit(self, me: PeerId, said: Confirm) -> bool:
        """Whoever charges."""
        return me in {item.checker for item in said.answers}

    def deliver(self, message: SignedMessage, recipient: PeerId, identity: Identity, run_id: bytes) -> bytes | None:
        """Tell every second member that the sample is true after all."""
        said, number = message.payload, message.slot.stage.round
        if not isinstance(said, Confirm) or not self.is_culprit(identity.peer_id, said):
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
    swarm = build(tmp_path, {STRANGER: 3.3}, {**dict.fromkeys(range(1, MEMBERS), cheat), STRANGER: Idle()})
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
    """It changes no roster of speakers: no recovery settles anything but the end of the run, no round is run again."""
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: Idle()})
    outcome = play(swarm)
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    assert {event.attempts for event in find(outcome, 0, RoundDone)} == {1}
    with Ledger.create(swarm.data_dir(0), swarm.config, swarm.identities[0].peer_id) as ledger:
        said = Counter(Phase(row[0]) for row in ledger._database.execute("SELECT phase FROM messages"))
    assert (said[Phase.AGREE], said[Phase.VIEW], said[Phase.BALLOT]) == (1, 1, 1)
    assert not {Phase.VOTE, Phase.HALT} & said.keys()
    require_sound(swarm, outcome)


class LiesOnce(Conduct):
    """A candidate that makes up one sample, its fifth: as it is charged it is about to be a member."""

    said = 0

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Say what no gradient gives."""
        self.said += 1
        return Report((0.0,) * 10, 1.0) if self.said == 5 else compute()


class SplitsOverACharge(SplitsOverItsCharge):
    """One member, not the checker, says two things in the CONFIRM in which a charge is answered."""

    def is_culprit(self, me: PeerId, said: Confirm) -> bool:
        """Anybody but the checker."""
        return bool(said.answers) and me not in {item.checker for item in said.answers}


def test_round_that_is_run_again_finds_the_same_of_its_charges(tmp_path: Path) -> None:
    """By then the x of the round that the sample is of may be gone: what it gave is remembered."""
    cheat = SplitsOverACharge()
    swarm = build(tmp_path, {STRANGER: COMES_S}, {1: cheat, 2: cheat, STRANGER: LiesOnce()}, rounds=30)
    outcome = play(swarm)
    assert cheat.round is not None
    causes = {event.peer: event.cause for event in find(outcome, 0, Departed) if event.kind is DepartureKind.BAN}
    assert causes == {
        cheat.culprit: Cause.EQUIVOCATION,
        swarm.identities[STRANGER].peer_id: Cause.FALSE_GRADIENT,
    }
    require_sound(swarm, outcome)


class LiesAndLeaves(Conduct):
    """Makes up its seventh sample, the last, and is silent or says goodbye in the round that charges it with that."""

    def __init__(self, *, says_goodbye: bool) -> None:
        self._says_goodbye, self._said = says_goodbye, 0
        self._charged_in = 0

    def sample(self, round_number: int, compute: Callable[[], Report]) -> Report:
        """Work only until the check would come too late to keep it out."""
        self._said += 1
        if self._said != 7:
            return compute()
        self._charged_in = round_number + 3
        return Report((0.0,) * 10, 1.0)

    def payload(self, stage: Stage, roster: Roster, payload: AnyPayload) -> AnyPayload:
        """Say goodbye in that COMMIT."""
        is_last = self._says_goodbye and isinstance(payload, Commit) and stage.round == self._charged_in
        return replace(payload, goodbye=True, root=b"") if is_last else payload

    def says(self, stage: Stage) -> bool:
        """Or say nothing after it."""
        return self._says_goodbye or stage.round != self._charged_in or stage.phase is Phase.COMMIT


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_whoever_leaves_is_judged_all_the_same(tmp_path: Path, *, says_goodbye: bool) -> None:
    """A member that was charged with its last sample as a candidate does not escape by going in that very round."""
    liar = LiesAndLeaves(says_goodbye=says_goodbye)
    swarm = build(tmp_path, {STRANGER: COMES_S}, {STRANGER: liar}, rounds=30)
    outcome = play(swarm)
    kinds = {(event.kind, event.cause) for event in find(outcome, 0, Departed)}
    assert (DepartureKind.BAN, Cause.FALSE_GRADIENT) in kinds
    assert outcome.departures(DepartureKind.BAN).keys() == {STRANGER}
    require_sound(swarm, outcome)

"""What members are asked about the past, by their like or by strangers, costs them a few looks and no more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.rules.build import make_config

from btard.errors import Removed
from btard.identity import Identity, PeerId
from btard.net import Hub, MemoryNetwork, Terms
from btard.rules.evidence import Cause, Departure, DepartureKind
from btard.rules.messages import Phase, Position, Resume, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature
from btard.swarm import halting
from btard.swarm.adopting import Adopting
from btard.swarm.broadcast import Broadcast
from btard.swarm.conduct import Conduct
from btard.swarm.frames import Kind, SettledRequest
from btard.swarm.halting import Resuming, SealedRound
from btard.swarm.joining.turnstile import PEER
from btard.swarm.ledger import Ledger
from btard.wire import compute_seal_digest, encode, sign_message, sign_seal

Clock = trio.testing.MockClock
MEMBERS = ME, ONE, TWO, THREE, FOUR = tuple(Identity(bytes([number]) * 32) for number in range(1, 6))
GONE, NOBODY = Identity(b"g" * 32), Identity(b"n" * 32)
ROSTER = Roster.of([identity.peer_id for identity in MEMBERS])
CONFIG = make_config(founder=ME.peer_id.hex())
MORE = 16


class Asked:
    """A member in attempt 3, which somebody has left; what it looks up, verifies and ends by is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
        self.hub = Hub(MemoryNetwork().transport(ME, Terms(CONFIG.run_id)), ME.peer_id)
        self.hub.favour(lambda peer: peer in ROSTER)
        broadcast = Broadcast(CONFIG, ME, self.hub, ledger, Conduct())
        broadcast.place.roster, broadcast.place.attempt, broadcast.place.round = ROSTER, 3, 2
        self.found, self.opened, self.verified, self.endings = list[int](), 0, 0, list[Exception]()
        adopting = Adopting(CONFIG, broadcast, ledger, lambda event: None)
        Resuming(CONFIG, broadcast, ledger, adopting.find_proof, self.endings.append)
        ledger.record_departure(Departure(GONE.peer_id, 1, 1, DepartureKind.REMOVAL, Cause.SILENCE, None))
        find, open_one, verify = Ledger.find_settlement, halting.open_message, halting.find_valid_signatures

        def find_and_count(self_: Ledger, attempt: int) -> bytes:
            self.found.append(attempt)
            return find(self_, attempt)

        def open_and_count(run_id: bytes, envelope: bytes) -> Any:
            self.opened += 1
            return open_one(run_id, envelope)

        def verify_and_count(seal: Seal, signatures: Any) -> Any:
            self.verified += len(signatures)
            return verify(seal, signatures)

        monkeypatch.setattr(Ledger, "find_settlement", find_and_count)
        monkeypatch.setattr(halting, "open_message", open_and_count)
        monkeypatch.setattr(halting, "find_valid_signatures", verify_and_count)

    def tell(self, kind: Kind, peer: PeerId, body: bytes) -> None:
        """Receive what a peer sends."""
        self.hub.on_control[kind](peer, body)

    def resume(self, identity: Identity, attempt: int = 1) -> None:
        """Hear a RESUME of an attempt."""
        stage, said = Stage(0, attempt, Phase.RESUME), Resume(Position(1, attempt, int(Phase.COMMIT), 0), ())
        envelope = sign_message(identity, CONFIG.run_id, ROSTER.digest, stage, b"", said).envelope
        self.tell(Kind.RESUME, identity.peer_id, envelope)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A fresh one."""
    with Ledger.create(tmp_path, CONFIG, ME.peer_id) as opened:
        yield opened


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Asked:
    """Whoever is asked."""
    return Asked(monkeypatch, ledger)


async def test_questions_for_settlements_have_a_pace(asked: Asked, autojump_clock: Clock) -> None:
    """Beyond the burst each waits for its turn, and each costs one look."""
    body = encode(SettledRequest(1))
    async with trio.open_nursery() as nursery:
        for _ in range(PEER[1] + MORE):
            nursery.start_soon(asked.hub.serve[Kind.PULL_SETTLED], ONE.peer_id, body)
        await trio.testing.wait_all_tasks_blocked()
        assert asked.found == [1] * PEER[1]
    assert asked.found == [1] * (PEER[1] + MORE)


async def test_only_members_learn_what_settled_an_attempt(asked: Asked, autojump_clock: Clock) -> None:
    """A stranger costs no look."""
    assert await asked.hub.serve[Kind.PULL_SETTLED](GONE.peer_id, encode(SettledRequest(1))) == (b"", None)
    assert asked.found == []


@pytest.mark.parametrize(("who", "looks", "times"), [(GONE, 1, 1), (NOBODY, 0, 0), (ONE, 1, MORE)])
async def test_a_resume_is_looked_at_if_it_may_be_answered(
    who: Identity, looks: int, times: int, asked: Asked, autojump_clock: Clock
) -> None:
    """Who has left has its signature verified and the past looked up once in 2Δ; nothing of who never was here is."""
    for turn in range(1, 3):
        for _ in range(MORE):
            asked.resume(who)
        assert (len(asked.found), asked.opened) == (turn * looks, turn * times)
        await trio.sleep(2 * CONFIG.delay_s)


async def test_a_stranger_that_says_nothing_of_use_has_had_its_turn(asked: Asked, autojump_clock: Clock) -> None:
    """RESUMEs of our own attempt, which are answered with nothing, are verified as seldom."""
    for _ in range(MORE):
        asked.resume(GONE, attempt=3)
    assert (asked.found, asked.opened) == ([], 1)


def make_seal(previous: bytes, roster: tuple[Identity, ...]) -> Seal:
    """The seal of the first round, or the founder's."""
    members = tuple(sorted(bytes(identity.peer_id) for identity in roster))
    return Seal(CONFIG.run_id, int(bool(previous)), 0, b"", b"s" * 32, b"", members, (), previous, b"q" * 32, 5)


FIRST = make_seal(b"", MEMBERS)
NEXT = make_seal(compute_seal_digest(FIRST), MEMBERS[1:])
QUORUM = (ONE, TWO, THREE)


@pytest.mark.parametrize(
    ("teller", "seal", "signers", "verified"),
    [
        (ONE, NEXT, QUORUM, 3),
        (ONE, NEXT, (*QUORUM, *QUORUM, GONE), 3),
        (GONE, NEXT, QUORUM, 0),
        (NOBODY, NEXT, QUORUM, 0),
        (ONE, make_seal(b"p" * 32, MEMBERS[1:]), QUORUM, 0),
        (ONE, make_seal(compute_seal_digest(FIRST), MEMBERS), QUORUM, 0),
        (ONE, FIRST, QUORUM, 0),
        (ONE, NEXT, (ONE, TWO) * 100, 0),
        (ONE, NEXT, (ONE, TWO, GONE, NOBODY), 0),
    ],
)
async def test_only_a_seal_that_may_be_the_next_is_verified(
    teller: Identity, seal: Seal, signers: tuple[Identity, ...], verified: int, asked: Asked, ledger: Ledger
) -> None:
    """A member must show it, it must follow ours without us, and more than half must seem to have signed it."""
    ledger.record_seal(FIRST)
    signatures = tuple(SealSignature(identity.peer_id, sign_seal(identity, seal)) for identity in signers)
    asked.tell(Kind.SEAL, teller.peer_id, encode(SealedRound(seal, signatures)))
    assert asked.verified == verified
    assert [type(item) for item in asked.endings] == [Removed] * bool(verified)

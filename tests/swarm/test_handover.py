"""What a candidate believes of the run: only what more than half of the members hand over alike."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from btard.errors import RemoteProtocolError
from btard.identity import Identity, PeerId
from btard.rules.config import RunConfig
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.frames import Kind
from btard.swarm.joining.handover import MAX_HANDOVER, Handovers
from btard.swarm.records import WorkRecord
from btard.wire import encode

KEYS = [Identity(bytes([number]) * 32) for number in range(1, 8)]
ME, *MEMBERS = [key.peer_id for key in KEYS]
ROSTER = Roster.of(MEMBERS)
CONFIG = RunConfig(founder=MEMBERS[0].hex(), genesis_size=6, elements=100, chunk_size=10)


class Links:
    """The handlers of a hub."""

    me = ME

    def __init__(self) -> None:
        self.on_control: dict[int, Callable[[PeerId, bytes], None]] = {}


def make_place(round_number: int = 5, attempt: int = 0) -> WorkRecord:
    """A place in the run, with nothing open."""
    zero = bytes(32)
    seal = Seal(CONFIG.run_id, round_number - 1, attempt, zero, zero, b"", ROSTER.members, (), zero, zero, 5)
    members, none = ROSTER.members, ()
    return WorkRecord(
        seal, attempt, members, none, zero, none, none, none, attempt, members, none, b"", False, none, none, none,
        none, none, none, 0, none, none, none, none, none,
    )  # fmt: skip


@pytest.fixture
def links() -> Links:
    """The hub of a candidate."""
    return Links()


@pytest.fixture
def handovers(links: Links) -> Handovers:
    """A candidate among six members."""
    return Handovers(CONFIG, links, ROSTER)  # type: ignore[arg-type]


def hand_over(links: Links, place: WorkRecord, peers: list[PeerId]) -> None:
    """Let peers hand over the same."""
    for peer in peers:
        links.on_control[Kind.HANDOVER](peer, encode(place))


@pytest.mark.parametrize("count", [3, 4])
def test_more_than_half_are_believed(links: Links, handovers: Handovers, count: int) -> None:
    """Four of six are, three are not."""
    hand_over(links, make_place(), MEMBERS[:count])
    assert handovers._believed == (make_place() if count == 4 else None)


def test_one_member_counts_once(links: Links, handovers: Handovers) -> None:
    """Saying it again makes no majority."""
    hand_over(links, make_place(), [*MEMBERS[:3], *MEMBERS[:3]])
    assert handovers._believed is None


def test_strangers_hand_over_nothing(links: Links, handovers: Handovers) -> None:
    """Nor do those who were members once."""
    handovers.trust(Roster.of(MEMBERS[:5]))
    hand_over(links, make_place(), [*MEMBERS[:2], MEMBERS[5], ME])
    assert handovers._believed is None


def test_later_places_are_believed_and_earlier_ones_are_not(links: Links, handovers: Handovers) -> None:
    """A round begun again has a later attempt, and is news."""
    for place, is_news in ((make_place(6), True), (make_place(5), False), (make_place(5, attempt=1), True)):
        hand_over(links, place, MEMBERS)
        assert (handovers._believed == place) is is_news


def test_place_of_another_run_is_none(links: Links, handovers: Handovers) -> None:
    """Whoever tells it."""
    place = make_place()
    hand_over(links, replace(place, seal=replace(place.seal, run_id=bytes(32))), MEMBERS)
    assert handovers._believed is None


@pytest.mark.parametrize("roster", [ROSTER.members[::-1], (ROSTER.members[0],) * 2], ids=["unsorted", "twice"])
def test_absurd_roster_is_no_message(links: Links, handovers: Handovers, roster: tuple[PeerId, ...]) -> None:
    """Should more than half be cheats: it ends their links, and not the candidate."""
    with pytest.raises(RemoteProtocolError, match="no run"):
        hand_over(links, replace(make_place(), roster=roster), MEMBERS)
    assert handovers._believed is None


def test_bytes_that_are_no_place_are_no_message(links: Links, handovers: Handovers) -> None:
    """Nor are any kept that are too many."""
    for peer in MEMBERS[:3]:
        links.on_control[Kind.HANDOVER](peer, b"\xc1")
        links.on_control[Kind.HANDOVER](peer, bytes(MAX_HANDOVER + 1))
    with pytest.raises(RemoteProtocolError):
        links.on_control[Kind.HANDOVER](MEMBERS[3], b"\xc1")

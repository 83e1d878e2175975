"""What a candidate believes of the run: only what more than half of the members hand over alike."""

from collections.abc import Callable

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from btard.errors import RemoteProtocolError, RequestTimedOut
from btard.identity import Identity, PeerId
from btard.net import Message
from btard.rules.config import RunConfig
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.frames import Kind
from btard.swarm.joining.handover import MAX_HANDOVER, TELLERS, Handovers, draw_tellers, name_place
from btard.swarm.records import WorkRecord
from btard.wire import encode

KEYS = [Identity(bytes([number]) * 32) for number in range(1, 8)]
ME, *MEMBERS = [key.peer_id for key in KEYS]
ROSTER = Roster.of(MEMBERS)
CONFIG = RunConfig(founder=MEMBERS[0].hex(), genesis_size=6, elements=100, chunk_size=10)


class Links:
    """The handlers of a hub; ``answers`` are what members answer to a request, nothing where there is none."""

    me = ME

    def __init__(self) -> None:
        self.on_control: dict[int, Callable[[PeerId, bytes], None]] = {}
        self.answers: dict[PeerId, bytes] = {}
        self.asked: list[PeerId] = []

    def is_connected(self, peer: PeerId) -> bool:
        """Have a link to all but one."""
        return peer != MEMBERS[5]

    async def request(self, peer: PeerId, kind: int, body: bytes, *, timeout_s: float) -> Message:
        """Be a member's answer to a question for the place that it named."""
        assert (kind, body) == (Kind.PLACE, b"")
        self.asked.append(peer)
        await trio.sleep(0.1)
        if peer not in self.answers:
            raise RequestTimedOut("no answer")
        return Message(kind, self.answers[peer], None)


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


def name_to(links: Links, body: bytes, peers: list[PeerId]) -> None:
    """Let peers tell the digest of a place."""
    for peer in peers:
        links.on_control[Kind.PLACE](peer, name_place(body))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_digest_counts_like_the_place(links: Links, handovers: Handovers, is_first: bool) -> None:
    """One hands it over and three name it: before it comes, or after."""
    place = make_place()
    for step in ((hand_over, place, MEMBERS[:1]), (name_to, encode(place), MEMBERS[1:4]))[:: 1 if is_first else -1]:
        assert handovers._believed is None
        step[0](links, *step[1:])  # type: ignore[operator]
    assert handovers._believed == place


def test_a_place_that_others_do_not_name_is_not_believed(links: Links, handovers: Handovers) -> None:
    """Four name one, and a fifth hands over another; nor do names of other lengths count."""
    name_to(links, encode(make_place(6)), MEMBERS[:4])
    hand_over(links, make_place(5), MEMBERS[4:])
    for peer in MEMBERS:
        links.on_control[Kind.PLACE](peer, b"x" * 31)
    assert handovers._believed is None


async def test_whoever_lacks_the_place_asks_those_who_name_it(
    autojump_clock: object, links: Links, handovers: Handovers
) -> None:
    """The drawn ones were silent: of those that name it one is silent, one lies, and the third has it."""
    place = make_place()
    name_to(links, encode(place), MEMBERS[1:5])
    links.answers = {MEMBERS[2]: encode(make_place(9)), MEMBERS[3]: encode(place), MEMBERS[4]: encode(place)}
    assert await handovers.next(None) == place
    assert links.asked == MEMBERS[1:4]


async def test_nobody_is_asked_for_what_comes_by_itself(
    autojump_clock: object, links: Links, handovers: Handovers
) -> None:
    """The names may be faster than the place; and who waits on asks nobody for a place that it has."""
    place = make_place()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handovers.next, None)
        await trio.testing.wait_all_tasks_blocked()
        name_to(links, encode(place), MEMBERS[:4])
        await trio.sleep(CONFIG.delay_s / 8)
        hand_over(links, place, MEMBERS[4:])
        name_to(links, encode(place), MEMBERS[:4])
    with trio.move_on_after(100) as patience:
        await handovers.next(place)
    assert patience.cancelled_caught
    assert links.asked == []


@pytest.mark.parametrize("rubbish", [bytes(MAX_HANDOVER + 1), b"\xc1", b""], ids=["too long", "no place", "empty"])
@pytest.mark.parametrize("count", [3, 4])
async def test_what_members_told_before_we_listened_is_asked_for(
    autojump_clock: object, links: Links, handovers: Handovers, count: int, rubbish: bytes
) -> None:
    """An answer counts as the word of one member; rubbish counts for nothing and does no harm."""
    links.answers = {peer: encode(make_place()) if peer in MEMBERS[:count] else rubbish for peer in MEMBERS}
    await handovers.ask_all()
    assert set(links.asked) == set(MEMBERS[:5])
    assert handovers._believed == (make_place() if count == 4 else None)


async def test_what_a_member_says_by_itself_is_newer_than_its_answer(
    autojump_clock: object, links: Links, handovers: Handovers
) -> None:
    """Three answer with the place before the one that they hand over meanwhile: a fourth is enough for the newer."""
    links.answers = dict.fromkeys(MEMBERS[:3], encode(make_place(5)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handovers.ask_all)
        await trio.testing.wait_all_tasks_blocked()
        hand_over(links, make_place(6), MEMBERS[:3])
    hand_over(links, make_place(6), MEMBERS[3:4])
    assert handovers._believed == make_place(6)


@pytest.mark.parametrize("size", [2, 4, 5, 16, 100])
def test_some_are_drawn_to_hand_a_place_over(size: int) -> None:
    """At most four, at least one, all of them members; over many draws everybody takes turns."""
    roster = Roster.of([Identity(bytes([number]) * 32).peer_id for number in range(1, size + 1)])
    drawn = [draw_tellers(bytes([number, 7]) * 16, ME, roster) for number in range(256)]
    assert all(1 <= len(tellers) <= TELLERS for tellers in drawn)
    assert frozenset.union(*drawn) == set(roster.members)


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

"""How far strangers came, as the seals have it."""

from btard.cli.demo_story import Story
from btard.cli.demo_ways import Way, explain_rejection, read_seals, read_ways, report_newcomers, trace_ways
from btard.identity import Identity
from btard.rules.config import RunConfig
from btard.rules.seal import Candidate, Seal
from btard.swarm.ledger import Ledger

from .small_plans import add_strangers, make_small_plan
from .test_demo_story import departed_event, finished_event

ANN, BOB, CAT, EVE = (bytes([number]) * 32 for number in (1, 2, 3, 4))
IDENTITY = Identity(bytes(32))
CONFIG = RunConfig(founder=IDENTITY.peer_id.hex(), elements=64, chunk_size=8)


def seal(number: int, roster: list[bytes], *since: tuple[bytes, int]) -> Seal:
    """Return the seal of a round with this roster and these candidates."""
    candidates = tuple(Candidate(peer, begun, 0) for peer, begun in since)
    run_id, root = CONFIG.run_id, bytes(32)
    return Seal(run_id, number, 0, b"", root, b"", tuple(roster), (), b"", root, 5, candidates)


SEALS = [
    seal(0, [ANN, BOB]),
    seal(1, [ANN, BOB], (CAT, 1)),
    seal(2, [ANN, BOB], (CAT, 1), (EVE, 2)),
    seal(3, [ANN, BOB, CAT], (EVE, 2)),
    seal(4, [BOB, CAT]),
]


def test_ways_are_read_off_the_seals():
    """A stranger joined with its first seal as a candidate; it is a member from the round after the one that tells."""
    ways = trace_ways(SEALS)
    assert ways == {CAT.hex(): Way(1, promoted_in=4), EVE.hex(): Way(2, lapsed_in=4)}


def test_whoever_comes_again_is_on_its_last_way():
    """One that lapsed and was admitted again is what it is the second time."""
    again = [*SEALS, seal(5, [BOB, CAT], (EVE, 5)), seal(6, [BOB, CAT, EVE])]
    assert trace_ways(again)[EVE.hex()] == Way(5, promoted_in=7)


def test_a_member_that_leaves_was_promoted():
    """What happens after a promotion does not take it back."""
    assert trace_ways([*SEALS, seal(5, [BOB])])[CAT.hex()] == Way(1, promoted_in=4)


def test_ways_are_those_of_the_longest_ledger(tmp_path):
    """A ledger that ends early, or is not there, says less; nothing is written."""
    for name, count in (("short", 2), ("long", 5)):
        with Ledger.create(tmp_path / name, CONFIG, IDENTITY.peer_id) as ledger:
            for item in SEALS[:count]:
                ledger.record_seal(item)
            ledger.sync()
    paths = [tmp_path / name / "ledger.sqlite3" for name in ("missing", "short", "long")]
    assert [len(read_seals(path)) for path in paths] == [0, 2, 5]
    assert read_ways(paths) == trace_ways(SEALS)
    assert read_ways([]) == {}


def test_why_a_stranger_stayed_outside(tmp_path):
    """A ban or a removal that an honest peer tells of comes first; else the seals say how far it came."""
    story = Story(add_strangers(make_small_plan(tmp_path, None, None), "idle-candidate").players)
    sybil = story.strangers[0].player.peer
    assert explain_rejection(story, sybil, Way()) == ("never admitted", None)
    assert explain_rejection(story, sybil, Way(3)) == ("still on probation at the end", None)
    assert explain_rejection(story, sybil, Way(3, lapsed_in=19)) == ("lapsed, without blame", 19)
    story.tell(0, departed_event(sybil, 7))
    assert explain_rejection(story, sybil, Way(3, lapsed_in=7)) == ("banned: false-gradient", 7)


def test_newcomers_are_reported_apart(tmp_path):
    """Late joiners and Sybils have a list each; what a Sybil says of itself is not believed."""
    story = Story(add_strangers(make_small_plan(tmp_path, None, None), None, "idle-candidate").players)
    joiner, sybil = (account.player.peer for account in story.strangers)
    story.tell(2, finished_event())
    story.tell(3, {"event": "promoted", "round": 9})
    ways = {joiner: Way(5, promoted_in=11), sybil: Way(6)}
    (honest,), (idle,) = (report_newcomers(story, ways, is_sybil=is_sybil) for is_sybil in (False, True))
    assert (honest["id"], honest["comes_after_round"], honest["joined_in_round"]) == (joiner, 2, 5)
    assert (honest["promoted_in_round"], honest["rejected"], honest["ended"]) == (11, None, "finished")
    assert (idle["id"], idle["promoted_in_round"], idle["rejected"]) == (sybil, None, "still on probation at the end")

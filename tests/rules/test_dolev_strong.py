"""The bounds of the fallback: steps, signatures, and how many must be heard."""

from tests.rules.build import make_peers, make_roster

from btard.rules.agreement import can_settle
from btard.rules.dolev_strong import Extraction
from btard.rules.messages import Ballot

PEERS = make_peers(5)
ROSTER = make_roster(5)
BALLOT = Ballot((), b"v" * 32)


def test_nothing_counts_after_the_last_step() -> None:
    """With f = 2 a value counts until step 3, with three signatures; later no number of signatures helps."""
    assert Extraction().takes(ROSTER, 2, 3, PEERS[0], PEERS[:3])
    assert not Extraction().takes(ROSTER, 2, 3, PEERS[0], PEERS[:2])
    assert not Extraction().takes(ROSTER, 2, 4, PEERS[0], PEERS)


def test_fewer_than_a_majority_settle_nothing() -> None:
    """Whoever hears two of five waits, whatever the two say (attacks A8)."""
    assert not can_settle(ROSTER, dict.fromkeys(PEERS[:2], BALLOT), None)
    assert can_settle(ROSTER, dict.fromkeys(PEERS[:3], BALLOT), None)

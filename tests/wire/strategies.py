"""Hypothesis strategies: one for every payload a peer can send, and for the stages they are sent in."""

from hypothesis import strategies as st

from btard.identity import Identity
from btard.rules.messages import (
    Aggregate,
    Agree,
    Attest,
    Ballot,
    Check,
    Commit,
    Conclude,
    Confirm,
    DisputePublish,
    Halt,
    Hello,
    Holding,
    Opinion,
    Phase,
    Position,
    Publish,
    Report,
    Resume,
    Reveal,
    Stage,
    Unrelayed,
    Verdict,
    View,
    Vote,
)
from btard.rules.seal import Seal
from btard.wire import Ticket

RUN = b"\x01" * 32
ROSTER = b"\x02" * 32
ALICE = Identity(b"a" * 32)
MALLORY = Identity(b"m" * 32)

counts = st.integers(0, 2**53 - 1)
ids = st.binary(min_size=32, max_size=32)
optional_digests = st.just(b"") | ids
signatures = st.binary(min_size=64, max_size=64)
floats = st.floats(allow_nan=False)
envelopes = st.binary(max_size=200)
positions = st.builds(Position, counts, counts, st.integers(0, max(Phase)), counts)


def tuples(items: st.SearchStrategy) -> st.SearchStrategy:
    """Short tuples of ``items``."""
    return st.lists(items, max_size=5).map(tuple)


reports = st.builds(Report, tuples(floats), floats)

PAYLOADS = {
    Phase.HELLO: st.builds(Hello, counts, ids),
    Phase.COMMIT: st.builds(
        Commit,
        optional_digests,
        st.booleans(),
        tuples(st.builds(Verdict, ids, st.booleans())),
        ids,
        signatures,
        st.booleans(),
    ),
    Phase.AGGREGATE: st.builds(
        Aggregate, optional_digests, floats, tuples(ids), ids, tuples(st.builds(Unrelayed, ids, ids))
    ),
    Phase.REVEAL: st.builds(Reveal, ids, tuples(counts)),
    Phase.CHECK: st.builds(Check, tuples(reports), ids),
    Phase.CONFIRM: st.builds(Confirm, ids, tuples(ids)),
    Phase.PUBLISH: st.builds(Publish, ids),
    Phase.ATTEST: st.builds(Attest, tuples(st.booleans())),
    Phase.DISPUTE_PUBLISH: st.builds(DisputePublish, tuples(tuples(counts))),
    Phase.VOTE: st.builds(Vote, tuples(st.builds(Opinion, tuples(ids), tuples(ids), tuples(counts)))),
    Phase.HALT: st.builds(Halt, positions, tuples(ids), st.lists(envelopes, max_size=4).map(tuple)),
    Phase.VIEW: st.builds(
        View,
        positions,
        st.booleans(),
        st.lists(st.builds(Holding, positions, tuples(optional_digests)), max_size=2).map(tuple),
        tuples(envelopes),
        st.lists(envelopes, max_size=4).map(tuple),
        envelopes,
        tuples(counts),
        st.booleans(),
    ),
    Phase.BALLOT: st.builds(Ballot, tuples(ids), ids),
    Phase.RESUME: st.builds(Resume, positions, tuples(ids)),
    Phase.CONCLUDE: st.builds(Conclude, ids, tuples(ids), tuples(ids)),
    Phase.AGREE: st.builds(Agree, ids),
}

payloads = st.one_of(*PAYLOADS.values())


def stages_of(phase: Phase) -> st.SearchStrategy[Stage]:
    """Stages of one phase."""
    return st.builds(Stage, counts, counts, st.just(phase), counts)


statements = st.sampled_from(list(Phase)).flatmap(lambda phase: st.tuples(stages_of(phase), PAYLOADS[phase]))
"""A stage and a payload that belongs to it."""

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=70) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=25,
)
"""Any value that MessagePack can hold."""

seals = st.builds(
    Seal,
    ids,
    counts,
    counts,
    optional_digests,
    ids,
    optional_digests,
    tuples(ids),
    tuples(ids),
    optional_digests,
    ids,
    counts,
)

hosts = st.text(st.characters(codec="utf-8"), max_size=40)
tickets = st.builds(Ticket, ids, ids, tuples(hosts), optional_digests)

"""A small attack of every run of the tests; ``nox -s fuzz -- --frames 1000000`` is the large one."""

import random
import traceback

import pytest
import trio
from tests.fuzz.attack import Attack, find_suspicious
from tests.fuzz.delays import Delays
from tests.fuzz.generate import STRUCTS, Generator, is_chatter
from tests.fuzz.guidance import ALICE, RUN_ID, find_decoder, grow_corpus, observe
from tests.fuzz.summary import MAX_GROWTH, Summary

from btard.identity import PeerId
from btard.net.requests import encode_request
from btard.net.session import REQUEST
from btard.rules.messages import Phase, Stage
from btard.swarm.frames import Kind, SliceRequest
from btard.wire import decode, encode, open_message

FRAMES = 1500


def test_a_live_peer_bears_a_small_attack() -> None:
    """Thousands of malformed frames at a peer of a live swarm: no traceback, nobody leaves, the rounds go on."""
    seed = random.Random().randrange(2**32)
    summary = trio.run(Attack(FRAMES, seed, 200, lambda summary: None).run)
    assert summary.violations == [], "\n".join([f"seed {seed}", *summary.violations])
    assert summary.frames >= FRAMES
    assert set(summary.thrown) == {"unknown", "stranger", "member"}
    assert summary.rounds > 0


def test_decoders_answer_anything_with_a_value_or_their_mistake() -> None:
    """What the guided search tries leads nowhere else, or it would end here."""
    corpus, features = grow_corpus(random.Random().randrange(2**32), 1000)
    assert len(corpus) > 50
    assert features > 100


@pytest.mark.parametrize("wanted", STRUCTS, ids=lambda item: item.__name__)
def test_generated_values_fit_their_types_when_asked_to(wanted: type) -> None:
    """Odd values that a decoder takes are among what is thrown, for every struct on the wire."""
    generator = Generator(1)
    with generator.fitting():
        for _ in range(60):
            decode(generator.struct(wanted), wanted)


@pytest.mark.parametrize("phase", Phase)
def test_signed_oddities_pass_the_signature(phase: Phase) -> None:
    """The rules beyond the decoder are reached: odd payloads of every phase come with a good signature."""
    generator = Generator(2)
    with generator.fitting():
        for _ in range(20):
            envelope = generator.signed(ALICE, RUN_ID, bytes(32), Stage(1, 0, phase))
            assert open_message(RUN_ID, envelope).sender == ALICE.peer_id
    assert not is_chatter(Kind.MESSAGE, envelope)


def test_well_formed_questions_do_not_count_as_malformed() -> None:
    """Whatever a correct peer could ask is chatter, what it could not is none."""
    asked = encode(SliceRequest(1, bytes(32), 0, 1))
    assert is_chatter(REQUEST, encode_request(1, Kind.PULL_SLICE, asked))
    assert not is_chatter(REQUEST, encode_request(1, Kind.PULL_SLICE, asked[:-1]))
    assert not is_chatter(REQUEST, encode_request(1, 66, asked))
    assert not is_chatter(REQUEST, b"")


def test_a_finding_is_not_swallowed() -> None:
    """An exception of ours in a decoder ends the search."""

    def broken(data: bytes) -> object:
        raise ValueError(data)

    with pytest.raises(ValueError, match="bytes"):
        observe(broken, b"bytes")
    decoder, data = find_decoder(Generator(3), 1)
    assert observe(decoder, data)


CALM = {"epoch": 0, "rounds": 0, "rss": 0, "frames": {"stranger": 0}, "time": 0.0, "cpu": 0.0, "load": 1.0} | {
    "stall": 0.0,
    "delay": 0.0,
    "violations": [],
}


def test_the_verdict_notices_what_is_wrong() -> None:
    """Growth of memory, a pause of the rounds, a traceback and a dead target are each called a violation."""
    calm = [{**CALM, "frames": {"stranger": n}, "rounds": n, "time": 2.0 * n} for n in range(100)]
    assert Summary(statuses=calm, exit_code=0).violations == []
    growing = [{**item, "rss": n * MAX_GROWTH // 10} for n, item in enumerate(calm)]
    assert any("memory grew" in text for text in Summary(statuses=growing, exit_code=0).violations)
    paused = [{**item, "rounds": 0} for item in calm]
    assert any("no round" in text for text in Summary(statuses=paused, exit_code=0).violations)
    assert Summary(statuses=calm, exit_code=1).violations == ["the target ended with 1"]
    assert Summary(statuses=calm, tracebacks=["Traceback"], exit_code=0).violations == ["standard error: Traceback"]
    assert Summary().violations == ["the target never answered"]


def test_the_verdict_says_what_ended_the_target() -> None:
    """The exception is quoted from the deepest of the groups that it comes in; what is no mistake is not quoted."""
    with pytest.raises(ExceptionGroup) as caught:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("of a stranger's making")])])
    text = "".join(traceback.format_exception(caught.value))
    assert find_suspicious(f"a warning\n{text}")[-1] == "ValueError: of a stranger's making"
    assert find_suspicious("a warning\n") == []


@pytest.mark.parametrize(
    ("late", "cpu", "cause"),
    [
        ({}, 0.0, "was kept"),
        ({"delay": 5.0}, 0.1, "busy with others"),
        ({"stall": 5.0}, 0.1, "busy with others"),
        ({"delay": 5.0}, 0.9, "the attack kept the event loop busy"),
    ],
)
def test_the_verdict_tells_whether_delta_was_kept(late: dict[str, float], cpu: float, cause: str) -> None:
    """An honest peer that leaves is a bug, unless the machine gave the target no time to be synchronous."""
    statuses = [{**CALM, "time": float(n), "cpu": cpu * n} for n in range(20)]
    statuses[10] |= late
    statuses[-1] = {**statuses[-1], "violations": ["an honest peer departed"]}
    assert cause in Summary(statuses=statuses, exit_code=0).violations[1]


def test_the_harness_measures_what_honest_peers_wait_for() -> None:
    """Between honest peers every message is measured, lost ones are forgotten, and one under way counts already."""
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 10.0, 11.0])
    delays = Delays(lambda: next(clock))
    a, b, other = (PeerId(bytes([n]) * 32) for n in range(3))
    delays.restart({a, b})
    delays.note_sent(a, other, b"0")
    delays.note_sent(a, b, b"lost")
    delays.note_sent(a, b, b"1")
    delays.note_arrived(a, b, b"1")
    assert delays.take_worst() == 1.0
    delays.note_sent(b, a, b"2")
    assert delays.take_worst() == 5.0
    delays.note_arrived(b, a, b"2")
    assert delays.take_worst() == 6.0
    assert next(clock, None) is None

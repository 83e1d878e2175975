"""A small attack of every run of the tests; ``nox -s fuzz -- --frames 1000000`` is the large one."""

import random

import pytest
import trio
from tests.fuzz.attack import MAX_GROWTH, Attack, Summary
from tests.fuzz.generate import STRUCTS, Generator
from tests.fuzz.guidance import ALICE, RUN_ID, find_decoder, grow_corpus, observe

from btard.errors import RemoteProtocolError
from btard.rules.messages import Phase, Stage
from btard.wire import decode, open_message

FRAMES = 1500


def test_a_live_peer_bears_a_small_attack() -> None:
    """Thousands of malformed frames at a peer of a live swarm: no traceback, nobody leaves, the rounds go on."""
    summary = trio.run(Attack(FRAMES, random.Random().randrange(2**32), 200, lambda summary: None).run)
    assert summary.violations == []
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
    generator, taken = Generator(1), 0
    with generator.fitting():
        for _ in range(60):
            try:
                decode(generator.struct(wanted), wanted)
                taken += 1
            except RemoteProtocolError:
                continue
    assert taken


def test_signed_oddities_pass_the_signature() -> None:
    """The rules beyond the decoder are reached: the attacker's signatures over odd payloads are good."""
    generator, taken = Generator(2), 0
    with generator.fitting():
        for _ in range(200):
            envelope = generator.signed(ALICE, RUN_ID, bytes(32), Stage(1, 0, Phase.CHECK))
            try:
                taken += open_message(RUN_ID, envelope).sender == ALICE.peer_id
            except RemoteProtocolError:
                continue
    assert taken > 20


def test_a_finding_is_not_swallowed() -> None:
    """An exception of ours in a decoder ends the search."""

    def broken(data: bytes) -> object:
        raise ValueError(data)

    with pytest.raises(ValueError, match="bytes"):
        observe(broken, b"bytes")
    decoder, data = find_decoder(Generator(3), 1)
    assert observe(decoder, data)


def test_the_verdict_notices_what_is_wrong() -> None:
    """Growth of memory, a pause of the rounds, a traceback and a dead target are each called a violation."""
    read = {"stranger": 0}
    status = {"epoch": 0, "rounds": 0, "rss": 0, "frames": read, "time": 0.0, "stall": 0.0, "violations": []}
    calm = [{**status, "frames": {"stranger": n}, "rounds": n, "time": 2.0 * n} for n in range(100)]
    assert Summary(statuses=calm, exit_code=0).violations == []
    growing = [{**item, "rss": n * MAX_GROWTH // 10} for n, item in enumerate(calm)]
    assert any("memory grew" in text for text in Summary(statuses=growing, exit_code=0).violations)
    paused = [{**item, "rounds": 0} for item in calm]
    assert any("no round" in text for text in Summary(statuses=paused, exit_code=0).violations)
    assert Summary(statuses=calm, exit_code=1).violations == ["the target ended with 1"]
    assert Summary(statuses=calm, tracebacks=["Traceback"], exit_code=0).violations == ["standard error: Traceback"]
    assert Summary().violations == ["the target never answered"]

"""Messages between values and the wire: what is measured is what the swarm does, and all sides do the same work."""

import json
from pathlib import Path

import msgspec
import pytest
import typer
from benchmarks.ciphers import SIZES, Frames, measure_frames, measure_signatures
from benchmarks.codec import list_message_steps, list_seal_steps, main, measure_messages
from benchmarks.overhearing import KINDS, Heard, listen
from benchmarks.rival_codecs import ENCODINGS, OURS, Encoding
from benchmarks.timing import take_medians, take_turns, time_calls
from typer.testing import CliRunner

from btard.errors import RemoteProtocolError
from btard.rules.messages import Check, Commit, View
from btard.swarm import broadcast
from btard.wire import decode, encode, sign_message
from btard.wire.envelope import Envelope

MEMBERS = 4


@pytest.fixture(scope="module")
def heard() -> Heard:
    """What four members signed."""
    return listen(MEMBERS, seed=0)


def list_contents(heard: Heard) -> list[msgspec.Struct]:
    """Return everything that encodings are compared by: payloads, and the seal."""
    return [*(message.payload for message in heard.messages.values()), heard.seal]


def test_members_are_overheard_and_left_alone(heard: Heard):
    """There is a message of every kind with what its phase has at that size, and nobody listens any more."""
    assert list(heard.messages) == [phase.name for phase in KINDS]
    check, view = heard.messages["CHECK"].payload, heard.messages["VIEW"].payload
    assert isinstance(check, Check)
    assert isinstance(view, View)
    assert [len(report.projections) for report in check.reports] == [10] * MEMBERS
    assert [len(holding.digests) for holding in view.holdings] == [MEMBERS] * 2
    assert broadcast.sign_message is sign_message


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_every_encoding_gives_back_what_it_took(heard: Heard, encoding: Encoding):
    """Whatever is compared carries the whole content."""
    for content in list_contents(heard):
        assert encoding.decode(encoding.encode(content), type(content)) == content


def test_three_encodings_are_one_format(heard: Heard):
    """With msgspec alone and from tuples by hand come the very bytes that we write."""
    by_name = {encoding.name: encoding for encoding in ENCODINGS}
    for content in list_contents(heard):
        assert by_name["msgspec"].encode(content) == by_name["msgpack by hand"].encode(content) == OURS.encode(content)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_an_encoding_checks_if_it_says_so(heard: Heard, encoding: Encoding):
    """A payload whose digest has too few bytes is refused by those that check, and comes out of the others."""
    commit = list_contents(heard)[0]
    assert isinstance(commit, Commit)
    data = encoding.encode(msgspec.structs.replace(commit, state=b"short"))
    if encoding.checks:
        with pytest.raises((RemoteProtocolError, msgspec.ValidationError)):
            encoding.decode(data, Commit)
    else:
        assert encoding.decode(data, Commit).state == b"short"


def test_the_steps_are_those_of_the_swarm(heard: Heard):
    """Making a message again gives the bytes that its member sent, opening them gives it, and every check passes."""
    for message in heard.messages.values():
        steps, outer = list_message_steps(heard, message), decode(message.envelope, Envelope)
        assert steps["make"]() == steps["open"]() == message
        assert steps["encode"]() == (outer.payload, outer.header, message.envelope)
        assert steps["sign"]() == outer.signature
        assert steps["verify"]() is True
    seal = list_seal_steps(heard.seal, heard.identities[0])
    assert (seal["make"]() == seal["sign"](), seal["open"](), seal["verify"]()) == (True, True, True)
    assert (seal["encode"](), seal["decode"]()) == (encode(heard.seal), heard.seal)


def test_frames_open_as_they_were_sealed():
    """Turn after turn the plaintext comes back, from our frames and from the cipher alone."""
    frames = Frames(64, 3)
    for _ in range(2):
        for write, read in ((frames.seal, frames.open), (frames.encrypt, frames.decrypt)):
            frames.back[:] = bytes(64)
            write()
            read()
            assert frames.back == frames.plain
    assert measure_frames(SIZES[0], 4096, 2)["seal_gb_s"] > 0


def test_signatures_of_both_libraries_are_measured():
    """Both sign; both verify, one also with a key that it keeps."""
    figures = measure_signatures(b"data", 1)
    assert list(figures["sign_us"]) == ["PyNaCl (ours)", "cryptography"]
    assert list(figures["verify_us"]) == ["PyNaCl (ours)", "cryptography", "cryptography, key kept"]


def test_sides_take_turns():
    """Within a repeat every side has its turn, and every repeat gives a figure for each."""
    noted: list[str] = []
    times = take_turns({name: lambda name=name: noted.append(name) for name in ("a", "b")}, 3)
    assert [len(values) for values in times.values()] == [3, 3]
    turns = [name for name, before in zip(noted, ["", *noted], strict=False) if name != before]
    assert turns == ["a", "b"] * 4  # the first pair finds out how many calls make a turn
    assert take_medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}
    assert time_calls(lambda: None, 1000) > 0


def test_results_name_every_message(heard: Heard):
    """Bytes, steps and encodings of each; a ratio is our time over the other's, so ours is 1."""
    result = measure_messages(heard, 1)
    assert list(result) == [*(phase.name for phase in KINDS), "seal"]
    commit = result["COMMIT"]
    assert commit["bytes"] == len(heard.messages["COMMIT"].envelope) < commit["bytes_on_wire"]
    assert list(commit["us"]) == ["make", "encode", "sign", "open", "decode", "verify"]
    assert commit["encodings"]["ours"]["encode_ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert commit["encodings"]["JSON"]["bytes"] > commit["encodings"]["ours"]["bytes"]


def test_the_command_writes_and_prints(tmp_path: Path):
    """One small run gives a table of each sort and a JSON file that says what it is."""
    app = typer.Typer()
    app.command()(main)
    options = ["--members", "3", "--repeats", "1", "--mib", "1", "--json", str(tmp_path / "codec.json")]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    for heading in ("3 members", "ours over it, encode", "| Ed25519 over |", "| bytes in a frame |"):
        assert heading in done.stdout
    result = json.loads((tmp_path / "codec.json").read_text())
    assert list(result) == ["machine", "command", "seed", "commit", "results", "signatures", "frames"]
    assert list(result["frames"]) == [str(size) for size in SIZES]

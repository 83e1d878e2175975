"""
What a message costs between a struct and the wire, beside the obvious alternatives.

Messages are those that members of a simulated swarm sign (benchmarks/overhearing.py): of each kind one whose length is
in the middle, and a seal. For each: bytes signed and on the wire; microseconds to make it (encode, sign, encode the
envelope) and to open it (decode both layers, check types and limits, verify), and what of that is encoding, signing,
decoding and verifying (of a seal, verifying encodes it again); then other encodings on the same content, unsigned:

    ours               msgspec to builtins, msgpack to bytes; msgspec from bytes to checked structs
    msgspec            natively both ways: the same bytes, the same checks
    msgpack by hand    tuples made by code for each message; nothing is checked
    JSON               msgspec's, bytes as base64; the same checks
    pickle (unsafe)    runs what a stranger wrote: for scale only

``signatures`` are PyNaCl's Ed25519, which we use, beside that of ``cryptography``; whoever verifies makes the key from
its bytes each time, unless it is said to be kept. ``frames`` are GB/s (10^9 bytes of plaintext) of net/frames, beside
the cipher alone.

All sides take turns, on one thread; figures are CPU time, medians over the repeats, ratios repeat by repeat: our
time over the other's, so below 1 we are faster.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from typer import Option

from benchmarks.ciphers import SIZES, measure_frames, measure_signatures
from benchmarks.overhearing import Heard, listen
from benchmarks.report import Result, compute_median, compute_ratios, describe, format_table, shorten, write
from benchmarks.rival_codecs import ENCODINGS, OURS
from benchmarks.swarm import read_sizes
from benchmarks.timing import Call, take_medians, take_turns
from btard.identity import Identity, is_signed_by
from btard.net.frames import compute_control_size
from btard.rules.messages import AnyPayload, SignedMessage
from btard.rules.seal import Seal
from btard.wire import (
    decode,
    decode_seal,
    encode,
    encode_seal,
    is_seal_signed_by,
    open_message,
    sign_message,
    sign_seal,
)
from btard.wire.envelope import ENVELOPE_TAG, Envelope, Header
from btard.wire.seals import SEAL_TAG

STEPS = ("make", "encode", "sign", "open", "decode", "verify")
MIB = 1 << 20


def list_message_steps(heard: Heard, message: SignedMessage) -> dict[str, Call]:
    """Return what is done to make a message and to open it, whole and in steps."""
    identity, run_id, slot = heard.find_identity(message), heard.run_id, message.slot
    outer = decode(message.envelope, Envelope)
    header, signed = decode(outer.header, Header), ENVELOPE_TAG + outer.header
    words = identity, run_id, message.roster, slot.stage, message.previous, message.payload
    return {
        "make": lambda: sign_message(*words),
        "encode": lambda: (encode(message.payload), encode(header), encode(outer)),
        "sign": lambda: identity.sign(signed),
        "open": lambda: open_message(run_id, message.envelope),
        "decode": lambda: (
            decode(message.envelope, Envelope),
            decode(outer.header, Header),
            decode(outer.payload, AnyPayload),
        ),
        "verify": lambda: is_signed_by(slot.sender, signed, outer.signature),
    }


def list_seal_steps(seal: Seal, identity: Identity) -> dict[str, Call]:
    """Return what is done to sign a seal, and to take in one with one signature."""
    data, signature = encode_seal(seal), sign_seal(identity, seal)
    return {
        "make": lambda: sign_seal(identity, seal),
        "encode": lambda: encode_seal(seal),
        "sign": lambda: identity.sign(SEAL_TAG + data),
        "open": lambda: is_seal_signed_by(identity.peer_id, decode_seal(data), signature),
        "decode": lambda: decode_seal(data),
        "verify": lambda: is_seal_signed_by(identity.peer_id, seal, signature),
    }


def compare_encodings(value: Any, repeats: int) -> Result:
    """Return bytes and microseconds of every encoding of a struct, and our time over theirs."""
    kind, packed = type(value), {item.name: item.encode(value) for item in ENCODINGS}
    encoding = take_turns({item.name: lambda item=item: item.encode(value) for item in ENCODINGS}, repeats)
    decoding = take_turns({i.name: lambda i=i: i.decode(packed[i.name], kind) for i in ENCODINGS}, repeats)
    return {
        item.name: {
            "bytes": len(packed[item.name]),
            "checks": item.checks,
            "encode_us": round(compute_median(encoding[item.name]), 3),
            "decode_us": round(compute_median(decoding[item.name]), 3),
            "encode_ratio": compute_ratios(encoding[OURS.name], encoding[item.name]),
            "decode_ratio": compute_ratios(decoding[OURS.name], decoding[item.name]),
        }
        for item in ENCODINGS
    }


def measure_messages(heard: Heard, repeats: int) -> Result:
    """Return the figures of every message and of the seal."""
    result: Result = {}
    for name, message in heard.messages.items():
        result[name] = {
            "bytes": len(message.envelope),
            "bytes_on_wire": compute_control_size(len(message.envelope)),
            "us": take_medians(take_turns(list_message_steps(heard, message), repeats)),
            "encodings": compare_encodings(message.payload, repeats),
        }
    result["seal"] = {
        "bytes": len(encode_seal(heard.seal)),
        "bytes_on_wire": None,
        "us": take_medians(take_turns(list_seal_steps(heard.seal, heard.identities[0]), repeats)),
        "encodings": compare_encodings(heard.seal, repeats),
    }
    return result


def format_result(result: Result) -> str:
    """Return the result as Markdown."""
    lines = [f"`{result['command']}`  ", f"{result['machine']}, commit {shorten(result['commit'])}"]
    for members, messages in result["results"].items():
        rows = [
            [name, item["bytes"], item["bytes_on_wire"], *(item["us"][step] for step in STEPS)]
            for name, item in messages.items()
        ]
        lines += ["", f"{members} members, microseconds of CPU:", ""]
        lines += [format_table(["", "bytes", "on the wire", *STEPS], rows), "", format_encodings(messages)]
    return "\n".join([*lines, "", format_signatures(result["signatures"]), "", format_frames(result["frames"])])


def format_encodings(messages: Result) -> str:
    """Return every encoding of every message; a ratio is our time over the other's."""
    rows = [
        [
            message, name, "yes" if item["checks"] else "no", item["bytes"], item["encode_us"], item["decode_us"],
            item["encode_ratio"]["median"], item["decode_ratio"]["median"],
        ]
        for message, figures in messages.items()
        for name, item in figures["encodings"].items()
    ]  # fmt: skip
    headings = ["", "encoding", "checks", "bytes", "encode us", "decode us", "ours over it, encode", "decode"]
    return format_table(headings, rows)


def format_signatures(signatures: Result) -> str:
    """Return who signs and verifies how fast."""
    rows = [
        [name, item["bytes"], side, item["sign_us"].get(side), verify_us]
        for name, item in signatures.items()
        for side, verify_us in item["verify_us"].items()
    ]
    return format_table(["Ed25519 over", "bytes", "by", "sign us", "verify us"], rows)


def format_frames(frames: Result) -> str:
    """Return GB/s by the size of a frame."""
    keys = ("seal_gb_s", "encrypt_gb_s", "open_gb_s", "decrypt_gb_s")
    rows = [
        [
            f"{int(size):,}",
            *(item[key] for key in keys),
            *(item[f"{side}_ratio"]["median"] for side in ("seal", "open")),
        ]
        for size, item in frames.items()
    ]
    headings = ["bytes in a frame", "seal GB/s", "cipher alone", "open GB/s", "cipher alone", "seal over it", "open"]
    return format_table(headings, rows)


def main(
    members: Annotated[str, Option(help="sizes of the swarm whose messages are measured; commas between")] = "16",
    repeats: Annotated[int, Option(min=1, help="turns of each side")] = 15,
    mib: Annotated[int, Option(min=1, help="MiB in frames that each side seals or opens in its turn")] = 16,
    seed: Annotated[int, Option(help="of the members' keys and gradients")] = 0,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Measure messages and frames between values and the wire, beside other encodings, signatures and the cipher.

    Messages are those that members of a simulated swarm sign. Times are CPU microseconds, medians of turns that all
    sides take one after another; a ratio is our time over the other's of the same turn: below 1 we are faster.
    """
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    result: Result = {**describe("codec", seed), "results": {}, "signatures": {}, "frames": {}}
    for size in read_sizes(members):
        print(f"listening to {size} members ...", file=sys.stderr, flush=True)
        heard = listen(size, seed)
        print("messages ...", file=sys.stderr, flush=True)
        result["results"][str(size)] = measure_messages(heard, repeats)
    print("signatures and frames ...", file=sys.stderr, flush=True)
    for name in ("COMMIT", "VIEW"):
        result["signatures"][name] = measure_signatures(heard.messages[name].envelope, repeats)
    result["frames"] = {str(size): measure_frames(size, mib * MIB, repeats) for size in SIZES}
    write(path, result)
    print(format_result(result))


if __name__ == "__main__":
    typer.run(main)

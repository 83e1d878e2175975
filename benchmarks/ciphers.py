"""Signatures and the frames of bulk data beside the obvious alternatives, for ``benchmarks.codec``."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.report import Result, compute_median, compute_ratios
from benchmarks.timing import Call, take_medians, take_turns, time_calls
from btard.identity import Identity, is_signed_by
from btard.net.frames import HEADER_SIZE, MAX_PLAIN, TAG_SIZE, FrameKey, FrameType, decode_header, encode_header

SIZES = (1 << 10, 1 << 14, MAX_PLAIN)
"""Bytes of plaintext in a frame; bulk data fill theirs but for the last one."""
KEY = bytes(range(32))


def measure_signatures(data: bytes, repeats: int) -> Result:
    """Return the microseconds of signing and verifying ``data``; ours is PyNaCl, with a key made for each check."""
    identity = Identity(KEY)
    key = Ed25519PrivateKey.from_private_bytes(identity.seed)
    public, signature = key.public_key(), identity.sign(data)
    signing = take_turns(
        {"PyNaCl (ours)": lambda: identity.sign(data), "cryptography": lambda: key.sign(data)}, repeats
    )
    verifying = take_turns(
        {
            "PyNaCl (ours)": lambda: is_signed_by(identity.peer_id, data, signature),
            "cryptography": lambda: Ed25519PublicKey.from_public_bytes(identity.peer_id).verify(signature, data),
            "cryptography, key kept": lambda: public.verify(signature, data),
        },
        repeats,
    )
    return {"bytes": len(data), "sign_us": take_medians(signing), "verify_us": take_medians(verifying)}


class Frames:
    """So many frames of one size, a multiple of 32: sealed and opened by net/frames, or by the cipher alone."""

    def __init__(self, size: int, count: int) -> None:
        self.bytes = size * count
        self.plain, self.back = memoryview(bytearray(KEY * (size // len(KEY)))), memoryview(bytearray(size))
        whole = HEADER_SIZE + size + TAG_SIZE
        self._frames = [memoryview(bytearray(whole)) for _ in range(count)]
        self._bodies = [frame[HEADER_SIZE:] for frame in self._frames]
        self._sender, self._receiver, self._cipher = FrameKey(KEY), FrameKey(KEY), AESGCM(KEY)
        self._nonces = [number.to_bytes(12, "big") for number in range(count)]
        self._header = encode_header(FrameType.DATA, size + TAG_SIZE)

    def seal(self) -> None:
        """Write all frames."""
        for frame in self._frames:
            self._sender.seal(FrameType.DATA, self.plain, frame)

    def open(self) -> None:
        """Read what ``seal`` has just written."""
        for frame, body in zip(self._frames, self._bodies, strict=True):
            header = bytes(frame[:HEADER_SIZE])
            decode_header(header)
            self._receiver.open_into(header, body, self.back)

    def encrypt(self) -> None:
        """Write the same ciphertexts, by nonces and headers that are there."""
        for nonce, body in zip(self._nonces, self._bodies, strict=True):
            self._cipher.encrypt_into(nonce, self.plain, self._header, body)

    def decrypt(self) -> None:
        """Read what ``encrypt`` has just written."""
        for nonce, body in zip(self._nonces, self._bodies, strict=True):
            self._cipher.decrypt_into(nonce, body, self._header, self.back)

    @property
    def sides(self) -> dict[str, Call]:
        """What takes turns, in the only order in which it can."""
        return {"seal": self.seal, "open": self.open, "encrypt": self.encrypt, "decrypt": self.decrypt}


def measure_frames(size: int, total: int, repeats: int) -> Result:
    """Return GB/s of plaintext, of ``total`` bytes in each turn, and our time over the cipher's."""
    frames = Frames(size, max(1, total // size))
    times: dict[str, list[float]] = {name: [] for name in frames.sides}
    for repeat in range(-1, repeats):
        for name, side in frames.sides.items():
            seconds = time_calls(side)
            if repeat >= 0:  # the first one touches the memory
                times[name].append(seconds)
    return {
        **{f"{name}_gb_s": round(frames.bytes / compute_median(seen) / 1e9, 3) for name, seen in times.items()},
        "seal_ratio": compute_ratios(times["seal"], times["encrypt"]),
        "open_ratio": compute_ratios(times["open"], times["decrypt"]),
    }

"""
The configuration of one run: every value on which honest peers must agree.

``run_id`` is its digest, so a peer with one other value belongs to another run; the digests of the
single fields tell which value differs. docs/reference/run-file.md documents the TOML file.
"""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from btard.errors import ConfigError
from btard.identity import PEER_ID_SIZE, Context, PeerId, TicketTerms, digest
from btard.identity.work import MAX_IDENTITY_BITS, MAX_MEMORY_KIB, MAX_TICKET_BITS, MAX_WINDOW, MIN_MEMORY_KIB

Options = Mapping[str, str | int | float | bool]
FIELD_DIGEST_SIZE = 8
MAX_INTEGER = 2**64
MAX_MEMBERS = 64
"""Members of a run: what a recovery sends grows with their square, and beyond about 100 does not fit a message."""
MAX_ELEMENTS = 2**36
"""Elements of the vector: 256 GiB, which one aggregator sends in one piece where the roster has shrunk to two."""

_BOUNDS = {
    "identity_bits": (0, MAX_IDENTITY_BITS),
    "ticket_bits": (0, MAX_TICKET_BITS),
    "ticket_memory_kib": (MIN_MEMORY_KIB, MAX_MEMORY_KIB),
    "ticket_window": (1, MAX_WINDOW),
    "projections": (1, 64),
}


def _documented(help_text: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class RunConfig:
    """One run. Lengths are in float32 elements, times in seconds, sizes in bytes."""

    founder: str = _documented("hex public key of the peer that signs the genesis seal", "")
    genesis_size: int = _documented("peers that must be warm before round 1", 8)
    rounds: int = _documented("training steps", 100)
    seed: int = _documented("seed of the initial parameters", 0)
    task: str = _documented("digits, text, or module:factory of your own", "digits")
    task_options: Options = field(default_factory=dict, metadata={"help": "options of the task"})
    dataset: str = _documented("hex fingerprint of the task's data set", "")
    elements: int = _documented("length D of the flat parameter vector", 0)
    chunk_size: int = _documented("elements per chunk, the leaf of a commitment", 0)
    optimizer: str = _documented("sgd, adamw, lamb, or torch:Name", "adamw")
    optimizer_options: Options = field(default_factory=dict, metadata={"help": "options of the optimizer"})
    tau: float = _documented("clipping radius of one chunk; a part's grows with the root of its chunks", 1.0)
    delta: float = _documented("norm bound of one chunk (Verification 2); scales like tau", 4.0)
    tolerance: float = _documented("relative deviation allowed to an honest recomputation; at least 1e-4", 1e-4)
    epsilon: float = _documented("CenteredClip stops at a residual of epsilon*tau", 1e-6)
    projections: int = _documented("independent random directions; a lie is missed with 2^-projections", 10)
    validators: int = _documented("validators per round (m), never more than max(1, n-2f-1)", 1)
    max_byzantine: int = _documented("f; -1 means the most a roster bears, ceil(n/2)-1", -1)
    delay_s: float = _documented("bound on the delay between two honest peers (Delta)", 2.0)
    max_gradient_s: float = _documented("slowest gradient a member may have; deadlines are ten times the slowest", 30.0)
    min_bandwidth: int = _documented("bytes per second a member must sustain; bounds waits for bulk data", 1_000_000)
    state_interval: int = _documented("rounds between checkpoints and full-state seals (K)", 16)
    exemption: int = _documented("rounds for which a column that proved right is not opened again (W)", 8)
    admission: str = _documented("open: strangers may join midway; closed: the genesis roster is all there is", "open")
    probation: int = _documented("rounds that a candidate works, checked and uncounted, before it is a member (T)", 32)
    check_rate: float = _documented("share of a candidate's rounds in which a drawn member redoes its gradient", 0.5)
    min_roster: int = _documented("below this many members the swarm stops", 2)
    identity_bits: int = _documented("zero bits that a peer's key must earn once; each doubles the work", 20)
    ticket_bits: int = _documented("zero bits of a join ticket: 2^bits evaluations of Argon2id on average", 13)
    ticket_memory_kib: int = _documented("KiB of memory that one evaluation of a join ticket takes", 8192)
    ticket_window: int = _documented("rounds for which a join ticket is good, from the one that it names on", 64)
    defence: str = _documented("btard; none means plain averaging without any check", "btard")

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.type is float:  # tau=1 and tau=1.0 are one run
                object.__setattr__(self, item.name, _to_float(getattr(self, item.name)))
        for problem in find_problems(self):
            raise ConfigError(f"run configuration: {problem}")

    def __hash__(self) -> int:
        return hash(self.run_id)

    @cached_property
    def run_id(self) -> bytes:
        """The 32-byte digest of every field."""
        return digest(Context.RUN, _canonical(asdict(self)))

    @property
    def field_digests(self) -> dict[str, bytes]:
        """Eight bytes per field, by which two peers find out which value differs."""
        return {
            name: digest(Context.RUN, name.encode(), _canonical(value))[:FIELD_DIGEST_SIZE]
            for name, value in asdict(self).items()
        }

    @property
    def founder_id(self) -> PeerId:
        """The founder's public key."""
        return PeerId(bytes.fromhex(self.founder))

    @property
    def byzantine_bound(self) -> int | None:
        """``max_byzantine``, or ``None`` where the roster's own bound applies."""
        return None if self.max_byzantine < 0 else self.max_byzantine

    @property
    def ticket_terms(self) -> TicketTerms:
        """What this run asks of a join ticket, but for the difficulty of its epoch."""
        return TicketTerms(self.run_id, self.identity_bits, self.ticket_memory_kib, self.ticket_window)

    def scale(self, per_chunk: float, elements: int) -> float:
        """Return a part's value of a per-chunk radius: it grows with the square root of the length."""
        return per_chunk * math.sqrt(elements / self.chunk_size)


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


_WORDS = {"admission": ("open", "closed"), "defence": ("btard", "none")}


def find_problems(config: RunConfig) -> list[str]:
    """Return what makes a configuration unusable, each with the remedy."""
    positive = "genesis_size rounds tau delta epsilon delay_s max_gradient_s min_bandwidth state_interval"
    positive += " probation check_rate"
    natural = ("elements", "chunk_size", "exemption", "min_roster")
    problems = [f"{name} must be above 0" for name in positive.split() if not getattr(config, name) > 0]
    problems += [f"{name} must not be negative" for name in natural if getattr(config, name) < 0]
    problems += [f"{item.name} must be finite" for item in fields(config) if not _is_finite(getattr(config, item.name))]
    problems += [
        f"{table}: {name!r} must be a finite number, a word or a truth value"
        for table in ("task_options", "optimizer_options")
        for name, value in getattr(config, table).items()
        if not isinstance(value, str | int | float) or not _is_finite(value)
    ]
    problems += [
        f"{name} must be between {lowest} and {highest}"
        for name, (lowest, highest) in _BOUNDS.items()
        if not lowest <= getattr(config, name) <= highest
    ]
    if config.elements and not config.chunk_size:
        problems.append("chunk_size must be above 0")
    if config.max_byzantine < -1:
        problems.append("max_byzantine is -1 (as many as a roster bears) or a number from 0 on")
    if not 0 <= config.validators <= max(1, config.genesis_size - 1):
        problems.append("validators must be between 0 and genesis_size - 1")
    if config.genesis_size > MAX_MEMBERS:
        problems.append(f"genesis_size is at most {MAX_MEMBERS}: the messages of a recovery hold no more members")
    if config.elements > MAX_ELEMENTS:
        problems.append(f"elements is at most {MAX_ELEMENTS}: a part of a larger vector fits in no message")
    if config.tolerance < 1e-4:
        problems.append("tolerance must be at least 1e-4: less would convict honest hardware")
    if config.check_rate > 1:
        problems.append("check_rate is a share: at most 1")
    problems += [
        f"{name} is {' or '.join(words)}" for name, words in _WORDS.items() if getattr(config, name) not in words
    ]
    if config.founder and not _is_peer_id(config.founder):
        problems.append("founder must be 64 hex digits")
    return problems


def _is_finite(value: object) -> bool:
    """Whether a value is no number, or one that can be written down."""
    if isinstance(value, int):
        return abs(value) < MAX_INTEGER
    return not isinstance(value, float) or math.isfinite(value)


def _is_peer_id(text: str) -> bool:
    try:
        return len(text) == 2 * PEER_ID_SIZE and len(bytes.fromhex(text)) == PEER_ID_SIZE
    except ValueError:
        return False


def parse_run_file(text: str) -> RunConfig:
    """Return the configuration written in a run file.

    Raises:
        ConfigError: not TOML, an unknown field, a wrong type, or values that cannot work together.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, numbers of thousands of digits, deep nesting
        raise ConfigError(f"the run file is not valid TOML: {error}") from None
    return build_config(values)


def build_config(values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with these field values, types checked.

    Raises:
        ConfigError: an unknown field or a wrong type.
    """
    known = {item.name: item for item in fields(RunConfig)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"run configuration: unknown field {name!r}; known are {', '.join(known)}")
        expected = known[name].type
        allowed = _ALLOWED.get(expected, (dict,))
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise ConfigError(f"run configuration: {name} has the wrong type: {value!r}")
    return RunConfig(**values)


_ALLOWED: Mapping[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}


def format_run_file(config: RunConfig) -> str:
    """Return the documented TOML of a configuration; parse_run_file reads it back unchanged."""
    lines = ["# A btard run. Every value here is part of the run_id: change one and it is another run.", ""]
    tables = []
    for item in fields(RunConfig):
        value = getattr(config, item.name)
        if isinstance(value, Mapping):
            tables += ["", f"# {item.metadata['help']}", f"[{item.name}]"]
            tables += [f"{_format(name)} = {_format(entry)}" for name, entry in sorted(value.items())]
        else:
            lines.append(f"{item.name} = {_format(value)}  # {item.metadata['help']}")
    return "\n".join(lines + tables) + "\n"


def _format(value: object) -> str:
    """A TOML value: JSON, but for the characters that TOML escapes otherwise."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

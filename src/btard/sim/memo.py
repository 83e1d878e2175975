"""
One process needs to work out the same thing once, not once for every simulated peer.

The answers are those of the peers' own functions, which are pure: equal arguments give equal values, and
nobody changes a value. Only the simulator remembers them; a real peer asks each question once.
"""

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from torch import Tensor

from btard.errors import RemoteProtocolError
from btard.identity import Identity, digest, expand, is_signed_by
from btard.robust import Directions, compute_report, compute_reports
from btard.robust.projection import Vector
from btard.rules.checks import find_part_to_open
from btard.rules.draws import combine_nonces, draw_round_validators, find_broken_reveals
from btard.rules.messages import SignedMessage
from btard.rules.parts import cut_parts
from btard.rules.validity import is_valid_check
from btard.wire import find_valid_signatures, open_message

REMEMBERED = 1 << 12
"""Answers kept of one function, those of tens of rounds; then all are forgotten at once. More would be asked for
no more often, and make every look into the memory slower: it would no longer be in the processor's cache."""
REMEMBERED_SIGNATURES = 1 << 16
"""Signatures known to be valid or not, those of hundreds of rounds: the audits at the end ask about all of them."""
REMEMBERED_DIRECTIONS = 16
"""Draws of directions kept, a third of a megabyte each: those of the last rounds are asked for."""
REMEMBERED_PARTS = 512
"""Parts of whose reports the answers are kept, those of at least ten rounds; they hold on to their directions."""

Function = Callable[..., Any]
Answers = dict[tuple[Hashable, ...], Any]


def remember(function: Function, known: Answers | None = None, *, most: int = REMEMBERED) -> Function:
    """Return a function that asks ``function`` once for equal arguments; what cannot be looked up is always asked.

    ``known`` may hold answers that another function found out; at most ``most`` are kept.
    """
    answers: Answers = {} if known is None else known

    def ask(*question: Any) -> Any:
        try:
            return answers[question]
        except KeyError:
            if len(answers) >= most:
                answers.clear()
            answer = answers[question] = function(*question)
            return answer
        except (TypeError, ValueError):  # lists, and views of memory that may change
            return function(*question)

    return ask


class Reports:
    """``compute_report`` and ``compute_reports``, which work once for equal values.

    A peer, its aggregators and its validators ask about the same gradient.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[Hashable, ...], dict[bytes, tuple[Vector, float]]] = {}

    def ask(
        self, directions: Directions, gradient: Tensor, aggregate: Tensor, tau: float, start: int
    ) -> tuple[Vector, float]:
        """Be ``compute_report``."""
        return self._find([gradient], directions, aggregate, tau, start)[0]

    def ask_all(
        self, directions: Directions, rows: Sequence[Tensor], aggregate: Tensor, tau: float, start: int
    ) -> tuple[Vector, Vector]:
        """Be ``compute_reports``."""
        found = self._find(rows, directions, aggregate, tau, start)
        return np.stack([projections for projections, _ in found]), np.array([norm for _, norm in found])

    def _find(
        self, rows: Sequence[Tensor], directions: Directions, aggregate: Tensor, tau: float, start: int
    ) -> list[tuple[Vector, float]]:
        question = directions, aggregate.numpy().tobytes(), tau, start
        if question not in self._answers:
            if len(self._answers) >= REMEMBERED_PARTS:
                self._answers.clear()
            self._answers[question] = {}
        known, names = self._answers[question], [row.numpy().tobytes() for row in rows]
        for name, row in zip(names, rows, strict=True):
            if name not in known:
                known[name] = compute_report(directions, row, aggregate, tau, start)
        return [known[name] for name in names]


def tell_signatures(sign: Callable[[Identity, bytes], bytes], known: Answers) -> Callable[[Identity, bytes], bytes]:
    """Return ``Identity.sign`` that tells the answer of ``is_signed_by`` about what it signs: that it is valid.

    The question has the bytes that the verifier sees: whoever asks about anything else has it verified.
    """

    def sign_and_tell(identity: Identity, data: bytes) -> bytes:
        signature = sign(identity, data)
        if len(known) < REMEMBERED_SIGNATURES:
            known[identity.peer_id, data, signature] = True
        return signature

    return sign_and_tell


class Memory:
    """What the peers of one simulation ask again and again; ``see`` is shown every verified message, seldom twice."""

    def __init__(self, see: Callable[[SignedMessage], None]) -> None:
        def open_and_see(run_id: bytes, envelope: bytes) -> SignedMessage:
            message = open_message(run_id, envelope)
            see(message)
            return message

        self._open = remember(open_and_see)
        shared = (
            digest,
            expand,
            combine_nonces,
            cut_parts,
            draw_round_validators,
            find_broken_reveals,
            find_valid_signatures,
            is_valid_check,
            find_part_to_open,
        )
        self._replacements: dict[Function, Function] = {function: remember(function) for function in shared}
        self._replacements[Directions] = remember(Directions, most=REMEMBERED_DIRECTIONS)
        signatures: Answers = {}
        self._replacements[is_signed_by] = remember(is_signed_by, signatures, most=REMEMBERED_SIGNATURES)
        self._replacements[Identity.sign] = tell_signatures(Identity.sign, signatures)
        reports = Reports()
        self._replacements |= {
            open_message: self._open,
            compute_report: reports.ask,
            compute_reports: reports.ask_all,
        }

    def witness(self, run_id: bytes, envelope: bytes) -> None:
        """Take note of a message on the wire, also of one that nobody will receive."""
        with suppress(RemoteProtocolError):
            self._open(run_id, envelope)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let all modules of btard ask this memory about what others define, until the end of the context."""
        places: list[tuple[Any, str, Function]] = [
            (module, function.__name__, function)
            for module in list(sys.modules.values())
            if module.__name__.startswith("btard.") and module.__name__ != __name__
            for function in self._replacements
            if vars(module).get(function.__name__) is function and function.__module__ != module.__name__
        ]
        places.append((Identity, Identity.sign.__name__, Identity.sign))
        for owner, name, function in places:
            setattr(owner, name, self._replacements[function])
        try:
            yield
        finally:
            for owner, name, function in places:
                setattr(owner, name, function)

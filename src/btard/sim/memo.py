"""
One process needs to verify the same bytes once, not once for every simulated peer.

The answers are those of the one strict verifier; only the simulator remembers them.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from btard.errors import RemoteProtocolError
from btard.identity import PeerId, is_signed_by
from btard.rules.messages import SignedMessage
from btard.wire import open_message

REMEMBERED = 1 << 16
"""Answers kept; then all are forgotten at once."""


class Memory:
    """``open_message`` and ``is_signed_by`` with a bounded memory; ``see`` is shown every verified message once."""

    def __init__(self, see: Callable[[SignedMessage], None]) -> None:
        self._see = see
        self._opened: dict[tuple[bytes, bytes], SignedMessage] = {}
        self._signed: dict[tuple[PeerId, bytes, bytes], bool] = {}

    def open(self, run_id: bytes, envelope: bytes) -> SignedMessage:
        """See ``open_message``; what it refuses is not remembered."""
        key = run_id, bytes(envelope)
        message = self._opened.get(key)
        if message is None:
            message = open_message(run_id, envelope)
            self._see(message)
            _make_room(self._opened)
            self._opened[key] = message
        return message

    def is_signed_by(self, peer: PeerId, data: bytes, signature: bytes) -> bool:
        """See ``is_signed_by``."""
        key = peer, bytes(data), bytes(signature)
        answer = self._signed.get(key)
        if answer is None:
            _make_room(self._signed)
            answer = self._signed[key] = is_signed_by(peer, data, signature)
        return answer

    def witness(self, run_id: bytes, envelope: bytes) -> None:
        """Take note of a message on the wire, also of one that nobody will receive."""
        with suppress(RemoteProtocolError):
            self.open(run_id, envelope)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let all modules of btard ask this memory until the end of the context."""
        replacements = {open_message: self.open, is_signed_by: self.is_signed_by}
        places = [
            (module, name, original)
            for module in list(sys.modules.values())
            if module.__name__.startswith("btard.") and module.__name__ != __name__
            for original in replacements
            for name in (original.__name__,)
            if vars(module).get(name) is original
        ]
        for module, name, original in places:
            setattr(module, name, replacements[original])
        try:
            yield
        finally:
            for module, name, original in places:
                setattr(module, name, original)


def _make_room(answers: dict[Any, Any]) -> None:
    if len(answers) >= REMEMBERED:
        answers.clear()

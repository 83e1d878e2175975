"""
What a round's CPU time is spent on, line by line.

Functions of btard are replaced by ones that also note the CPU time of the calling thread; a function that runs within
another one of the lines counts as that. A note costs a microsecond, and the functions run some hundred
times a round: what is measured is the protocol as it is.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import trio

from btard.identity import keys
from btard.net import frames
from btard.robust import clip
from btard.rules import judgement
from btard.swarm import (
    aggregation,
    checking,
    gather,
    ledger,
    ledger_files,
    round,  # noqa: A004 - the module is named after what it is
    scatter,
    state,
    validation,
)
from btard.wire import codec

Line = tuple[str, Any, str]

LINES: tuple[Line, ...] = (
    ("hash our gradient", state, "scan"),
    ("hash and prove slices that arrive", scatter.Slices, "_keep"),
    ("hash our own part", aggregation, "compute_root"),
    ("hash parts that arrive", gather.Parts, "_prove"),
    ("hash x, tie up the seal", round, "build_seal"),
    ("look for NaN and overflow", judgement, "read_committed"),
    ("look for NaN and overflow", torch, "aminmax"),
    ("CenteredClip of our part", clip, "compute_centered_clip"),
    ("project the rows of our part", checking, "_report_on_column"),
    ("project our gradient", validation, "compute_part_reports"),
    ("redo a target's reports (validator)", validation, "recompute_reports"),
    ("put the parts together", aggregation, "_merge_parts"),
    ("give back memory of old rounds", scatter.Slices, "begin_round"),
    ("give back memory of old rounds", gather.Parts, "begin_attempt"),
    ("encrypt", frames.FrameKey, "seal"),
    ("decrypt bulk", frames.FrameKey, "open_into"),
    ("decrypt control", frames.FrameKey, "open"),
    ("sign and verify", keys.Identity, "sign"),
    ("sign and verify", keys, "is_signed_by"),
    ("encode and decode messages", codec, "encode"),
    ("encode and decode messages", codec, "decode"),
    ("ledger", ledger.Ledger, "record_message"),
    ("ledger", ledger.Ledger, "record_seal"),
    ("ledger", ledger.Ledger, "record_signatures"),
    ("ledger", ledger.Ledger, "record_work"),
    ("ledger", ledger.Ledger, "sync"),
    ("write the aggregate to disk", ledger_files, "write_file"),
)
"""What a line is called, where its function lives, and the function's name there."""


class Spending:
    """CPU seconds by line, of all threads together."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._within, self._lock = threading.local(), threading.Lock()

    def charge(self, line: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, whose time from now on is the line's."""

        @wraps(function)
        def charged(*words: Any, **options: Any) -> Any:
            if getattr(self._within, "line", None):
                return function(*words, **options)
            self._within.line, began = line, time.thread_time()
            try:
                return function(*words, **options)
            finally:
                self._within.line = None
                with self._lock:
                    self._seconds[line] += time.thread_time() - began

        return charged

    def watch(self) -> None:
        """Let all functions of LINES be charged, wherever they were imported to."""
        for line, owner, name in LINES:
            found = getattr(owner, name)
            replace_everywhere(owner, name, found, self.charge(line, found))
        self._watch_sockets()

    def _watch_sockets(self) -> None:
        """Charge the system calls that trio makes for a socket; it keeps the functions themselves."""
        kind = type(trio.socket.socket())
        call = kind._nonblocking_helper  # type: ignore[attr-defined]  # noqa: SLF001 - the one place they all pass

        async def charged_call(sock: Any, wait: Any, function: Callable[..., Any], *words: Any, **options: Any) -> Any:
            line = f"socket: {function.__name__}"
            return await call(sock, wait, self.charge(line, function), *words, **options)

        kind._nonblocking_helper = charged_call  # type: ignore[attr-defined]  # noqa: SLF001

    def take(self) -> dict[str, float]:
        """Return the CPU seconds of every line since this was last called."""
        with self._lock:
            taken, self._seconds = self._seconds, Counter()
        return dict(taken)


def replace_everywhere(owner: Any, name: str, found: object, other: object) -> None:
    """Put ``other`` in the place of ``found``: where it is defined, and in every module of ours that imported it."""
    setattr(owner, name, other)
    for module in [module for key, module in sys.modules.items() if key.startswith("btard")]:
        for alias in [alias for alias, value in vars(module).items() if value is found]:
            setattr(module, alias, other)

"""``--json-log``: what happens to one peer, one JSON object a line, for programs (docs/reference/cli.md)."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from btard.cli.exits import find_exit
from btard.errors import BtardError, ConfigError
from btard.identity import PeerId
from btard.swarm.events import (
    Admitted,
    Departed,
    DisputeOpened,
    GradientDiffers,
    GradientOverflow,
    Halted,
    Joining,
    Promoted,
    Recovered,
    RunStarted,
    Sampled,
    Stranded,
)
from btard.swarm.joining.fetching_state import Progress as Transfer
from btard.training import Continued, Evaluation, Progress, Ready, TrainingEvent, TrainingResult
from btard.training.solving import Solving


class JsonLog:
    """Appends to a file; every line is flushed before the call returns."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}; choose another --json-log") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def note_attack(self, round_number: int) -> None:
        """Write that this peer, an attacker, acts for the first time; callable from any thread."""
        self._write({"event": "attacked", "round": round_number})

    def tell(self, event: TrainingEvent) -> None:
        """Write an event."""
        self._write(describe(event))

    def finish(self, result: TrainingResult) -> None:
        """Write how the training ended."""
        if not result.is_finished:
            self._write({"event": "ended", "reason": "interrupted", "message": "stopped by a signal"})
            return
        sent = {"data": result.traffic.data_sent, "protocol": result.traffic.protocol_sent}
        line = {"event": "finished", "round": result.rounds, "state": result.state.hex()}
        self._write({**line, **_describe_evaluation(result.evaluation), "bytes": sent, "rounds": result.rounds})

    def fail(self, error: BtardError) -> None:
        """Write the error that ended the training."""
        self._write({"event": "ended", "reason": find_exit(error)[1], "message": str(error)})

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps({**line, "t": round(time.time(), 3)}) + "\n"
        with self._lock:
            self._file.write(text)


def describe(event: TrainingEvent) -> dict[str, Any]:
    """Return an event as JSON values; peers and digests are in hex."""
    match event:
        case Ready(peer, addresses, gradient_ms):
            places = [str(address) for address in addresses]
            name, values = "ready", {"peer": peer.hex(), "addresses": places, "gradient_ms": gradient_ms}
        case RunStarted(roster):
            name, values = "started", {"roster": _to_hex(roster)}
        case Continued(number, attempt, roster):
            name, values = "resumed", {"round": number, "attempt": attempt, "roster": _to_hex(roster)}
        case Progress():
            name, values = "round", _describe_round(event)
        case Departed(peer, number, attempt, kind, cause):
            values = {"peer": peer.hex(), "round": number, "attempt": attempt, "kind": kind.value, "cause": cause.value}
            name = "departed"
        case DisputeOpened(kind, number, accused, accuser):
            against = {"accused": accused.hex(), "accuser": accuser.hex() if accuser else None}
            name, values = "dispute", {"kind": kind, "round": number, **against}
        case Admitted() | Sampled() | Promoted() | Solving() | Transfer():
            name, values = _describe_joining(event)
        case _:
            name, values = _describe_trouble(event)
    return {"event": name, **values}


def _describe_joining(event: Joining | Solving | Transfer) -> tuple[str, dict[str, Any]]:
    match event:
        case Admitted(number):
            return "admitted", {"round": number}
        case Sampled(number, worked, needed):
            return "sampled", {"round": number, "worked": worked, "needed": needed}
        case Promoted(number):
            return "promoted", {"round": number}
        case Solving(number, evaluations, rate, expected):
            return "solving", {"round": number, "evaluations": evaluations, "per_s": rate, "expected": expected}
        case Transfer(done, total, rate):
            return "fetching", {"bytes": done, "total": total, "per_s": rate}


Trouble = Halted | Recovered | Stranded | GradientOverflow | GradientDiffers


def _describe_trouble(event: Trouble) -> tuple[str, dict[str, Any]]:
    match event:
        case Halted(stage, missing):
            return "halted", {"stage": stage, "missing": _to_hex(missing)}
        case Recovered(number, removed, banned, wall_s):
            gone = {"removed": _to_hex(removed), "banned": _to_hex(banned)}
            return "recovered", {"round": number, **gone, "wall_ms": _to_ms(wall_s)}
        case GradientOverflow(number, in_a_row):
            return "overflow", {"round": number, "in_a_row": in_a_row}
        case GradientDiffers(number, is_restored):
            return "differs", {"round": number, "restored": is_restored}
        case Stranded(number, serial, reason):
            return "stranded", {"round": number, "serial": serial, "reason": reason}


def _describe_round(event: Progress) -> dict[str, Any]:
    return {
        "round": event.round,
        "attempts": event.attempts,
        "wall_ms": _to_ms(event.wall_s),
        "roster_size": len(event.roster),
        "assignments": [[pair.validator.hex(), pair.target.hex()] for pair in event.assignments],
        "state": event.state.hex(),
        **_describe_evaluation(event.evaluation),
    }


def _describe_evaluation(evaluation: Evaluation | None) -> dict[str, float | None]:
    return {
        "loss": None if evaluation is None else evaluation.loss,
        "accuracy": None if evaluation is None else evaluation.accuracy,
    }


def _to_ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _to_hex(peers: Sequence[PeerId]) -> list[str]:
    return [peer.hex() for peer in peers]

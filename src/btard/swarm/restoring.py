"""
After a restart: from the data directory back to the very place in the run where the process died.

Rules of this file

1. The newest attempt on record is run again from COMMIT: slots that are signed are said again as they
   are stored, so the others notice nothing but a pause.
2. x is replayed bit for bit from the newest snapshot and the aggregates after it, and must be the one
   that the seal names. A peer that cannot come to it says so and signs nothing.
3. The round before comes back as well, with its transcripts, its aggregate and our own gradient: a
   restarted validator still judges by what it saw, and a restarted voter still votes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from torch import Tensor

from btard.errors import ConfigError, RemoteProtocolError
from btard.robust import Directions
from btard.rules.config import RunConfig
from btard.rules.draws import combine_nonces
from btard.rules.messages import Phase, SignedMessage, Slot, Stage, Transcript
from btard.rules.roster import Roster
from btard.swarm.ledger import Ledger
from btard.swarm.records import WorkRecord, decode_work, open_state, open_work
from btard.swarm.state import Work, compute_state_root, is_named_by
from btard.swarm.updates import Updates
from btard.swarm.workload import OptimizerState, Workload
from btard.wire import open_message

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StoredState:
    """A state on disk: the raw float32 bytes of x and of the optimizer's buffers, mapped and not read."""

    step: int
    parameters: memoryview
    buffers: Mapping[str, memoryview]


class Snapshots(Protocol):
    """The checkpoints of a peer, by the number of rounds that led to them; training keeps them."""

    def rounds(self) -> Sequence[int]:
        """Return which there are, oldest first."""

    def load(self, finished: int) -> tuple[Tensor, OptimizerState] | None:
        """Return x after ``finished`` rounds and the optimizer's memory; ``None`` if it is damaged."""

    def map(self, finished: int) -> StoredState | None:
        """Return the state after ``finished`` rounds unread and unchecked; ``None`` if it is not there."""


class NoSnapshots:
    """For runs so short that everything is replayed from x_0."""

    def rounds(self) -> Sequence[int]:
        """Return nothing."""
        return ()

    def load(self, finished: int) -> None:
        """Return nothing."""

    def map(self, finished: int) -> None:
        """Return nothing."""


Vectors = tuple[Tensor, OptimizerState]


@dataclass(frozen=True)
class Start:
    """Where a peer goes on, and every message of the last two rounds that it had sent or built on before a restart.

    ``is_entry`` is the first round of a newcomer; ``may_have_spoken``: others may hold words of ours.
    """

    work: Work
    is_restart: bool = False
    serial: int = 0
    own: tuple[SignedMessage, ...] = ()
    heard: tuple[SignedMessage, ...] = ()
    is_entry: bool = False
    may_have_spoken: bool = False


def restore(
    config: RunConfig, workload: Workload, ledger: Ledger, updates: Updates, snapshots: Snapshots
) -> Start | None:
    """Return where to go on, ``None`` if the run had not begun for us. Takes as long as the replay.

    Raises:
        ConfigError: the directory does not hold the state that its ledger speaks of.
    """
    data = ledger.newest_work()
    if data is None:
        return None
    try:
        record = decode_work(data)
        own = tuple(_open_all(config, ledger.own_messages(record.round - 1, record.attempt)))
        heard = tuple(_open_all(config, ledger.heard()))
        states = replay(config, workload, ledger, updates, snapshots, record)
        previous = _open_previous(config, ledger, updates, record, states, {m.slot: m for m in (*own, *heard)})
    except RemoteProtocolError as error:
        raise ConfigError(f"the ledger is damaged: {error}; this key cannot go on in this run") from None
    work = open_work(config, record, open_state(record, *states[record.round]), previous)
    work.is_resumed = True
    return Start(work, True, record.serial, own, heard, may_have_spoken=True)


def _open_all(config: RunConfig, envelopes: Iterator[bytes]) -> Iterator[SignedMessage]:
    return (open_message(config.run_id, envelope) for envelope in envelopes)


def replay(
    config: RunConfig, workload: Workload, ledger: Ledger, updates: Updates, snapshots: Snapshots, record: WorkRecord
) -> Mapping[int, Vectors]:
    """Return x and the optimizer's memory as the record's round begins, and as the round before did.

    Raises:
        ConfigError: neither a snapshot nor x_0 leads there.
    """
    wanted = range(max(next(ledger.seals()).round, record.round - 2), record.round)
    for finished, vectors in _find_bases(config, workload, ledger, snapshots, wanted.start):
        states = _step_through(config, workload, updates, {finished: vectors}, record.round - 1)
        found = states.get(record.round - 1)
        if found is not None and compute_state_root(found[0], config.chunk_size) == record.seal.state:
            return {number + 1: states[number] for number in wanted}
        log.warning("a snapshot does not lead to our state; an older one is tried", finished=finished)
    raise ConfigError(
        f"the state of round {record.round} cannot be rebuilt: checkpoints or updates are missing or damaged; "
        "this key cannot go on in this run"
    )


def _step_through(
    config: RunConfig, workload: Workload, updates: Updates, states: Mapping[int, Vectors], last: int
) -> Mapping[int, Vectors]:
    """The last two states on the way to the one after ``last`` rounds, as far as the updates reach."""
    kept = dict(states)
    for number in range(max(kept) + 1, last + 1):
        update = updates.load(number, config.elements)
        if update is None:
            break
        parameters, optimizer = before = kept[number - 1]
        after = workload.step(parameters, update.aggregate, optimizer) if update.is_applied else before
        kept = {number - 1: before, number: after}
    return kept


def _find_bases(
    config: RunConfig, workload: Workload, ledger: Ledger, snapshots: Snapshots, last: int
) -> Iterator[tuple[int, Vectors]]:
    """The states to replay from, newest first, each what the seal of its round names; x_0 is always one."""
    seals = {seal.round: seal for seal in ledger.seals()}
    for finished in sorted(snapshots.rounds(), reverse=True):
        vectors = snapshots.load(finished) if 0 < finished <= last else None
        seal = seals.get(finished)
        if vectors is not None and seal is not None and is_named_by(seal, *vectors, config.chunk_size):
            yield finished, vectors
    yield 0, (workload.initial_parameters(), workload.initial_optimizer())


def _open_previous(
    config: RunConfig,
    ledger: Ledger,
    updates: Updates,
    record: WorkRecord,
    states: Mapping[int, Vectors],
    messages: Mapping[Slot, SignedMessage],
) -> Work | None:
    """The finished work on the round before; ``None`` in the first round."""
    data = ledger.find_work(record.round - 1, record.first_attempt) if record.round > 1 else None
    if data is None:
        return None  # or the record's round was opened again: it was past all that concerns the one before
    before = decode_work(data)
    work = open_work(config, before, open_state(before, *states[before.round]), None)
    collected = [
        _collect(messages, work.stage(phase), work.electorate if phase is Phase.COMMIT else work.roster)
        for phase in (Phase.COMMIT, Phase.AGGREGATE, Phase.REVEAL, Phase.CHECK, Phase.CONFIRM)
    ]
    work.commits, work.aggregates, work.reveals, work.checks, work.confirms = collected
    work.directions = Directions(combine_nonces(collected[2]), config.elements, config.projections)
    update = updates.load(before.round, config.elements)
    work.aggregate = None if update is None else update.aggregate
    return work


def _collect(messages: Mapping[Slot, SignedMessage], stage: Stage, roster: Roster) -> Transcript:
    found = [messages.get(Slot(stage, peer)) for peer in roster.members]
    if not all(found):
        raise ConfigError(f"the ledger lacks messages of {stage}: it is damaged; this key cannot go on in this run")
    return Transcript(stage, tuple(message for message in found if message is not None))

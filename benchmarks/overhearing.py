"""
What the members of a swarm really sign: one message of each kind, taken from a simulated run of the real peer code.

The members train noise for some rounds, then one of them vanishes, so that the others halt, show their views and agree.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trio
from trio.testing import MockClock

from benchmarks.contestants.vectors import Noise
from benchmarks.swarm_simulation import HOP_S, NoiseTask
from btard.identity import Identity
from btard.rules.messages import Phase, SignedMessage
from btard.rules.seal import Seal
from btard.sim import SimulatedSwarm
from btard.sim.disk import ledgers_in_memory
from btard.sim.play import rare_collections
from btard.swarm import broadcast
from btard.swarm import round as round_module
from btard.swarm.events import Event, Recovered, RoundDone

KINDS = (Phase.COMMIT, Phase.AGGREGATE, Phase.CHECK, Phase.CONFIRM, Phase.VIEW)
ELEMENTS_PER_MEMBER = 64
ROUNDS = 3
"""Rounds before one vanishes: in the last of them there are validators and a chain of seals."""


@dataclass(frozen=True)
class Heard:
    """Messages of one run by the names of their kinds, and a seal; ``identities`` are the members' keys."""

    run_id: bytes
    identities: tuple[Identity, ...]
    messages: dict[str, SignedMessage]
    seal: Seal

    def find_identity(self, message: SignedMessage) -> Identity:
        """Return the key that signed a message."""
        return next(identity for identity in self.identities if identity.peer_id == message.sender)


@contextmanager
def overhear(module: Any, name: str) -> Iterator[list[Any]]:
    """Yield a list that takes in whatever a function of a module returns until the end of the context."""
    function, heard = getattr(module, name), []

    def tell(*words: Any) -> Any:
        heard.append(function(*words))
        return heard[-1]

    setattr(module, name, tell)
    try:
        yield heard
    finally:
        setattr(module, name, function)


async def play(members: int, seed: int, directory: Path) -> SimulatedSwarm:
    """Run a swarm until its members have agreed on what became of the one that vanished."""
    noise = Noise(ELEMENTS_PER_MEMBER * members, seed)

    def watch(index: int, event: Event) -> None:
        if isinstance(event, RoundDone) and (index, event.round) == (0, ROUNDS):
            swarm.crash(members - 1)
        elif isinstance(event, Recovered):
            swarm.stop()

    options = {"genesis_size": members, "rounds": ROUNDS + 3, "tau": 3.0, "delta": 6.0}
    swarm = SimulatedSwarm(
        options, lambda: NoiseTask(noise), directory, seed=seed, watch=watch, delivery=lambda *_: HOP_S
    )
    await swarm.run()
    return swarm


def listen(members: int, seed: int) -> Heard:
    """Return what ``members`` peers sign; of each kind the one whose length is in the middle."""
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as directory,
        ledgers_in_memory(),
        rare_collections(),
        overhear(broadcast, "sign_message") as messages,
        overhear(round_module, "build_seal") as seals,
    ):
        swarm = trio.run(play, members, seed, Path(directory), clock=MockClock(autojump_threshold=0))
    chosen = {phase.name: choose([message for message in messages if is_meant(message, phase)]) for phase in KINDS}
    return Heard(swarm.config.run_id, tuple(swarm.identities), chosen, seals[-1])


def is_meant(message: SignedMessage, phase: Phase) -> bool:
    """Return whether a message is of a phase, and of a round in which there was a round before."""
    stage = message.slot.stage
    return stage.phase is phase and (phase is Phase.VIEW or stage.round > 1)


def choose(messages: list[SignedMessage]) -> SignedMessage:
    """Return the message whose length is in the middle."""
    return sorted(messages, key=lambda message: len(message.envelope))[len(messages) // 2]

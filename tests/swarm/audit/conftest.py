"""Ledgers of synthetic runs: fresh worlds, and one with every kind of evidence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.swarm.audit.asking import accuse, attest, name, vote
from tests.swarm.audit.column import OpenedColumn
from tests.swarm.audit.world import World, build_world

from btard.rules.evidence import AnyProof, Cause, DepartureKind
from btard.rules.messages import Opinion, Phase


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Builds worlds whose ledgers are closed at the end of the test."""
    worlds: list[World] = []

    def build(members: int = 6) -> World:
        worlds.append(build_world(tmp_path, members))
        return worlds[-1]

    yield build
    for world in worlds:
        world.ledger.close()


def fill(world: World) -> None:
    """Play a round for every kind of departure; 10 leave, 4 remain."""
    victims = list(reversed(world.start.members))
    ban, removal = DepartureKind.BAN, DepartureKind.REMOVAL

    opened = OpenedColumn.build(world, 13, liar=victims[0])
    world.depart(victims[0], ban, Cause.FALSE_REPORT, opened.proof, opened.blobs)
    world.seal()
    opened = OpenedColumn.build(world, 0, bend=lambda aggregate: aggregate + 1.0)
    world.depart(opened.aggregator, ban, Cause.WRONG_AGGREGATE, opened.proof, opened.blobs)
    victims = [peer for peer in victims[1:] if peer != opened.aggregator]
    world.seal()
    world.depart(victims[0], ban, Cause.EQUIVOCATION, world.equivocate(victims[0]))
    world.depart(victims[1], ban, Cause.BROKEN_REVEAL, world.break_reveal(victims[1], Phase.CONFIRM))
    world.depart(victims[2], removal, Cause.SILENCE, world.recover(victims[2]))
    world.seal()
    question = accuse(world)
    proof: AnyProof = vote(world, question, 6, Opinion((question.accused,), (), (2,)))
    world.depart(question.accused, ban, Cause.FALSE_GRADIENT, proof, restart=False)
    world.seal()
    question = name(world)
    assert question.accuser
    world.depart(
        question.accuser, ban, Cause.FALSE_NAMING, vote(world, question, 2, Opinion((question.accused,), (), ()))
    )
    victims = [peer for peer in victims[3:] if peer in world.roster]
    world.depart(victims[0], removal, Cause.WITHHOLDING, attest(world, victims[0], 3))
    proof = world.commit_states(lambda peer: b"o" * 32 if peer == victims[1] else b"s" * 32)
    world.depart(victims[1], removal, Cause.OTHER_STATE, proof)
    world.depart(victims[2], DepartureKind.GOODBYE, Cause.GOODBYE, None)
    world.seal()
    world.seal()
    world.seal(signers=[])


@pytest.fixture(scope="session")
def full_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a closed ledger with every kind of evidence; copy it before changing anything."""
    world = build_world(tmp_path_factory.mktemp("full"))
    fill(world)
    world.ledger.close()
    return world.directory

"""A killed trainer comes back to the very state of the others: its newest whole checkpoint, and every ĝ after it."""

from pathlib import Path

import pytest
import torch
import trio
from tests.training.test_trainer import FOUNDER, MEMBER, Watch, make_config

from btard.errors import ConfigError
from btard.net import Address
from btard.rules.config import RunConfig
from btard.swarm.ledger import Ledger
from btard.training import Continued, Endpoint, Progress, Trainer, TrainingEvent, TrainingResult
from btard.training.checkpoints import CheckpointSnapshots

INTERVAL, KILLED_IN = 3, 11
"""Checkpoints after 3, 6 and 9 rounds are on disk when the member dies; it replays from the last, if it is whole."""


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """Two peers and fourteen rounds of digits with AdamW, whose memory counts too."""
    return make_config(rounds=14, state_interval=INTERVAL)


class Pair:
    """A founder that never stops, and a member that is killed and started again in the same directory."""

    def __init__(self, config: RunConfig, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.directory = config, directory / "member"
        self._founder_directory, self._patch = directory / "founder", monkeypatch
        self.results: list[TrainingResult] = []
        self.resumed: list[int] = []
        self._scope = trio.CancelScope()

    def _observe(self, event: TrainingEvent) -> None:
        if isinstance(event, Progress) and event.round == KILLED_IN:
            self._scope.cancel()
        if isinstance(event, Continued):
            self.resumed.append(event.round)

    def make_member(self, founder: Address) -> Trainer:
        """The member, as each start makes it."""
        return Trainer(self.config, MEMBER, self.directory, Endpoint(bootstrap=(founder,)), observe=self._observe)

    async def begin(self, nursery: trio.Nursery) -> Address:
        """Train until the member dies: nothing that a kill would not leave is on its disk."""
        watch = Watch()
        founder = Trainer(self.config, FOUNDER, self._founder_directory, Endpoint(), observe=watch)
        nursery.start_soon(self.finish, founder)
        address = await watch.address()
        with self._patch.context() as patch, self._scope:
            patch.setattr(Trainer, "_save_last", lambda trainer: None)
            await self.make_member(address).run()
        assert self._scope.cancelled_caught
        return address

    async def finish(self, trainer: Trainer) -> None:
        """Train to the end."""
        self.results.append(await trainer.run())

    def find_updates(self) -> list[int]:
        """The rounds of which the member keeps the aggregate."""
        with Ledger.create(self.directory, self.config, MEMBER.peer_id) as ledger:
            return [number for number in range(1, 15) if ledger.find_update(number)]

    def damage(self, finished: int, how: str) -> None:
        """Tear or alter a checkpoint, if wanted."""
        path = self.directory / "checkpoints" / f"round-{finished:06d}.safetensors"
        content = bytearray(path.read_bytes())
        if how == "torn":
            del content[len(content) // 2 :]
        elif how == "altered":
            content[-5] ^= 1
        path.write_bytes(content)

    def require_one_end(self) -> None:
        """Both have one state, bit for bit."""
        first, second = self.results
        assert first.is_finished
        assert second.is_finished
        assert first.rounds == second.rounds == 14
        assert first.state == second.state
        assert torch.equal(first.parameters, second.parameters)


@pytest.mark.parametrize("how", ["whole", "torn", "altered"])
async def test_killed_trainer_ends_with_the_state_of_who_never_stopped(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Aggregates that no restart needs are gone; those since the last checkpoint but one are not."""
    pair = Pair(config, tmp_path, monkeypatch)
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            address = await pair.begin(nursery)
            assert CheckpointSnapshots(pair.directory / "checkpoints").rounds() == (3, 6, 9)
            assert pair.find_updates()[0] == 4
            pair.damage(9, how)
            await pair.finish(pair.make_member(address))
    assert pair.resumed[0] in {KILLED_IN, KILLED_IN + 1}
    pair.require_one_end()


async def test_without_a_whole_checkpoint_nothing_is_signed_and_nothing_is_lost(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer says what is missing and stops; with the file back in its place it goes on, for the others waited."""
    pair = Pair(config, tmp_path, monkeypatch)
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            address = await pair.begin(nursery)
            directory = pair.directory / "checkpoints"
            kept = {path: path.read_bytes() for path in directory.iterdir()}
            for finished in (3, 6, 9):
                pair.damage(finished, "torn")
            with pytest.raises(ConfigError, match="checkpoints or updates are missing"):
                await pair.make_member(address).run()
            for path, content in kept.items():
                path.write_bytes(content)
            await pair.finish(pair.make_member(address))
    pair.require_one_end()

"""The directory over real UDP: from one bootstrap address everyone finds everyone, also after losses."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from btard.dht import contact_key, open_directory, sign_contact
from btard.dht.directory import SEQUENCE_FILE
from btard.dht.server import wall_clock_ms
from btard.errors import ConfigError
from btard.identity import Identity

from .hostile import LOOPBACK, RUN_ID, all_find_all, open_swarm, wait_until

SCRIPT = """
import trio
from btard.dht import open_directory
from btard.identity import Identity

async def main():
    one, two = Identity.generate(), Identity.generate()
    async with open_directory(one, bytes(32), ("127.0.0.1", 0), [], state_dir=None) as first:
        bootstrap = [("127.0.0.1", first.port)]
        async with open_directory(two, bytes(32), ("127.0.0.1", 0), bootstrap, state_dir=None) as second:
            await second.announce([("127.0.0.1", 4000)])
            assert (await first.find(two.peer_id)).addresses == (("127.0.0.1", 4000),)
            with trio.move_on_after(0.001):
                await first.find(Identity.generate().peer_id)

trio.run(main)
"""


async def free_port() -> int:
    """Return a UDP port that was free a moment ago."""
    async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, 0), [], state_dir=None) as directory:
        return directory.port


@pytest.mark.parametrize("size", [2, 6])
async def test_each_node_finds_all_others_from_one_bootstrap_address(size: int) -> None:
    """Every node knows one address at start, and every announcement reaches everyone."""
    async with open_swarm(size) as (identities, directories):

        async def all_know_all() -> bool:
            knows = all(directory.known_nodes == size - 1 for directory in directories)
            return knows and await all_find_all(identities, directories)

        await wait_until(all_know_all, 60)


async def test_nodes_meet_over_ipv6() -> None:
    """Two nodes on ::1 find each other by name and by number."""
    one, two = Identity.generate(), Identity.generate()
    async with (
        open_directory(one, RUN_ID, ("::1", 0), [], state_dir=None) as first,
        open_directory(two, RUN_ID, ("::1", 0), [("0:0::1", first.port)], state_dir=None) as second,
    ):
        with trio.fail_after(10):
            await second.announce([("::1", 4000)])
            contact = await first.find(two.peer_id)
        assert contact is not None
        assert contact.addresses == (("::1", 4000),)


async def test_an_unknown_peer_is_not_found() -> None:
    """Nobody announced it, so nobody invents it."""
    async with open_swarm(3) as (_, directories):
        with trio.fail_after(10):
            assert await directories[1].find(Identity.generate().peer_id) is None


async def test_a_new_announcement_replaces_the_old_one() -> None:
    """The higher sequence wins at every node."""
    async with open_swarm(4) as (identities, directories):
        await directories[2].announce([(LOOPBACK, 2002), ("host.example", 7)])

        async def is_new() -> bool:
            found = [await directory.find(identities[2].peer_id) for directory in directories]
            return all(one is not None and one.addresses == ((LOOPBACK, 2002), ("host.example", 7)) for one in found)

        await wait_until(is_new)


async def test_the_newest_of_several_records_is_found_wherever_it_is() -> None:
    """Neither our own older copy nor a neighbour's hides a newer record."""
    owner = Identity.generate()
    key, expires_ms = contact_key(RUN_ID, owner.peer_id), wall_clock_ms() + 60_000
    async with open_swarm(2) as (identities, directories):
        await wait_until(lambda: all_find_all(identities, directories))
        for sequence, directory in enumerate(directories):
            record = sign_contact(owner, RUN_ID, [(LOOPBACK, 4000)], sequence, expires_ms)
            assert directory._server.storage.put(key, record)
        found = [await directory.find(owner.peer_id) for directory in directories]
        assert [contact and contact.sequence for contact in found] == [1, 1]


async def test_a_bootstrap_node_that_starts_late_is_found(caplog: pytest.LogCaptureFixture) -> None:
    """One clear line says that nobody answers; retries go on by themselves, and the record goes out then."""
    founder, member = Identity.generate(), Identity.generate()
    port = await free_port()
    async with open_directory(member, RUN_ID, (LOOPBACK, 0), [(LOOPBACK, port)], state_dir=None) as second:
        with trio.fail_after(15):
            await second.announce([(LOOPBACK, 4000)])
            assert await second.find(founder.peer_id) is None
        lines = [record.message for record in caplog.records if f"{LOOPBACK}:{port}" in record.message]
        assert len([line for line in lines if "no DHT node answers" in line]) == 1
        async with open_directory(founder, RUN_ID, (LOOPBACK, port), [], state_dir=None) as first:

            async def is_found() -> bool:
                return await first.find(member.peer_id) is not None

            await wait_until(is_found, 15)


async def test_a_node_that_lost_all_neighbours_comes_back() -> None:
    """After its only neighbour went away and returned, it bootstraps again."""
    founder, member = Identity.generate(), Identity.generate()
    port = await free_port()
    async with open_directory(member, RUN_ID, (LOOPBACK, 0), [(LOOPBACK, port)], state_dir=None) as second:

        async def knows_nobody() -> bool:
            await second.find(founder.peer_id)
            return second.known_nodes == 0

        async def knows_founder() -> bool:
            return second.known_nodes == 1

        for _ in range(2):
            async with open_directory(founder, RUN_ID, (LOOPBACK, port), [], state_dir=None):
                await wait_until(knows_founder, 15)
            await wait_until(knows_nobody, 15)


async def test_a_founder_whose_own_address_is_the_bootstrap_address_is_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A ticket names the founder to the founder itself: no warning, and no node that is itself."""
    port = await free_port()
    bootstrap = [("localhost", port)]
    async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, port), bootstrap, state_dir=None) as first:
        with trio.fail_after(10):
            await first.announce([(LOOPBACK, port)])
        assert first.known_nodes == 0
        assert "no DHT node answers" not in caplog.text


async def test_a_port_in_use_is_a_clear_error() -> None:
    """The message names the port, outside any exception group."""
    async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, 0), [], state_dir=None) as first:
        with pytest.raises(ConfigError, match=rf"UDP port {first.port} on {LOOPBACK} is in use"):
            async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, first.port), [], state_dir=None):
                pass


async def test_an_address_that_is_not_ours_is_a_clear_error() -> None:
    """192.0.2.1 belongs to no machine."""
    with pytest.raises(ConfigError, match=r"cannot listen on UDP 192\.0\.2\.1:0"):
        async with open_directory(Identity.generate(), RUN_ID, ("192.0.2.1", 0), [], state_dir=None):
            pass


async def test_addresses_that_make_no_record_are_refused() -> None:
    """The caller hears of it at once."""
    async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, 0), [], state_dir=None) as directory:
        with pytest.raises(ConfigError, match="cannot announce"):
            await directory.announce([])


async def test_the_sequence_survives_a_restart(tmp_path: Path) -> None:
    """A state file from the future (the clock was set back since) still makes every new record the newest."""
    identity, future = Identity.generate(), 4_000_000_000_000
    (tmp_path / SEQUENCE_FILE).write_text(f"{future}\n")
    sequences = []
    for _ in range(2):
        async with open_directory(identity, RUN_ID, (LOOPBACK, 0), [], state_dir=tmp_path) as directory:
            with trio.fail_after(10):
                await directory.announce([(LOOPBACK, 4000)])
                contact = await directory.find(identity.peer_id)
            assert contact is not None
            sequences.append(contact.sequence)
    assert sequences == [future + 1, future + 2]


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    """Callers catch what they raised, not a group around it."""
    with pytest.raises(KeyError, match="mine"):
        async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, 0), [], state_dir=None):
            raise KeyError("mine")


async def test_cancelling_the_block_ends_it() -> None:
    """A deadline around everything passes through, lookups in flight included."""
    with trio.move_on_after(0.2) as scope:
        async with open_directory(Identity.generate(), RUN_ID, (LOOPBACK, 0), [(LOOPBACK, 9)], state_dir=None) as one:
            await one.find(Identity.generate().peer_id)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_any_task_may_use_the_directory() -> None:
    """A task started before the directory was opened calls it just as well."""
    send, receive = trio.open_memory_channel[object](1)
    found: list[object] = []

    async def early() -> None:
        directory, peer = await receive.receive()  # type: ignore[misc]
        found.append(await directory.find(peer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(early)
        async with open_swarm(2) as (identities, directories):
            await wait_until(lambda: all_find_all(identities, directories))
            await send.send((directories[0], identities[1].peer_id))
            with trio.fail_after(10):
                while not found:
                    await trio.sleep(0.01)
    assert found[0] is not None


def test_shutdown_is_silent() -> None:
    """In development mode with warnings as errors, a program with two nodes prints nothing."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_records_are_kept_under_their_owners_key() -> None:
    """What a node stores of itself is found under the key that names it."""
    async with open_swarm(2) as (identities, directories):
        await wait_until(lambda: all_find_all(identities, directories))
        keys = {key for key, _ in directories[0]._server.storage}
        assert keys == {contact_key(RUN_ID, identity.peer_id) for identity in identities}

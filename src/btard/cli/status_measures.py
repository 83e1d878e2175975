"""Where a peer stands, read from its data directory while it runs or after it has ended; nothing is written there."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from btard.cli.doctor_measures import is_held
from btard.errors import ConfigError, NetworkError, Refused, RemoteProtocolError
from btard.identity import Identity, PeerId
from btard.net import Address, Hub, Terms, open_tcp
from btard.rules.config import RunConfig, parse_run_file
from btard.rules.evidence import Departure
from btard.rules.seal import Candidate, Seal, has_quorum
from btard.rules.succession import roster_of
from btard.swarm.departures import decode_departure
from btard.swarm.joining.fetching_state import TRANSFER_DIRECTORY
from btard.swarm.joining.hearing_seals import read_heard
from btard.swarm.ledger_files import FORMAT, LEDGER_FILE
from btard.swarm.peer import find_cause
from btard.training.address_book import ADDRESS_FILE, read_addresses
from btard.training.checkup import ask_for_check_up
from btard.training.meeting import LOOPBACK, is_wildcard
from btard.training.notebook import NOTEBOOK_FILE, Notebook
from btard.wire import decode_seal

ASK_SECONDS = 5.0
SIGNED_LOOKS = 8
"""Seals looked at for one that more than half of its roster signed; the newest or the one before it is, normally."""
ENDED: Mapping[str, str] = {"Banned": "banned", "Removed": "removed", "left": "left", "finished": "finished"}
"""How the ledger names an ending, and the word for it here."""


@dataclass(frozen=True)
class Work:
    """What a stranger did for a place: evaluations of Argon2id, and the round of its ticket, None without one."""

    evaluations: int
    ticket_round: int | None


@dataclass(frozen=True)
class Status:
    """What one peer's ledger says. ``seal`` is that of the last finished round, None for whoever is no member yet.

    ``signed`` is the newest seal over which there are the signatures of more than half of its roster. ``work`` is how
    far a stranger is on its way in, None for whoever works for no ticket; ``heard`` is the newest seal that it knows.
    """

    config: RunConfig
    peer: PeerId
    is_running: bool
    seal: Seal | None
    ending: tuple[str, str] | None
    departures: tuple[Departure, ...]
    signed: Seal | None = None
    work: Work | None = None
    heard: Seal | None = None

    @property
    def role(self) -> str:
        """What the peer is in its run.

        Waiting (for genesis), applying (a stranger without a ticket), candidate (with one, or admitted), member,
        finished, left, removed or banned.
        """
        if self.ending is not None:
            return ENDED.get(self.ending[0], self.ending[0])
        if self.seal is not None:
            return "member"
        if self.work is None:
            return "waiting"
        return "applying" if self.work.ticket_round is None and self.probation is None else "candidate"

    @property
    def newest(self) -> Seal | None:
        """The seal of the last finished round that the peer knows of; None before genesis."""
        return self.seal or self.heard

    @property
    def probation(self) -> Candidate | None:
        """How far the peer is on probation; None for whoever is no candidate."""
        candidates = self.heard.candidates if self.heard else ()
        return next((item for item in candidates if item.peer == self.peer), None)

    @property
    def roster(self) -> tuple[bytes, ...]:
        """The members after the last finished round; empty before genesis."""
        return self.newest.roster if self.newest else ()


def read_status(directory: Path) -> Status:
    """Return where the peer of a data directory stands.

    Raises:
        ConfigError: there is no ledger, or it cannot be read.
    """
    path = directory / LEDGER_FILE
    if not path.is_file():
        raise ConfigError(f"there is no ledger in {directory}; name the --data-dir of a peer that has joined")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("BEGIN")
            found = _read(database, is_running=is_held(directory))
            if found.seal is None:
                heard = read_heard(directory, found.config.run_id)
                found = replace(found, heard=heard, work=read_work(directory, found, heard))
            return found
    except (sqlite3.Error, RemoteProtocolError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise ConfigError(f"cannot read {path}: {error}; see: btard-peer audit {directory}") from None


def _read(database: sqlite3.Connection, *, is_running: bool) -> Status:
    meta = dict(database.execute("SELECT name, value FROM meta"))
    if meta.get("format") != FORMAT:
        raise ConfigError("the ledger is not of this version of btard")
    seals = [decode_seal(row[0]) for row in database.execute("SELECT seal FROM seals ORDER BY round DESC LIMIT 1")]
    endings = list(database.execute("SELECT kind, reason FROM endings LIMIT 1"))
    rows = database.execute("SELECT departure FROM departures ORDER BY round, rowid")
    return Status(
        parse_run_file(meta["config"].decode()),
        PeerId(meta["owner"]),
        is_running,
        seals[0] if seals else None,
        (str(endings[0][0]), str(endings[0][1])) if endings else None,
        tuple(decode_departure(row[0]) for row in rows),
        _find_signed(database),
    )


def _find_signed(database: sqlite3.Connection) -> Seal | None:
    """Return the newest seal that more than half of its own roster signed, of the last few; None if there is none."""
    query = "SELECT seal, round FROM seals WHERE round IN (SELECT round FROM signatures) ORDER BY round DESC LIMIT ?"
    for data, number in database.execute(query, (SIGNED_LOOKS,)).fetchall():
        seal = decode_seal(data)
        rows = database.execute("SELECT signer FROM signatures WHERE round = ?", (number,))
        if number and has_quorum(frozenset(row[0] for row in rows), roster_of(seal)):
            return seal
    return None


def read_work(directory: Path, status: Status, heard: Seal | None) -> Work | None:
    """Return how far a stranger's search for a ticket is; None where it has begun none, and has heard of no seal."""
    notebook = Notebook(directory / NOTEBOOK_FILE, status.peer, status.config.run_id)
    has_begun = heard is not None or (directory / TRANSFER_DIRECTORY).exists()
    if not notebook.has_search and not has_begun:
        return None
    return Work(notebook.evaluations, notebook.ticket.round if notebook.ticket else None)


def ask_for_links(status: Status, directory: Path) -> int | None:
    """Return how many other members a running peer has links to; None where it does not say so in time."""
    places = [find_door(address) for address in read_addresses(directory / ADDRESS_FILE).get(status.peer, ())]
    answers = [trio.run(_ask, status, place) for place in places[:1]]
    return answers[0] if answers else None


def find_door(address: Address) -> Address:
    """Return where a peer of this machine that listens at ``address`` can be dialled."""
    if not is_wildcard(address.host):
        return address
    return Address("::1" if ":" in address.host else "127.0.0.1", address.port)


async def _ask(status: Status, place: Address) -> int | None:
    """Ask the peer itself, as a newcomer would."""
    with trio.move_on_after(ASK_SECONDS):
        try:
            return await _ask_as_newcomer(status, place)
        except BaseExceptionGroup as group:
            error = find_cause(group)
            if not isinstance(error, NetworkError | Refused | RemoteProtocolError):
                raise error from None
    return None


async def _ask_as_newcomer(status: Status, place: Address) -> int:
    me = Identity.generate()
    async with open_tcp(me, Terms(status.config.run_id), LOOPBACK) as tcp, trio.open_nursery() as nursery:
        hub = Hub(tcp, me.peer_id)
        await nursery.start(hub.run)
        await hub.connect(status.peer, place)
        answer = await ask_for_check_up(hub, status.peer, 0, ASK_SECONDS)
        nursery.cancel_scope.cancel()
    return answer.links

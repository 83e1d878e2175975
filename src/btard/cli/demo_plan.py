"""The plan of a demo: its run file and ticket, who attacks, and the command line of every peer."""

import math
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from btard.cli.demo_strangers import check_strangers, choose_joining, schedule_strangers
from btard.cli.files import write_run_file
from btard.cli.join import KEY_FILE
from btard.cli.leash import OPTION as LEASH
from btard.cli.leash import WAIT_OPTION
from btard.errors import ConfigError
from btard.identity import Context, Identity, digest, save_identity
from btard.rules.config import RunConfig
from btard.wire import Ticket, format_ticket

HOST = "127.0.0.1"
MIXED = "mixed"
PORTS = range(20_000, 32_000)
"""Below what systems give to outgoing connections, so that a free port stays free until the founder takes it."""
PORT_TRIES = 200
WAIT_S = 300
"""How long peers look for the founder: on a busy machine it takes a minute to import torch in all of them."""
RUN_FILE, JSON_LOG, OUTPUT, LEDGER = "run.toml", "events.jsonl", "output.log", "ledger.sqlite3"


@dataclass(frozen=True)
class Settings:
    """What the command line of a demo says. ``delay_s`` is a bound in seconds, None for the usual one.

    ``fields`` are further values of the run file.
    """

    peers: int = 8
    byzantine: int = 3
    attack: str = "sign-flip"
    rounds: int = 100
    task: str = "digits"
    seed: int = 0
    attack_from: int = 5
    defence: str = "btard"
    delay_s: float | None = None
    late_joiners: int = 0
    sybils: int = 0
    fields: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def strangers(self) -> int:
        """How many come when the run has begun."""
        return self.late_joiners + self.sybils

    @property
    def delay_bound_s(self) -> float:
        """Delta of the run: long enough for this many processes that share two cores."""
        return self.delay_s if self.delay_s is not None else float(max(1, math.ceil(self.peers / 8)))


@dataclass(frozen=True)
class Player:
    """One peer of the demo; number 0 is the founder. ``attack`` is None for the honest.

    A stranger begins to join when round ``comes_after`` is done; None for whoever is there from the beginning.
    """

    number: int
    peer: str
    attack: str | None
    directory: Path
    comes_after: int | None = None

    @property
    def is_stranger(self) -> bool:
        """Whether it comes when the run has begun."""
        return self.comes_after is not None

    @property
    def ledger(self) -> Path:
        """Where it keeps its ledger."""
        return self.directory / LEDGER

    @property
    def log(self) -> Path:
        """Where it writes its events."""
        return self.directory / JSON_LOG


@dataclass(frozen=True)
class Plan:
    """Everything that is fixed before the first process starts."""

    settings: Settings
    config: RunConfig
    ticket: str
    directory: Path
    players: tuple[Player, ...]

    @property
    def members(self) -> tuple[Player, ...]:
        """The players that are there from the beginning."""
        return tuple(player for player in self.players if not player.is_stranger)

    @property
    def strangers(self) -> tuple[Player, ...]:
        """The players that come when the run has begun, in their order."""
        return tuple(player for player in self.players if player.is_stranger)

    @property
    def honest(self) -> tuple[Player, ...]:
        """The players without an attack."""
        return tuple(player for player in self.players if player.attack is None)


def check_settings(settings: Settings) -> None:
    """Return if such a demo can be run.

    Raises:
        ConfigError: it cannot; the message says what to change.
    """
    from btard.attacks import KINDS

    most = math.ceil(settings.peers / 2) - 1
    if settings.attack not in {MIXED, *KINDS}:
        raise ConfigError(f"unknown attack {settings.attack!r}; known are {MIXED}, {', '.join(KINDS)}")
    if settings.byzantine > most:
        raise ConfigError(
            f"{settings.byzantine} of {settings.peers} peers are too many: fewer than half may attack, "
            f"here at most {most}"
        )
    if settings.attack == "collude" and settings.byzantine == 1:
        raise ConfigError("one attacker cannot collude; choose --byzantine 2 or more")
    check_strangers(settings)


def draw_attacks(settings: Settings) -> tuple[str | None, ...]:
    """Return the kind of attack of every player, None for the honest; who attacks is drawn by the seed."""
    from btard.attacks import draw_mixed

    count = settings.byzantine
    kinds = draw_mixed(settings.seed, count) if settings.attack == MIXED else [settings.attack] * count
    drawn = sorted(range(1, settings.peers), key=lambda number: _lot(settings.seed, number))[:count]
    attacks = dict(zip(drawn, kinds, strict=True))
    return tuple(attacks.get(number) for number in range(settings.peers))


def _lot(seed: int, number: int) -> bytes:
    return digest(Context.EXPAND, b"demo", str(seed).encode(), str(number).encode())


def find_free_port() -> int:
    """Return a port on loopback that nobody listens on, neither for TCP nor for UDP.

    Raises:
        ConfigError: none was found.
    """
    for _ in range(PORT_TRIES):
        port = secrets.choice(PORTS)
        if _is_free(port, socket.SOCK_STREAM) and _is_free(port, socket.SOCK_DGRAM):
            return port
    raise ConfigError(f"no free port between {PORTS.start} and {PORTS.stop} on {HOST}; end some other programs")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def make_plan(settings: Settings, directory: Path) -> Plan:
    """Return the plan, its run file and the players' keys written under ``directory``.

    Raises:
        ConfigError: such a demo cannot be run, or the directory cannot be written.
    """
    from btard.cli.new import draft_run

    check_settings(settings)
    drawn = [*((attack, None) for attack in draw_attacks(settings)), *schedule_strangers(settings)]
    players = tuple(_make_player(directory, number, *role) for number, role in enumerate(drawn))
    config = draft_run(
        None,
        {
            "founder": players[0].peer,
            "task": settings.task,
            "genesis_size": settings.peers,
            "rounds": settings.rounds,
            "seed": settings.seed,
            "delay_s": settings.delay_bound_s,
            "defence": settings.defence,
            **choose_joining(settings),
            **settings.fields,
        },
    )
    write_run_file(config, directory / RUN_FILE)
    address = f"{HOST}:{find_free_port()}"
    return Plan(
        settings, config, format_ticket(Ticket(config.run_id, config.founder_id, (address,))), directory, players
    )


def _make_player(directory: Path, number: int, attack: str | None, comes_after: int | None) -> Player:
    identity, home = Identity.generate(), directory / f"peer-{number}"
    try:
        home.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ConfigError(f"cannot make {home}: {error.strerror}; choose a new, writable --data-dir") from None
    save_identity(identity, home / KEY_FILE)
    return Player(number, identity.peer_id.hex(), attack, home, comes_after)


def make_command(plan: Plan, player: Player) -> Sequence[str]:
    """Return the command line that runs one player, as anybody would type it but for the attack."""
    role = ["--found", str(plan.directory / RUN_FILE), "--identity", str(player.directory / KEY_FILE)]
    command = [sys.executable, "-m", "btard.cli", "join", plan.ticket]
    command += ["--data-dir", str(player.directory), "--json-log", str(player.log), "--wait", str(WAIT_S), LEASH]
    command += [WAIT_OPTION] if player.is_stranger else []
    return [*command, *(role if player.number == 0 else []), *_attack_options(plan, player)]


def _attack_options(plan: Plan, player: Player) -> Sequence[str]:
    if player.attack is None:
        return []
    settings = plan.settings
    first = 1 if player.is_stranger else settings.attack_from
    options = ["--attack", player.attack, "--attack-from", str(first)]
    return [*options, "--attack-seed", str(settings.seed), "--coalition", str(plan.directory / "coalition")]

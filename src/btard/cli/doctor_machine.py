"""What one machine can know alone before it joins a run: the rules of the doctor that need no network."""

from dataclasses import dataclass

from btard.cli.doctor_findings import Finding, failed, format_bytes, format_seconds, passed, warned

MEMORY_BASE = 512 * 10**6
MEMORY_VECTORS = 10
"""Vectors of the model's size that a peer holds: parameters, gradient, aggregate, optimizer, slices of all, copies."""
DISK_BASE = 100 * 10**6
CHECKPOINT_VECTORS = 9
"""Three checkpoints of parameters and two optimizer buffers; beside them an aggregate a round until the next one."""
SYNC_SHARE = 1 / 8
"""Part of delay_s that one write to the disk may take: a message is on it before it leaves, several times a round."""
DELAY_S = 2.0
"""The delay_s of a run that nobody chose otherwise."""
INSTALL_SLACK_S = 86_400.0
"""Archives keep local times without a zone: a file may seem to be written half a day from now."""
FILE_CLOCK_S = 2.0
STEP_S = 0.5
FREE_CORES_MIN = 0.5


@dataclass(frozen=True)
class Demands:
    """What a run asks of a machine; without a ticket a small model's."""

    elements: int = 0
    state_interval: int = 16
    delay_s: float = DELAY_S

    @property
    def memory(self) -> int:
        """Bytes of memory, about."""
        return MEMORY_BASE + 4 * MEMORY_VECTORS * self.elements

    @property
    def disk(self) -> int:
        """Bytes of disk, about."""
        return DISK_BASE + 4 * (CHECKPOINT_VECTORS + self.state_interval) * self.elements


@dataclass(frozen=True)
class Software:
    """Versions, in words where a package is missing."""

    btard: str
    protocol: int
    python: str
    torch: str
    is_complete: bool


@dataclass(frozen=True)
class Cores:
    """Cores that this process may use, and the average number of tasks that wanted one; None where unknown."""

    usable: float
    load: float | None


@dataclass(frozen=True)
class Disk:
    """A write of a small file at ``path``, synced, and what is free there; ``problem`` if it failed."""

    path: str
    free: int = 0
    sync_s: float = 0.0
    problem: str = ""
    is_in_use: bool = False


@dataclass(frozen=True)
class Clock:
    """The wall clock against what else tells time here, in seconds.

    ``since_install_s`` since btard's files were written; ``file_ahead_s`` a fresh file's time of writing, None if
    none could be written; ``stepped_s`` how far it ran ahead of the monotonic clock meanwhile.
    """

    since_install_s: float
    file_ahead_s: float | None
    stepped_s: float


@dataclass(frozen=True)
class Key:
    """The identity that join would use: missing, unreadable, or a peer id; ``is_founder`` where the ticket says so."""

    path: str
    peer: str = ""
    problem: str = ""
    is_founder: bool = False


@dataclass(frozen=True)
class Door:
    """Where we would listen, and whether TCP and UDP could; hosts and ports as given and as the system chose."""

    listen: str
    port: int
    is_port_chosen: bool
    is_loopback: bool
    is_wildcard: bool
    is_announced: bool = False
    only_dials_out: bool = False
    is_run_local: bool | None = None
    problem: str = ""


def judge_software(found: Software) -> Finding:
    """Return whether everything is installed."""
    line = f"btard {found.btard}, protocol {found.protocol}, Python {found.python}, torch {found.torch}"
    if not found.is_complete:
        return failed("software", line, "install btard again in a fresh environment: pip install -e '.[demo]'")
    return passed("software", line)


def judge_cores(found: Cores) -> Finding:
    """Return whether there is a core for a peer."""
    load = "" if found.load is None else f", load {found.load:.1f}"
    line = f"{found.usable:g} usable{load}; a peer uses one"
    if found.usable < 1:
        return warned("cores", line, "a peer with part of a core may be late: allow this process a whole one")
    if found.load is not None and found.usable - found.load < FREE_CORES_MIN:
        return warned("cores", line, "other programs keep the cores busy: stop them, or deadlines may be missed")
    return passed("cores", line)


def judge_memory(available: int | None, demands: Demands) -> Finding:
    """Return whether the memory will do."""
    need = f"a peer of this run needs about {format_bytes(demands.memory)}"
    if available is None:
        return passed("memory", f"this system does not say what is available; {need}")
    line = f"{format_bytes(available)} available; {need}"
    if available < demands.memory:
        return failed("memory", line, "stop other programs, or use a machine with more memory")
    return passed("memory", line)


def judge_disk(found: Disk, demands: Demands) -> Finding:
    """Return whether ledger and checkpoints can be kept, and fast enough."""
    if found.problem:
        return failed("disk", f"cannot write in {found.path}: {found.problem}", "choose another --data-dir")
    line = f"{format_bytes(found.free)} free at {found.path}, a synced write takes {format_seconds(found.sync_s)}"
    if found.free < demands.disk:
        need = format_bytes(demands.disk)
        return failed("disk", line, f"this run needs about {need}: free some, or choose another --data-dir")
    if found.is_in_use:
        return warned("disk", f"{line}; a running peer holds it", "stop that peer, or choose another --data-dir")
    if found.sync_s > SYNC_SHARE * demands.delay_s:
        bound = f"beyond {format_seconds(SYNC_SHARE * demands.delay_s)} a peer may be late"
        return warned("disk", line, f"{bound}: choose a --data-dir on a local disk that is not busy")
    return passed("disk", line)


def judge_clock(found: Clock) -> Finding:
    """Return whether the clock makes sense, as far as one machine can tell; only another peer knows its offset."""
    remedy = "set the clock by the network's time (NTP), for example: timedatectl set-ntp true"
    if found.since_install_s < -INSTALL_SLACK_S:
        return failed("clock", f"it is {format_seconds(-found.since_install_s)} before btard was installed", remedy)
    if abs(found.stepped_s) > STEP_S:
        return warned("clock", f"it was set by {format_seconds(found.stepped_s)} while we looked", "run doctor again")
    if found.file_ahead_s is not None and abs(found.file_ahead_s) > FILE_CLOCK_S:
        line = f"a file written now is {format_seconds(abs(found.file_ahead_s))} off: this clock or the disk's is wrong"
        return warned("clock", line, remedy)
    return passed("clock", "steady, and agrees with the disk; its offset only another peer can tell")


def judge_key(found: Key) -> Finding:
    """Return whether join would have a key."""
    if found.problem:
        return failed("key", found.problem, "mend that, or choose another --identity")
    if not found.peer:
        return passed("key", f"none at {found.path} yet; join makes one")
    if found.is_founder:
        return passed("key", f"{found.path} is the founder's key: join with --found RUN_FILE")
    return passed("key", f"{found.path} is peer {found.peer}")


def judge_door(found: Door) -> Finding:
    """Return whether we can listen, at an address that others can have."""
    where = f"{found.listen}, port {found.port}" if found.is_port_chosen else found.listen
    if found.problem:
        remedy = "stop that program (a peer of yours?), or choose another --listen"
        return failed("port", found.problem, remedy)
    line = f"TCP and UDP at {where} are free"
    if found.only_dials_out:
        return passed("port", f"{line}; it is announced to nobody")
    if found.is_wildcard and not found.is_announced:
        remedy = "say where others reach you: --announce HOST:PORT; if nobody does: --announce none"
        return failed("port", f"{found.listen} is every interface, and nobody knows which address is yours", remedy)
    if found.is_loopback and not found.is_announced and not found.is_run_local:
        where = "from this machine only" if found.is_run_local is None else "from this machine only, and the run is not"
        return warned("port", f"{line}, {where}", "to train with others: --listen 0.0.0.0:4001 --announce HOST:4001")
    if found.is_port_chosen and found.is_announced:
        remedy = "choose the port that is forwarded: --listen HOST:PORT"
        return warned("port", f"{line}, but the system chooses the port anew at each start", remedy)
    return passed("port", line)

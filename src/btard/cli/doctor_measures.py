"""What the doctor measures on one machine, without the network; ``doctor_machine`` judges it."""

import errno
import fcntl
import os
import platform
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import btard
from btard.cli.doctor_joining import Rate
from btard.cli.doctor_machine import Clock, Cores, Disk, Key, Software
from btard.errors import ConfigError
from btard.identity import DIGEST_SIZE, PeerId, Puzzle, load_identity, short
from btard.net import Address
from btard.swarm.ledger_files import LOCK_FILE
from btard.wire import NOT_INSTALLED, PROTOCOL, find_version

NEEDED = ("btard", "torch", "trio", "trio-asyncio", "kademlia", "msgspec")
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
PROBE_BYTES = 4096
WORK_SECONDS = 1.0
"""How long evaluations of a ticket's function are timed; each takes 10 ms at the default memory."""


def measure_software() -> Software:
    """Return the versions that matter, without importing anything heavy."""
    versions = {name: find_version(name) for name in NEEDED}
    is_complete = NOT_INSTALLED not in versions.values()
    return Software(versions["btard"], PROTOCOL, platform.python_version(), versions["torch"], is_complete)


def measure_cores() -> Cores:
    """Return the cores that this process may use, and how many tasks wanted one in the last minute."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_quota(_read(CGROUP / "cpu.max"))
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    return Cores(min(count, quota) if quota else count, load)


def read_quota(text: str) -> float | None:
    """Return the cores that a cgroup's ``cpu.max`` allows, None for no limit."""
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def measure_work(memory_kib: int, seconds: float = WORK_SECONDS) -> Rate | None:
    """Return how fast this machine works for a ticket, on as many threads as ``join`` would; None if it cannot."""
    threads = os.cpu_count() or 1
    puzzle = Puzzle(bytes(DIGEST_SIZE), PeerId(bytes(DIGEST_SIZE)), 0, 0, bytes(DIGEST_SIZE), memory_kib, 0)
    begun = time.perf_counter()

    def work(first: int) -> int:
        done = 0
        while not done or time.perf_counter() - begun < seconds:
            puzzle.evaluate(first + done)
            done += 1
        return done

    try:
        with ThreadPoolExecutor(threads) as pool:
            count = sum(pool.map(work, (number << 32 for number in range(threads))))
    except (MemoryError, OSError, RuntimeError):
        return None
    return Rate(count / (time.perf_counter() - begun), threads)


def measure_memory() -> int | None:
    """Return the bytes that can be had without swapping, None where the system does not say."""
    available = read_available(_read(MEMINFO))
    limit, used = _read(CGROUP / "memory.max").strip(), _read(CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        room = max(0, int(limit) - int(used))
        return room if available is None else min(available, room)
    return available


def read_available(text: str) -> int | None:
    """Return the bytes that Linux' ``meminfo`` calls available, None if it does not."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["MemAvailable:"] and len(words) > 1 and words[1].isdigit():
            return 1024 * int(words[1])
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def measure_disk(directory: Path) -> tuple[Disk, float | None]:
    """Return a synced write in ``directory``, or in the nearest that exists, and how far its clock is ahead."""
    place = find_existing(directory)
    try:
        with TemporaryFile(dir=place) as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            sync_s = time.perf_counter() - begun
            ahead_s = os.fstat(file.fileno()).st_mtime - time.time() + sync_s
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Disk(str(place), problem=error.strerror or str(error)), None
    return Disk(str(place), free, sync_s, is_in_use=is_held(directory)), ahead_s


def find_existing(directory: Path) -> Path:
    """Return ``directory``, or where it would be made."""
    absolute = directory.absolute()
    return next((path for path in (absolute, *absolute.parents) if path.exists()), absolute)


def is_held(directory: Path) -> bool:
    """Return whether a running peer holds a data directory; nothing is made or kept."""
    try:
        with (directory / LOCK_FILE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def measure_clock(file_ahead_s: float | None, wall_began_s: float, monotonic_began_s: float) -> Clock:
    """Return how the wall clock behaved since ``wall_began_s``, when the monotonic one showed ``monotonic_began_s``."""
    elapsed_s = time.monotonic() - monotonic_began_s
    installed = Path(btard.__file__).stat().st_mtime
    return Clock(time.time() - installed, file_ahead_s, time.time() - wall_began_s - elapsed_s)


def measure_key(path: Path, founder: PeerId | None) -> Key:
    """Return whose key ``path`` has; none is made."""
    if not path.exists():
        return Key(str(path))
    try:
        peer = load_identity(path).peer_id
    except ConfigError as error:
        return Key(str(path), problem=str(error))
    return Key(str(path), short(peer), is_founder=peer == founder)


def find_port(listen: Address) -> tuple[int, str]:
    """Return the port that is free at ``listen`` for TCP and UDP, and why there is none, else nothing.

    It is free when we look; nobody keeps it for us.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            with suppress(OSError, AttributeError):
                tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(place)
            tcp.listen()
            port = int(tcp.getsockname()[1])
            udp.bind((place[0], port, *place[2:]))
    except (OSError, UnicodeError) as error:
        return listen.port, _explain(error, listen)
    return port, ""


def _explain(error: OSError | UnicodeError, listen: Address) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return f"cannot listen at {listen}: another program uses the port"
    if code == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror | UnicodeError):
        return f"cannot listen at {listen}: no address of this machine"
    if code in {errno.EACCES, errno.EPERM}:
        return f"cannot listen at {listen}: not allowed; ports from 1024 on are"
    return f"cannot listen at {listen}: {error}"

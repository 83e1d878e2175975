"""The course of an examination: what is measured, in which order, and which rule judges it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import trio
from msgspec import structs

from btard.cli.doctor_findings import Finding
from btard.cli.doctor_joining import News, judge_line, judge_work
from btard.cli.doctor_machine import (
    Demands,
    Door,
    judge_clock,
    judge_cores,
    judge_disk,
    judge_door,
    judge_key,
    judge_memory,
    judge_software,
)
from btard.cli.doctor_measures import (
    find_port,
    measure_clock,
    measure_cores,
    measure_disk,
    measure_key,
    measure_memory,
    measure_software,
    measure_work,
)
from btard.cli.doctor_swarm import (
    judge_bootstrap,
    judge_config,
    judge_dht,
    judge_dialling_out,
    judge_gradient,
    judge_offset,
    judge_reach,
    judge_stage,
    judge_versions,
)
from btard.cli.doctor_visit import Errand, Report, locate, parse_all, run_errand
from btard.cli.status_measures import read_status
from btard.errors import BtardError, ConfigError
from btard.identity import PeerId
from btard.net import Address, is_loopback
from btard.rules.config import RunConfig
from btard.training import load_workload
from btard.training.address_book import ADDRESS_FILE, read_addresses
from btard.training.meeting import is_wildcard
from btard.training.trainer import time_gradient
from btard.wire import Ticket

GRADIENT_SECONDS = 120.0
"""How long two gradients, building the task included, may take before the doctor gives up."""


@dataclass(frozen=True)
class Patient:
    """Who wants to join what, as the command line says it; ``local`` is the run file at ``run_file``, if any."""

    ticket: Ticket | None
    data_dir: Path
    key: Path | None
    listen: tuple[Address, ...]
    announce: tuple[Address, ...] | None
    local: RunConfig | None
    run_file: str

    @property
    def is_run_local(self) -> bool | None:
        """Whether all addresses of the ticket are on this machine; None without a ticket."""
        if self.ticket is None:
            return None
        return all(is_loopback(address.host) for address in parse_all(self.ticket.bootstrap))


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield one finding after the other, each as soon as it is known."""
    wall_s, monotonic_s = time.time(), time.monotonic()
    yield judge_software(measure_software())
    yield judge_cores(measure_cores())
    key = measure_key(patient.key, PeerId(patient.ticket.founder) if patient.ticket else None) if patient.key else None
    if key is not None:
        yield judge_key(key)
    doors = [measure_door(patient, listen) for listen in patient.listen]
    yield from map(judge_door, doors)
    door = doors[0]
    config, slowest_s = patient.local, 0.0
    ticket = find_others(patient, is_founder=key is not None and key.is_founder)
    if ticket is not None:
        report = trio.run(run_errand, make_errand(patient, ticket, door))
        config, slowest_s = find_config(patient, ticket, report), find_slowest(report)
        yield from examine_swarm(patient, ticket, door, report)
        yield from examine_joining(patient, config, report.news)
    demands = Demands(config.elements, config.state_interval, config.delay_s) if config else Demands()
    yield judge_memory(measure_memory(), demands)
    disk, file_ahead_s = measure_disk(patient.data_dir)
    yield judge_disk(disk, demands)
    if config is not None:
        yield judge_gradient(*trio.run(time_task, config), config, slowest_s)
    yield judge_clock(measure_clock(file_ahead_s, wall_s, monotonic_s))


def find_others(patient: Patient, *, is_founder: bool) -> Ticket | None:
    """Return the ticket with the addresses of others: a founder's own are in it too, and may be the only ones."""
    ticket = patient.ticket
    if ticket is None or not is_founder:
        return ticket
    ours = {str(address) for address in (*patient.listen, *(patient.announce or ()))}
    others = tuple(address for address in ticket.bootstrap if address not in ours)
    return structs.replace(ticket, bootstrap=others) if others else None


def measure_door(patient: Patient, listen: Address) -> Door:
    """Return one place where we would listen, and whether we could."""
    announce = patient.announce
    port, problem = find_port(listen)
    return Door(
        str(listen),
        port,
        listen.port == 0,
        is_loopback(listen.host),
        is_wildcard(listen.host),
        is_announced=bool(announce),
        is_run_local=patient.is_run_local,
        only_dials_out=announce == (),
        problem=problem,
    )


def make_errand(patient: Patient, ticket: Ticket, door: Door) -> Errand:
    """Return whom to visit; nobody is asked to dial a door that we cannot open, or that nobody shall know."""
    known = tuple(read_addresses(patient.data_dir / ADDRESS_FILE))
    port = 0 if door.problem or door.only_dials_out else door.port
    dialled_port = patient.announce[0].port if patient.announce else door.port
    return Errand(ticket, patient.listen[0].host, port, dialled_port, known, patient.local)


def examine_swarm(patient: Patient, ticket: Ticket, door: Door, report: Report) -> Iterator[Finding]:
    """Yield what the other peers' answers mean."""
    visits = report.visits
    software = measure_software()
    yield from judge_bootstrap(visits)
    announced = patient.announce or (Address(patient.listen[0].host, door.port),)
    is_linked = any(not visit.problem for visit in visits)
    is_begun = any(visit.answer and visit.answer.members for visit in visits)
    others = (
        judge_config(visits, ticket.run_id, patient.local, patient.run_file),
        judge_stage(visits, is_member=is_member(patient.data_dir)),
        judge_versions(visits, (software.protocol, software.btard, software.torch)),
        judge_offset(visits),
        judge_dialling_out() if door.only_dials_out else judge_reach(visits, trio.run(locate, announced)),
        judge_dht(report.nodes, ticket.founder, report.lookups, is_linked=is_linked, is_begun=is_begun),
    )
    yield from (finding for finding in others if finding is not None)


def examine_joining(patient: Patient, config: RunConfig | None, news: News | None) -> Iterator[Finding]:
    """Yield what it takes to come into a run that has begun without us."""
    line = judge_line(news)
    if line is not None:
        yield line
    if news is not None and config is not None and not is_member(patient.data_dir):
        yield judge_work(config, news, measure_work(config.ticket_memory_kib))


def is_member(data_dir: Path) -> bool:
    """Return whether the ledger of a data directory, if there is one, is that of somebody who has been a member."""
    try:
        return read_status(data_dir).seal is not None
    except ConfigError:
        return False


def find_config(patient: Patient, ticket: Ticket, report: Report) -> RunConfig | None:
    """Return the ticket's configuration, from a peer or from our own file."""
    given = (visit.config for visit in report.visits if visit.config is not None)
    local = patient.local if patient.local and patient.local.run_id == ticket.run_id else None
    return next(given, local)


def find_slowest(report: Report) -> float:
    """Return the slowest gradient promised at genesis, in seconds; 0 before that."""
    promised = [visit.answer.gradient_ms for visit in report.visits if visit.answer and visit.answer.gradient_ms]
    return median(promised) / 1000 if promised else 0.0


async def time_task(config: RunConfig) -> tuple[float | None, str]:
    """Return how long a gradient of the run's task takes here, in seconds, or None and why that is not known."""
    torch.set_num_threads(1)  # as the trainer does: a peer is given one core

    def work() -> float:
        return time_gradient(load_workload(config)) / 1000

    with trio.move_on_after(GRADIENT_SECONDS):
        try:
            return await trio.to_thread.run_sync(work, abandon_on_cancel=True), ""
        except BtardError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001  a task is somebody's own code, and may fail in any way
            return None, f"the task raises {type(error).__name__}: {error}"
    return None, f"a gradient takes longer than {GRADIENT_SECONDS / 2:.0f} s"

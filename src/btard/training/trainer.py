"""
The trainer: one peer of one run, from the first address to the last checkpoint.

    trainer = Trainer(config, identity, data_dir, Endpoint(bootstrap=(address,)))
    result = await trainer.run()                  # inside trio
    result = run_in_thread(trainer).result()      # in a plain program
    result = await run_in_asyncio(trainer)        # inside asyncio
"""

import math
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import structlog
import torch
import trio
from torch import Tensor

from btard.dht import Directory, IdentityWork, open_directory
from btard.errors import ConfigError, NetworkError, Unreachable
from btard.identity import Context, Identity, PeerId, digest
from btard.net import Address, Hub, TcpTransport, Terms, Traffic, open_tcp
from btard.rules.config import RunConfig, format_run_file
from btard.swarm.compute import ThreadCompute
from btard.swarm.conduct import Conduct
from btard.swarm.events import Event, GradientOverflow, Resumed, RoundDone, RunStarted
from btard.swarm.goodbye import Goodbye
from btard.swarm.joining.stranger import Stranger
from btard.swarm.ledger_files import CHECKPOINT_DIRECTORY
from btard.swarm.peer import Membership, find_cause, run_peer
from btard.swarm.state import State
from btard.swarm.workload import Workload
from btard.training.address_book import ADDRESS_FILE, AddressBook, find_last_place
from btard.training.checkpoints import CheckpointSnapshots, save_checkpoint
from btard.training.checkup import CheckUps, Stage
from btard.training.joining import TicketSolver, reach_anybody, throttle
from btard.training.leave_pipe import LeavePipe
from btard.training.meeting import DhtDirectory, Endpoint, reach_founder, serve_config
from btard.training.notebook import NOTEBOOK_FILE, Notebook
from btard.training.optimizers import OptimizerState
from btard.training.own_gradient import WatchedConduct
from btard.training.progress import Continued, Ready, Reporter, TrainingObserver, ignore_events
from btard.training.solving import work_for_identity
from btard.training.tasks import Evaluation
from btard.training.workload import load_workload

ASIDE = 4
"""Things worked out beside the training at the same time: an evaluation, a candidate's gradient, a ticket, hashes."""
RUN_FILE_KEY = "run_file"
"""The checkpoint's metadata under which the whole run file is kept."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended. ``is_finished`` is false if it was stopped; then nothing is evaluated.

    ``rounds`` counts the updates in ``parameters``, x, shape (D,); ``state`` is its Merkle root, empty
    before genesis.
    """

    rounds: int
    parameters: Tensor
    state: bytes
    evaluation: Evaluation | None
    traffic: Traffic
    checkpoint: Path | None
    is_finished: bool


class Trainer:
    """One peer of a run. ``run`` may be called once.

    Args:
        config: the run.
        identity: our key; the founder's makes us the founder.
        data_dir: ledger, checkpoints and what else must be kept; made if it does not exist.
        endpoint: where to listen and whom to ask first.
        observe: called with every event, in trio's thread; must return soon.
        evaluate_every: rounds between evaluations on the hold-out; 0 for none but the last.
        leave_after: the round after which we say goodbye, to leave a round later; None for the run's last.
        conduct: how we behave; honest unless told otherwise.
        trusted_seal: digest of a recent seal that the run's line must contain, for whoever joins midway.

    Raises:
        ConfigError: the task cannot be loaded, or ``data_dir`` cannot be written.
        Refused: the task's model or data here are not those of the run.
    """

    def __init__(
        self,
        config: RunConfig,
        identity: Identity,
        data_dir: Path,
        endpoint: Endpoint | None = None,
        *,
        observe: TrainingObserver = ignore_events,
        evaluate_every: int = 0,
        leave_after: int | None = None,
        conduct: Conduct | None = None,
        trusted_seal: bytes = b"",
    ) -> None:
        make_directory(data_dir)
        self.config, self.identity = config, identity
        self._data_dir, self._endpoint = data_dir, endpoint or Endpoint()
        self._workload = load_workload(config)
        self._evaluate_every, self._goodbye = evaluate_every, Goodbye(leave_after)
        self._reporter = Reporter(self._attend, self._is_due, observe)
        self._conduct = conduct or WatchedConduct(self._observe)
        self._compute, self._aside, self._trusted_seal = ThreadCompute(), ThreadCompute(ASIDE), trusted_seal
        self._traffic = Traffic()
        self._last: State | None = None
        self._members: frozenset[PeerId] = frozenset()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_stopping = self._is_withdrawn = False
        self._leave_pipe = LeavePipe(data_dir)

    async def run(self) -> TrainingResult:
        """Take part until the run's last round, or until stopped; the newest state is on disk at the end, always.

        Sets torch to one thread, here and for the whole process: a peer is given one core.

        Raises:
            Banned, Removed, Undecided: we are not in the run any more; the message says why.
            Refused: the run has started without us, or is another.
            Unreachable: neither the founder nor a bootstrap peer answers.
            ConfigError: a port is taken, the disk is full, or our gradients are not finite.
        """
        torch.set_num_threads(1)
        self._token = trio.lowlevel.current_trio_token()
        with closing(self._leave_pipe):
            try:
                is_finished = await self._run_until_stopped()
            except BaseException:
                with suppress(ConfigError):  # why we are out matters more than why the disk is full
                    self._save_last()
                raise
            return await self._conclude(self._save_last(), is_finished=is_finished)

    async def _run_until_stopped(self) -> bool:
        """Return whether the training came to its end."""
        try:
            with self._scope:
                if not self._is_stopping:
                    await self._take_part()
                    return True
        except BaseExceptionGroup as group:
            raise find_cause(group) from None
        finally:
            self._reporter.flush()
        return self._is_withdrawn

    def stop(self) -> None:
        """Let ``run`` end soon, checkpoint included; callable from any thread and from signal handlers.

        The others wait for us and then remove us, without blame; in time the same directory goes on as a member.
        """
        self._is_stopping = True
        self._run_soon(self._scope.cancel)

    def leave(self) -> None:
        """Let ``run`` end with a goodbye after the round that runs, for good; callable like ``stop`` while it runs.

        Before training begins nobody counts on us: then it ends at once.
        """
        self._run_soon(self._say_goodbye)

    def _run_soon(self, act: Callable[[], None]) -> None:
        if self._token is not None:
            try:
                self._token.run_sync_soon(act)
            except trio.RunFinishedError:
                log.debug("asked to end after its end")

    def _say_goodbye(self) -> None:
        if self._members:
            self._goodbye.say_after(self._last.round if self._last else 1)
        else:
            self._is_withdrawn = True
            self._scope.cancel()

    async def _take_part(self) -> None:
        """Be on the network, TCP and UDP on one port number, and train."""
        config, endpoint, me = self.config, self._endpoint, self.identity.peer_id
        # Where the others will look for us after a restart.
        listen = [find_last_place(self._data_dir / ADDRESS_FILE, me, address) for address in endpoint.listen]
        terms = Terms(config.run_id, config.field_digests)
        bootstrap = [(address.host, address.port) for address in endpoint.bootstrap]
        work = await self._work_for_identity()
        async with open_tcp(self.identity, terms, *listen) as tcp:
            self._traffic = tcp.traffic
            announced, place = endpoint.find_announced(tcp.addresses), (tcp.address.host, tcp.address.port)
            async with open_directory(
                self.identity, config.run_id, place, bootstrap, state_dir=self._data_dir, work=work
            ) as directory:
                await self._train(tcp, directory, announced)

    async def _work_for_identity(self) -> IdentityWork:
        """What our DHT node has to show, members of the genesis included; found once, kept in the data directory."""
        me, bits = self.identity.peer_id, self.config.identity_bits
        notebook = Notebook(self._data_dir / NOTEBOOK_FILE, me, self.config.run_id)
        return IdentityWork(await work_for_identity(me, bits, self._aside, notebook), bits)

    async def _train(self, tcp: TcpTransport, directory: Directory, announced: tuple[Address, ...]) -> None:
        async with trio.open_nursery() as nursery:
            hub = Hub(tcp, self.identity.peer_id)
            tcp.arrivals.is_known = lambda peer: not hub.is_stranger(peer)
            serve_config(hub, self.config)
            CheckUps(hub, tcp, lambda: self._tell_stage(hub))
            await nursery.start(hub.run)
            nursery.start_soon(self._reporter.run)
            if announced:
                nursery.start_soon(directory.announce, [(address.host, address.port) for address in announced])
            known = AddressBook(self._data_dir / ADDRESS_FILE, DhtDirectory(directory))
            known.note(self.identity.peer_id, tcp.addresses)
            member = await self._prepare(hub, known)
            self._reporter.tell(Ready(self.identity.peer_id, announced, member.gradient_ms))
            nursery.start_soon(self._listen_for_leave)
            await self._run_peer(member, hub, known)
            await self._reporter.finish()
            nursery.cancel_scope.cancel()

    async def _listen_for_leave(self) -> None:
        """Let ourselves be told to leave, where the run knows a goodbye."""
        await trio.lowlevel.checkpoint()  # run_peer has locked the directory by then, or ended because it could not
        if self.config.defence != "none":
            await self._leave_pipe.listen(self.leave)

    async def _run_peer(self, member: Membership, hub: Hub, directory: AddressBook) -> None:
        try:
            self._last = await run_peer(member, hub, directory)
        except NetworkError as error:  # once the rounds run, silence is the swarm's business
            begun = "" if self._last else "; training had not begun: join again when the founder is back"
            raise Unreachable(f"{error}{begun}") from None

    async def _prepare(self, hub: Hub, directory: AddressBook) -> Membership:
        """Our part in the run, once we know how long a gradient takes us."""
        return Membership(
            self.identity,
            self.config,
            self._workload,
            self._data_dir,
            self._conduct,
            self._compute,
            self._observe,
            await self._compute.run(lambda: time_gradient(self._workload)),
            self._goodbye,
            CheckpointSnapshots(self._data_dir / CHECKPOINT_DIRECTORY),
            ThreadCompute(),
            partial(reach_founder, hub, directory, self.config.founder_id, self._endpoint),
            self._aside,
            self._apply(hub, directory),
        )

    def _apply(self, hub: Hub, directory: AddressBook) -> Stranger:
        """What we bring should the run have begun without us."""
        solver = TicketSolver(self.config, self.identity.peer_id, self._data_dir, self._reporter.tell)
        return Stranger(
            self.config,
            hub,
            self._workload,
            self._data_dir,
            self._compute,
            partial(reach_anybody, hub, directory, self.config.founder_id, self._endpoint),
            solver.solve,
            self._save,
            self._trusted_seal,
            throttle(self._reporter.tell),
            solver.spend,
        )

    def _tell_stage(self, hub: Hub) -> Stage:
        """How far the run is, for whoever thinks about joining, or about us."""
        last, members = self._last, self._members
        round_number, gradient_ms = (last.round - 1, last.seal.gradient_ms) if last else (0, 0)
        return Stage(round_number, len(members), len(hub.connected & members), gradient_ms)

    def _observe(self, event: Event) -> None:
        if isinstance(event, RunStarted | Resumed | RoundDone):
            self._members = frozenset(event.roster)
        if isinstance(event, RoundDone):
            self._last = event.result
            self._reporter.tell_round(event)
        elif isinstance(event, Resumed):
            self._last = event.state
            self._reporter.tell(Continued(event.round, event.attempt, event.roster))
        else:
            _warn_of(event)
            self._reporter.tell(event)

    def _is_due(self, round_number: int) -> bool:
        return self._is_evaluated(round_number) or round_number % self.config.state_interval == 0

    def _is_evaluated(self, round_number: int) -> bool:
        return self._evaluate_every > 0 and round_number % self._evaluate_every == 0

    async def _attend(self, state: State) -> Evaluation | None:
        """Save and evaluate what is due, beside the training; a full disk is only reported until the end."""
        finished = state.round - 1
        if finished % self.config.state_interval == 0:
            try:
                await self._aside.run(lambda: self._save(state))
            except ConfigError as error:
                log.error("no checkpoint was written", reason=str(error))
        return await self._evaluate(state.parameters) if self._is_evaluated(finished) else None

    async def _evaluate(self, parameters: Tensor) -> Evaluation:
        return await self._aside.run(lambda: self._workload.evaluate(parameters))

    def _save_last(self) -> Path | None:
        return self._save(self._last) if self._last is not None and self._last.round > 1 else None

    def _save(self, state: State) -> Path:
        """Write the state that ``state.round - 1`` rounds have led to."""
        metadata = {RUN_FILE_KEY: format_run_file(self.config), "run_id": self.config.run_id.hex()}
        return save_checkpoint(
            self._data_dir / CHECKPOINT_DIRECTORY,
            state.round - 1,
            state.parameters,
            cast("OptimizerState", state.optimizer),
            metadata,
        )

    async def _conclude(self, checkpoint: Path | None, *, is_finished: bool) -> TrainingResult:
        last = self._last
        parameters = self._workload.initial_parameters() if last is None else last.parameters
        evaluation = await self._evaluate(parameters) if is_finished else None
        return TrainingResult(
            0 if last is None else last.round - 1,
            parameters,
            b"" if last is None else last.seal.state,
            evaluation,
            self._traffic,
            checkpoint,
            is_finished,
        )


def time_gradient(workload: Workload, clock: Callable[[], float] = time.perf_counter) -> int:
    """Return how many milliseconds a gradient takes here, rounded up; the first one, which warms up, does not count."""
    parameters = workload.initial_parameters()
    seed = digest(Context.MINIBATCH, b"timing")
    workload.gradient(parameters, seed)
    started = clock()
    workload.gradient(parameters, seed)
    return max(1, math.ceil(1000 * (clock() - started)))


def make_directory(path: Path) -> None:
    """Make sure that ``path`` is a directory of ours.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot write in {path}: {reason}; choose another data directory") from None


def _warn_of(event: Event) -> None:
    if isinstance(event, GradientOverflow) and event.in_a_row == 1:
        log.warning("our gradient is not finite: this round it counts as an overflow", round=event.round)

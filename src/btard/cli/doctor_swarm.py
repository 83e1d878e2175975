"""
What other peers tell about a machine that wants to join: the rules of the doctor that need a ticket.

Everything here is a peer's word, and a peer may lie. So where several answer, the middle one counts; and
that we can be reached is believed only of a peer that came to our own door.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median

from btard.cli.doctor_findings import Finding, clean, failed, format_seconds, passed, warned
from btard.dht.datagram import MAX_CLOCK_SKEW_MS
from btard.identity import short
from btard.net import is_loopback
from btard.rules.config import RunConfig
from btard.swarm.services import COMPUTE_FACTOR
from btard.training.checkup import Answer, Dialled

CLOCK_LIMIT_S = MAX_CLOCK_SKEW_MS / 1000
"""Beyond this no DHT node listens to us; the rounds themselves know no wall clock."""
CLOCK_WARNING_S = 60.0
SLOW_LOOKUP_S = 2.0
SHOWN_FIELDS = 5


@dataclass(frozen=True)
class Sample:
    """A question about the time: how long the answer took, and how far the peer's clock was ahead, in seconds."""

    trip_s: float
    ahead_s: float


@dataclass(frozen=True)
class Visit:
    """What came of one bootstrap address. Where ``problem`` is set there is no link and nothing else.

    ``config_problem`` is why the run file did not come, ``silence`` why no check-up did; ``has_come`` tells whether
    the peer came to our door, ``dialled`` what it says of that.
    """

    address: str
    peer: bytes = b""
    connect_s: float = 0.0
    problem: str = ""
    is_refused: bool = False
    config: RunConfig | None = None
    config_problem: str = ""
    samples: tuple[Sample, ...] = ()
    answer: Answer | None = None
    silence: str = ""
    dialled: Dialled | None = None
    has_come: bool = False

    @property
    def name(self) -> str:
        """The peer as people tell it apart."""
        return short(self.peer)


@dataclass(frozen=True)
class Lookup:
    """One search in the DHT; ``addresses`` is empty where nothing was found."""

    peer: bytes
    seconds: float
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Whereabouts:
    """Where we say we are: the address to be told to others, and the literal addresses that its host stands for."""

    address: str
    hosts: frozenset[str]
    is_loopback: bool


def judge_bootstrap(visits: Sequence[Visit]) -> list[Finding]:
    """Return one line for each address of the ticket: one that answers is enough to join."""
    if not visits:
        return [failed("bootstrap", "the ticket names no address", "ask for a ticket printed with one: btard-peer new")]
    is_any = any(not visit.problem for visit in visits)
    return [_judge_address(visit, is_any=is_any) for visit in visits]


def _judge_address(visit: Visit, *, is_any: bool) -> Finding:
    if not visit.problem:
        return passed("bootstrap", f"{visit.address}: peer {visit.name} in {format_seconds(visit.connect_s)}")
    verdict = warned if is_any else failed
    line = visit.problem if visit.address in visit.problem else f"{visit.address}: {visit.problem}"
    if visit.is_refused:
        remedy = "ask for the run's newest ticket, and compare btard-peer version on both sides"
    else:
        remedy = "is that peer running? check the address, its port and the firewalls, TCP and UDP"
    return verdict("bootstrap", line, remedy)


def judge_config(visits: Sequence[Visit], run_id: bytes, local: RunConfig | None, path: str) -> Finding | None:
    """Return whether we have, or can get, the very configuration of the ticket's run; None where nobody says."""
    given = next((visit for visit in visits if visit.config is not None), None)
    if local is not None and local.run_id != run_id:
        remedy = f"remove {path}, or join with the ticket that was made with it"
        return failed("run", f"{path} is not the ticket's run{_tell_differences(local, given)}", remedy)
    others = [visit for visit in visits if visit.config_problem]
    if given is None and local is None:
        if not others:
            return None
        reasons = "; ".join(visit.config_problem for visit in others)
        return failed("run", f"no run file: {reasons}", "ask whoever founded the run for its file, and use --run-file")
    config = (given and given.config) or local
    assert config is not None
    whence = f"as {path} says" if given is None else f"as peer {given.name} says"
    line = f"{config.task}, {config.elements} parameters, {config.rounds} rounds, {whence} and the ticket"
    if others:
        reasons = "; ".join(visit.config_problem for visit in others)
        return warned(
            "run",
            f"{line}; but {reasons}",
            "they are busy, run another version, or lie: rely on others",
        )
    return passed("run", line)


def _tell_differences(local: RunConfig, given: Visit | None) -> str:
    """Return which fields of our run file differ from the ticket's run, where a peer gave us that."""
    if given is None or given.config is None:
        return ""
    pairs = [(item.name, getattr(local, item.name), getattr(given.config, item.name)) for item in fields(RunConfig)]
    shown = [f"{name} (here {ours}, there {theirs})" for name, ours, theirs in pairs if ours != theirs]
    more = f" and {len(shown) - SHOWN_FIELDS} more" if len(shown) > SHOWN_FIELDS else ""
    return f"; it differs in: {', '.join(shown[:SHOWN_FIELDS])}{more}"


def judge_stage(visits: Sequence[Visit], *, is_member: bool) -> Finding | None:
    """Return how far the run is, None where nobody says; ``is_member``: we have a member's ledger of the run."""
    answers = [visit.answer for visit in visits if visit.answer]
    if not answers:
        return None
    furthest = max(answers, key=lambda answer: (answer.members > 0, answer.round))
    if not furthest.members:
        return passed("stage", "training has not begun")
    line = f"round {furthest.round} is done, with {furthest.members} members"
    if is_member:
        return passed("stage", f"{line}; the ledger here is of this run: join goes on with it")
    return passed("stage", f"{line}: join comes in midway, by a ticket to be worked for and a probation")


def judge_versions(visits: Sequence[Visit], ours: tuple[int, str, str]) -> Finding | None:
    """Return whether others run what we run, as (protocol, btard, torch); None where nobody answers at all."""
    linked = [visit for visit in visits if not visit.problem]
    answers = [(visit.name, visit.answer) for visit in linked if visit.answer]
    if not linked:
        return None
    if not answers:
        reasons = "; ".join(visit.silence for visit in linked)
        remedy = "they run an older btard, or are busy: run doctor again; no clock and no door was checked"
        return warned("versions", f"no peer gives a check-up: {clean(reasons)}", remedy)
    protocol, btard, torch = ours
    other = [f"{name} speaks {answer.protocol}" for name, answer in answers if answer.protocol != protocol]
    if other:
        remedy = "install the version of btard that the founder uses"
        return failed("versions", f"we speak protocol {protocol}, {', '.join(other)}", remedy)
    words = [
        f"{name} has {what} {theirs}"
        for name, answer in answers
        for what, theirs, mine in (("btard", answer.btard, btard), ("torch", answer.torch, torch))
        if theirs != mine
    ]
    if words:
        remedy = "gradients may differ in their last bits: better install what constraints.txt names, everywhere"
        return warned("versions", f"here btard {btard} and torch {torch}, {', '.join(words)}", remedy)
    return passed("versions", f"protocol, btard and torch are those of {', '.join(name for name, _ in answers)}")


def judge_offset(visits: Sequence[Visit]) -> Finding | None:
    """Return how far our clock is from the others', known to half a round trip; None where nobody told the time."""
    best = [min(visit.samples, key=lambda sample: sample.trip_s) for visit in visits if visit.samples]
    if not best:
        return None
    ahead = median(sample.ahead_s for sample in best)
    error = max(sample.trip_s for sample in best) / 2
    peers = "one peer" if len(best) == 1 else f"the middle one of {len(best)} peers"
    way = "behind" if ahead > 0 else "ahead of"
    state = "in step with" if abs(ahead) <= error else f"{format_seconds(abs(ahead))} {way}"
    line = f"{state} {peers}, to within {format_seconds(error)}"
    remedy = "set the clock by the network's time (NTP); if it is right, that peer's is wrong"
    if abs(ahead) - error > CLOCK_LIMIT_S:
        limit = format_seconds(CLOCK_LIMIT_S)
        return failed("offset", f"{line}: beyond {limit} nobody hears our DHT node", remedy)
    if abs(ahead) - error > CLOCK_WARNING_S:
        return warned("offset", line, remedy)
    return passed("offset", line)


def judge_reach(visits: Sequence[Visit], ours: Whereabouts) -> Finding | None:
    """Return whether another peer reached our door over TCP; None where nobody was asked."""
    asked = [visit for visit in visits if visit.dialled is not None and visit.answer is not None]
    if not asked:
        mute = "; ".join(f"{visit.name}: {visit.silence}" for visit in visits if visit.answer and visit.silence)
        return warned("reach", f"no peer told what came of its dial ({mute})", "run doctor again") if mute else None
    came = [visit for visit in asked if visit.has_come]
    if not came:
        return _judge_closed_door({visit.dialled: visit for visit in asked}, ours)
    seen = sorted({visit.answer.host for visit in came if visit.answer})
    line = f"{', '.join(visit.name for visit in came)} came to our port over TCP, at {', '.join(seen)}"
    if ours.hosts.isdisjoint(seen):
        remedy = f"is {ours.address} another way to this machine? If not, --announce the address that they see"
        return warned("reach", line, remedy)
    return passed("reach", line)


def _judge_closed_door(words: Mapping[Dialled | None, Visit], ours: Whereabouts) -> Finding:
    """Return what it means that nobody came: ``words`` are what the peers say, and one that says it."""
    by = {word: visit.name for word, visit in words.items()}
    hosts = sorted({visit.answer.host for visit in words.values() if visit.answer})
    seen = ", ".join(hosts)
    forward = f"open {ours.address} in the firewall, and forward it on the router, TCP and UDP; or --announce none"
    if ours.hosts and ours.hosts.isdisjoint(hosts):
        forward = f"you say {ours.address}, they see {seen}: listen there or announce that; behind a router, {forward}"
    if ours.is_loopback and not all(is_loopback(host) for host in hosts):
        return failed("reach", f"nobody elsewhere reaches {ours.address}", "listen for others: --listen 0.0.0.0:PORT")
    if Dialled.SILENT in words:
        return failed(
            "reach", f"{by[Dialled.SILENT]} dialled {seen}, and nothing answers: packets are dropped", forward
        )
    if Dialled.FAILED in words:
        return failed("reach", f"{by[Dialled.FAILED]} dialled {seen}, and was turned away", forward)
    if Dialled.REACHED in words:
        line = f"{by[Dialled.REACHED]} says that it reached us at {seen}, and nobody came"
        return warned("reach", line, "it lies, or something in between answers for us: ask another peer")
    if Dialled.BUSY in words:
        return warned("reach", "the peers were busy with other newcomers", "run doctor again in ten seconds")
    remedy = "peers dial no port below 1024, nor their own machine: choose another port, or ask a peer elsewhere"
    return warned("reach", f"no peer was willing to dial {seen}", remedy)


def judge_dialling_out() -> Finding:
    """Return what it means that we announce nothing: no peer can be asked whether all the others can be reached."""
    line = "you announce nothing: nobody can dial you, you dial everybody"
    remedy = "fine if all others can be reached; two that only dial out have no link and slow all down: open a port"
    return warned("reach", line, remedy)


def judge_dht(
    known: int | None, founder: bytes, lookups: Sequence[Lookup], *, is_linked: bool, is_begun: bool
) -> Finding | None:
    """Return whether the DHT answers over UDP and knows the founder, who is needed until training has begun.

    ``known`` is None where nobody was asked, for the identity work that nodes ask for took too long. ``is_linked`` is
    whether anybody answers over TCP: where nobody does at all, the addresses have been blamed.
    """
    if known is None:
        line = "not asked: this run asks for much identity work, and the doctor's key has none"
        return warned("dht", line, "check that UDP is open on the same ports; join works once, and keeps it")
    if not known:
        remedy = "open UDP on the same ports; listen in the peers' family, IPv4 or IPv6; check the clock"
        return failed("dht", "peers answer over TCP, and no DHT node over UDP", remedy) if is_linked else None
    found = [item for item in lookups if item.addresses]
    times = [item.seconds for item in found]
    line = f"{known} nodes known, {len(found)} of {len(lookups)} peers found"
    if times:
        line += f" in {format_seconds(median(times))} (slowest {format_seconds(max(times))})"
    if not any(item.peer == founder for item in found) and not is_begun:
        remedy = "start the founder first; where it runs, wait a minute until it has published its address"
        return failed("dht", f"{line}; the founder {short(founder)} is not among them", remedy)
    if len(found) < len(lookups) or max(times, default=0.0) > SLOW_LOOKUP_S:
        return warned("dht", line, "packets get lost, or some peers have left: run doctor again in a minute")
    return passed("dht", line)


def judge_gradient(seconds: float | None, problem: str, config: RunConfig, slowest_s: float) -> Finding:
    """Return whether our gradient is fast enough: for the run's bound, and for what was promised at genesis.

    ``seconds`` is None where it could not be timed; ``slowest_s`` is 0 before genesis.
    """
    if seconds is None:
        return failed("gradient", f"{config.task}: {problem}", "mend that first: a member computes one every round")
    bound = min(config.max_gradient_s, COMPUTE_FACTOR * slowest_s) if slowest_s else config.max_gradient_s
    line = f"{format_seconds(seconds)} for {config.task}; this run waits {format_seconds(bound)} for one"
    if seconds > bound:
        return failed("gradient", line, "use a faster machine; the founder would turn this one away")
    if seconds > bound / 2:
        return warned("gradient", line, "with another program at work it may be late: keep this machine idle")
    return passed("gradient", line)

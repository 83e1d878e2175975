"""
A newcomer asks members for the line of seals, believes what is signed, and stops where two lines are (attacks B9).

Old keys can forge old history, so a line that lacks the seal which the ticket names is refused; and where two
valid lines disagree nobody but the user can tell which is the run: both are shown.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
import trio

from btard.errors import BtardError, NetworkError, Refused, RemoteProtocolError, RequestTimedOut, Unreachable
from btard.identity import PeerId, short
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.swarm.compute import Compute
from btard.swarm.frames import Kind
from btard.swarm.joining.lineage import (
    FROM_GENESIS,
    MAX_PAGE,
    MAX_STEPS,
    MAX_THROUGH,
    Line,
    LineAnswer,
    LineQuestion,
    Vouched,
    open_genesis,
    open_next,
)
from btard.wire import decode, encode

log = structlog.get_logger(__name__)

LINE_SECONDS = 120.0
"""How long one member may take to tell the whole line; most take one page, and less than a second."""
MAX_SOURCES = 16
"""Peers asked for the line at the same time; the next ones are only if none of these tells one that holds."""
ADVICE = "Ask somebody you trust for the digest of a recent seal, and join with --trust-seal DIGEST"


@dataclass(frozen=True)
class Lines:
    """What members told: the newest valid line, and why others' were refused, by member."""

    line: Line
    refusals: Mapping[PeerId, str]


class LineAsker:
    """Asks members of a run for its line."""

    def __init__(self, config: RunConfig, hub: Hub, compute: Compute) -> None:
        self._config, self._hub, self._compute = config, hub, compute
        self._page_s = 2 * config.delay_s + 2 * MAX_PAGE / config.min_bandwidth + 10.0

    async def find_line(
        self,
        sources: Sequence[PeerId],
        pin: bytes = b"",
        begun: Sequence[Vouched] = (),
        *,
        hint: Line | None = None,
        patience_s: float = math.inf,
    ) -> Lines:
        """Return the newest line that members tell, through the seal with digest ``pin`` if one is given.

        They are asked ``MAX_SOURCES`` at a time, in order, until some tell a line that holds: a crowd that tells none
        hides nobody. With ``begun``, a line that was verified before, they tell only how it goes on. A ``hint`` is
        a line that holds too, but perhaps of another run: who does not know its head tells the whole. Who has not told
        a line ``patience_s`` seconds after the first that holds is not waited for: one that keeps silent must not make
        what the others told old.

        Raises:
            Refused: everybody answered, and all is not of this run, lacks the pinned seal, or is not signed; or there
                are two runs.
            Unreachable: nobody answers that tells a valid line; or one that told another falls silent about it.
        """
        told: dict[PeerId, Line] = {}
        refusals: dict[PeerId, str] = {}
        silent: dict[PeerId, str] = {}

        async def ask(source: PeerId) -> None:
            try:
                told[source] = await self.follow(source, (pin,) if pin else (), begun, hint)
                if len(told) == 1:
                    nursery.cancel_scope.relative_deadline = patience_s
            except RemoteProtocolError as error:
                refusals[source] = str(error)
                log.warning("a line of seals is refused", source=short(source), reason=str(error))
            except NetworkError as error:
                silent[source] = str(error)

        for first in range(0, len(sources), MAX_SOURCES):
            async with trio.open_nursery() as nursery:
                for source in sources[first : first + MAX_SOURCES]:
                    nursery.start_soon(ask, source)
            if told:
                break
        if not told:
            raise _explain(refusals, silent, pin)
        return Lines(await self._reconcile(told, pin), refusals)

    async def follow(
        self, source: PeerId, through: Sequence[bytes], begun: Sequence[Vouched] = (), hint: Line | None = None
    ) -> Line:
        """Return the verified line that one member tells, through the seals with these digests, from ``begun`` on.

        If it knows the head of ``hint`` it tells only how that line goes on.

        Raises:
            RemoteProtocolError: its line is not one of this run, or lacks one of them; the message says why.
            NetworkError: no answer.
        """
        with trio.move_on_after(LINE_SECONDS):
            if hint is not None:
                with suppress(RemoteProtocolError):
                    return await self._follow_through(source, (*through, hint.head.digest), hint.seals)
            return await self._follow_through(source, tuple(through), begun)
        raise RequestTimedOut(f"{short(source)} did not tell the line of seals within {LINE_SECONDS:.0f} s")

    async def _follow_through(self, source: PeerId, through: tuple[bytes, ...], begun: Sequence[Vouched]) -> Line:
        try:
            line = await self._follow(source, through, begun)
        except RemoteProtocolError as error:
            error.peer = source
            raise
        for digest in through:
            if not line.contains(digest):
                raise RemoteProtocolError(f"its line does not contain the seal {digest.hex()}", source)
        return line

    async def _follow(self, source: PeerId, through: tuple[bytes, ...], begun: Sequence[Vouched]) -> Line:
        assert len(through) <= MAX_THROUGH
        line = list(begun)
        while True:
            after = line[-1].seal.round if line else FROM_GENESIS
            answer = await self._ask(source, LineQuestion(after, through))
            if not answer.is_known and not through:
                raise Unreachable("it has no seals yet")  # before the genesis that is nobody's fault
            if not answer.is_known:
                names = ", ".join(digest.hex() for digest in through)
                raise RemoteProtocolError(f"it does not know the seal {names}")
            if begun and not answer.seals and answer.newest <= after:
                return Line(source, tuple(line))
            if not answer.seals or len(line) + len(answer.seals) > MAX_STEPS:
                raise RemoteProtocolError(
                    f"its line of seals has no end: {len(line)} so far, the last of round {after}"
                )
            line = await self._compute.run(lambda: self._extend(line, answer))  # noqa: B023 - awaited before both change
            if line[-1].seal.round >= answer.newest:
                return Line(source, tuple(line))

    async def _ask(self, source: PeerId, question: LineQuestion) -> LineAnswer:
        reply = await self._hub.request(source, Kind.LINEAGE, encode(question), timeout_s=self._page_s)
        answer: LineAnswer = decode(reply.head, LineAnswer)
        return answer

    def _extend(self, line: Sequence[Vouched], answer: LineAnswer) -> list[Vouched]:
        longer = list(line)
        for item in answer.seals:
            longer.append(open_next(self._config, longer[-1], item) if longer else open_genesis(self._config, item))
        return longer

    async def _reconcile(self, told: Mapping[PeerId, Line], pin: bytes) -> Line:
        """Return the newest of these lines, or of those shown for them, with which all the others are of one run.

        Raises:
            Refused, Unreachable: as ``_find_way`` does.
        """
        held = dict(told)
        while True:
            newest = max(held.values(), key=lambda each: (each.head.seal.round, each.head.digest))
            others = (each for each in held.values() if not newest.agrees_with(self._config, each.head))
            other = next(others, None)
            if other is None:
                return newest
            way = await self._find_way(tuple(told), newest, other, pin)
            del held[newest.source], held[other.source]
            held[way.source] = way

    async def _find_way(self, sources: Sequence[PeerId], newest: Line, other: Line, pin: bytes) -> Line:
        """Return a line that shows that both are of one run; anybody may tell it, not only who told one of them.

        Raises:
            Refused: nothing shows that they are.
            Unreachable: one of both tellers answers no more, which says nothing of the lines: ask again.
        """
        ways: list[Line] = []
        failures: dict[PeerId, NetworkError | RemoteProtocolError] = {}

        async def ask(source: PeerId) -> None:
            try:
                way = await self._follow_both(source, newest, other, pin)
            except (NetworkError, RemoteProtocolError) as error:
                failures[source] = error
                return
            if self._is_way(way, newest):
                ways.append(way)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(ask, source)
        if ways:
            return ways[0]
        raise _explain_fork(newest, other, failures)

    async def _follow_both(self, source: PeerId, newest: Line, other: Line, pin: bytes) -> Line:
        """Return the line that a member tells through both heads, or, if it does not, through that of ``other``."""
        through = [digest for digest in (pin, other.head.digest) if digest]
        try:
            return await self.follow(source, (*through, newest.head.digest))
        except RemoteProtocolError:
            if source == newest.source:
                raise
            return await self.follow(source, through)  # it may be a round behind

    def _is_way(self, way: Line, newest: Line) -> bool:
        """Return whether a line through the other's head goes on from the newest's head, or ends right before it.

        Whoever leaves out signatures on purpose makes true seals look like another run's. Where such a seal is
        signed, honest members have the one before it, which it names itself: that one is of the run in any case.
        """
        return way.head.digest == newest.head.seal.previous or way.agrees_with(self._config, newest.head)


def _describe(line: Line) -> str:
    return f"round {line.head.seal.round}, seal {line.head.digest.hex()}, told by {short(line.source)}"


def _explain_fork(
    newest: Line, other: Line, failures: Mapping[PeerId, NetworkError | RemoteProtocolError]
) -> BtardError:
    for line, another in ((newest, other), (other, newest)):
        error = failures.get(line.source)
        if isinstance(error, NetworkError):
            tells = f"{short(line.source)} tells {_describe(line)}"
            return Unreachable(f"{tells}, and shows no way between it and {_describe(another)}: {error}")
    reason = failures.get(newest.source, "its teller has another line now")
    return Refused(
        "there are two runs with this ticket, each with valid signatures: "
        f"{_describe(newest)}; and {_describe(other)} ({reason}). {ADVICE}"
    )


def _explain(refusals: Mapping[PeerId, str], silent: Mapping[PeerId, str], pin: bytes) -> BtardError:
    words = "; ".join(f"{short(source)}: {reason}" for source, reason in sorted({**silent, **refusals}.items()))
    if refusals and not silent:
        advice = f". {ADVICE}" if pin else ""
        return Refused(f"no member tells a valid line of seals: {words}{advice}")
    return Unreachable(f"nobody tells a valid line of seals: {words or 'there is no link to any member'}")

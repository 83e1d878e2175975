"""The views that members voted for: whoever voted for them holds them in full, and serves those who did not."""

from contextlib import suppress
from typing import Annotated

import trio
from msgspec import Meta, Struct

from btard.errors import NetworkError, RemoteProtocolError
from btard.identity import PeerId
from btard.rules.messages import MAX_ROSTER, Ballot, Bytes32, Position, SignedMessage, Stage
from btard.rules.recovery import belongs, compute_views_digest
from btard.swarm.broadcast import Broadcast
from btard.swarm.frames import Kind
from btard.swarm.settlement import Messages
from btard.swarm.viewing import make_position
from btard.wire import decode, encode, open_message


class VotedRequest(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for one of the views that the asked member voted for: the ``index``-th in roster order."""

    position: Position
    views: Bytes32
    index: Annotated[int, Meta(ge=0, lt=MAX_ROSTER)]


class Voted:
    """Our own vote of the newest recovery with its views, and the way to those of others."""

    def __init__(self, run_id: bytes, broadcast: Broadcast) -> None:
        self._run_id, self._broadcast = run_id, broadcast
        self._ours: tuple[Stage, Ballot, tuple[SignedMessage, ...]] | None = None
        broadcast.hub.serve[Kind.PULL_VOTED] = self._serve

    def keep(self, stage: Stage, ballot: Ballot, views: Messages) -> None:
        """Remember what we voted for; what we voted before a restart may be gone."""
        held = tuple(views[peer] for peer in sorted(views))
        self._ours = (stage, ballot, held) if compute_views_digest(views) == ballot.views else None

    async def find(self, stage: Stage, ballot: Ballot, voters: list[PeerId], wait_s: float) -> Messages | None:
        """Return the views of a ballot: those held here, or what a voter serves within ``wait_s`` seconds."""
        if self._ours and self._ours[:2] == (stage, ballot):
            return {view.sender: view for view in self._ours[2]}
        if held := self._find_held(stage, ballot):
            return held
        found: list[Messages] = []
        with trio.move_on_after(wait_s):
            async with trio.open_nursery() as nursery:

                async def ask(voter: PeerId) -> None:
                    views = await self._pull(stage, ballot, voter, wait_s)
                    if views is not None:
                        found.append(views)
                        nursery.cancel_scope.cancel()

                for voter in voters:
                    nursery.start_soon(ask, voter)
        return found[0] if found else None

    def _find_held(self, stage: Stage, ballot: Ballot) -> Messages | None:
        """The views that a ballot names where all of them came here, if later than we voted."""
        roster, held = self._broadcast.place.roster, self._broadcast.board.of(stage)
        views = {p: v for p, v in held.items() if p not in ballot.silent and belongs(v, roster, stage)}
        return views if compute_views_digest(views) == ballot.views else None

    async def _pull(self, stage: Stage, ballot: Ballot, voter: PeerId, wait_s: float) -> Messages | None:
        """Ask one voter for all views at once: one after another, the way there and back would count for each."""
        roster, views = self._broadcast.place.roster, dict[PeerId, SignedMessage]()

        async def pull_one(index: int) -> None:
            request = encode(VotedRequest(make_position(stage), ballot.views, index))
            with suppress(NetworkError, RemoteProtocolError):
                answer = await self._broadcast.hub.request(voter, Kind.PULL_VOTED, request, timeout_s=wait_s)
                view = open_message(self._run_id, answer.head)
                if belongs(view, roster, stage):
                    views[view.sender] = view

        async with trio.open_nursery() as nursery:
            for index in range(sum(peer not in ballot.silent for peer in roster.members)):
                nursery.start_soon(pull_one, index)
        return views if compute_views_digest(views) == ballot.views else None

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        """Answer a member of the recovery, and nobody else."""
        request: VotedRequest = decode(body, VotedRequest)
        if self._ours is None or not self._broadcast.is_member(peer):
            return b"", None
        stage, ballot, views = self._ours
        is_known = (request.position.stage, request.views) == (stage, ballot.views) and request.index < len(views)
        return views[request.index].envelope if is_known else b"", None

"""What a member can do to a newcomer: each changes what its hub serves."""

from collections.abc import Callable

import msgspec
import trio
from tests.swarm.transfer.scenes import Scene

from btard.identity import PeerId
from btard.net import Hub, Loan
from btard.swarm.frames import Kind
from btard.swarm.joining.transfer_frames import ChunksAnswer, Claims, Outline, RangeQuestion, Status
from btard.wire import decode, encode

Lie = Callable[[Scene, Hub], None]


def change_outline(change: Callable[[Outline], Outline]) -> Lie:
    """Say that the snapshot consists of something else."""

    def lie(scene: Scene, hub: Hub) -> None:
        honest = hub.serve[Kind.OUTLINE]

        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            answer, _ = await honest(peer, body)
            return encode(change(decode(answer, Outline))), None

        hub.serve[Kind.OUTLINE] = serve

    return lie


def claim_length(outline: Outline) -> Outline:
    """Let a buffer be of a length that nobody has room for."""
    buffers = tuple(msgspec.structs.replace(entry, elements=2**40) for entry in outline.buffers)
    return msgspec.structs.replace(outline, buffers=buffers)


def claim_shorter(outline: Outline) -> Outline:
    """Let a buffer be one number shorter, under its true root."""
    buffers = tuple(msgspec.structs.replace(entry, elements=entry.elements - 1) for entry in outline.buffers)
    return msgspec.structs.replace(outline, buffers=buffers)


def claim_step(outline: Outline) -> Outline:
    """Let the optimizer have done one step more."""
    return msgspec.structs.replace(outline, step=outline.step + 1)


def name_twice(outline: Outline) -> Outline:
    """Name a buffer twice."""
    return msgspec.structs.replace(outline, buffers=(*outline.buffers, *outline.buffers))


def false_leaves(scene: Scene, hub: Hub) -> None:
    """Give leaf digests of nothing."""
    honest = hub.serve[Kind.LEAVES]

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        answer, loan = await honest(peer, body)
        return answer, loan and loan._replace(payload=memoryview(bytes(len(loan.payload))))

    hub.serve[Kind.LEAVES] = serve


def no_leaves(scene: Scene, hub: Hub) -> None:
    """Give none of the leaf digests of what was offered."""

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.lowlevel.checkpoint()
        return b"", None

    hub.serve[Kind.LEAVES] = serve


def send_instead(change: Callable[[bytes], bytes]) -> Lie:
    """Send other bytes than the chunks that were asked for."""

    def lie(scene: Scene, hub: Hub) -> None:
        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            question = decode(body, RangeQuestion)
            size = 64 * (question.stop - question.first)
            left = 4 * scene.run.config.elements - 64 * question.first
            payload = change(bytes(min(size, left)))
            await hub.send_bulk(peer, Kind.CHUNKS, body, memoryview(payload))
            return encode(ChunksAnswer(Status.SENT)), None

        hub.serve[Kind.CHUNKS] = serve

    return lie


def answer_status(status: Status) -> Lie:
    """Send nothing, and answer this."""

    def lie(scene: Scene, hub: Hub) -> None:
        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            await trio.lowlevel.checkpoint()
            return encode(ChunksAnswer(status)), None

        hub.serve[Kind.CHUNKS] = serve

    return lie


def answer_nonsense(kind: Kind) -> Lie:
    """Answer with bytes that mean nothing."""

    def lie(scene: Scene, hub: Hub) -> None:
        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            await trio.lowlevel.checkpoint()
            return b"\xc1nonsense", None

        hub.serve[kind] = serve

    return lie


def be_silent(*kinds: Kind) -> Lie:
    """Never answer."""

    def lie(scene: Scene, hub: Hub) -> None:
        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            await trio.sleep_forever()
            raise AssertionError

        for kind in kinds:
            hub.serve[kind] = serve

    return lie


def be_slow(scene: Scene, hub: Hub) -> None:
    """Take seven seconds for every piece."""
    honest = hub.serve[Kind.CHUNKS]

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, Loan | None]:
        await trio.sleep(7)
        return await honest(peer, body)

    hub.serve[Kind.CHUNKS] = serve


def vanish(scene: Scene, hub: Hub) -> None:
    """Be gone at the first piece."""

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        await trio.lowlevel.checkpoint()
        scene.network.disconnect(hub.me)
        return b"", None

    hub.serve[Kind.CHUNKS] = serve


def change_claims(change: Callable[[Claims], Claims]) -> Lie:
    """Say that other aggregates led to the seals."""

    def lie(scene: Scene, hub: Hub) -> None:
        honest = hub.serve[Kind.CLAIMS]

        async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
            answer, _ = await honest(peer, body)
            return encode(change(decode(answer, Claims))), None

        hub.serve[Kind.CLAIMS] = serve

    return lie


def claim_unmoved(claims: Claims) -> Claims:
    """Say that x did not move."""
    return Claims(tuple(msgspec.structs.replace(claim, is_applied=False) for claim in claims.claims))


def give_other_aggregate(scene: Scene, hub: Hub) -> None:
    """Hand out the last round's aggregate for the one before as well, all of it in order."""
    updates = scene.tellers[scene.members.index(hub)]._updates
    honest = updates.map
    updates.map = lambda number: honest(10 if number == 9 else number)  # type: ignore[method-assign]

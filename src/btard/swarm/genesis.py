"""
Genesis: the founder waits until enough peers are warm, then signs seal 0 (design section 4, Start and end).

Seal 0 names the roster, the root of x_0 and the slowest gradient promised. After it the founder has
no special power.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

import structlog
import trio
from msgspec import Meta, Struct

from btard.errors import ConfigError, NetworkError, Refused, RemoteProtocolError
from btard.identity import Context, Identity, PeerId, digest
from btard.net import Hub
from btard.rules.config import RunConfig
from btard.rules.messages import NOTHING, Hello, Phase, Signature, Stage
from btard.rules.roster import Roster
from btard.rules.seal import Seal
from btard.swarm.frames import Kind
from btard.wire import (
    decode,
    decode_seal,
    encode,
    encode_seal,
    is_seal_signed_by,
    open_message,
    sign_message,
    sign_seal,
)

log = structlog.get_logger(__name__)

HELLO_TIMEOUT_S = 60.0
"""How long one HELLO waits for an answer before it is sent again."""
HELLO_STAGE = Stage(0, 0, Phase.HELLO)
RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Pauses before a founder is asked again whose link was lost while we waited for the genesis."""
LOOK_S = 1.0
"""Pause between two looks at whether somebody knows of seal 0 already, in seconds."""
STARTED = "the run has started: it can be joined midway only through a link to one of its members"


class Started(Refused):
    """The founder says that there is a seal 0 without us: members are to be asked how the run goes on."""


class Welcome(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to a HELLO: seal 0 with the founder's signature, nothing yet, or a refusal in words."""

    seal: Annotated[bytes, Meta(max_length=64 * 1024)]
    signature: Annotated[bytes, Meta(max_length=64)]
    refusal: Annotated[str, Meta(max_length=256)]


class SignedSeal(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A seal with one signature, as the founder hands it out."""

    seal: Seal
    signature: Signature


def make_hello(identity: Identity, config: RunConfig, state: bytes, gradient_ms: int) -> bytes:
    """Return our signed HELLO: we are warm, x_0 has this root, and a gradient takes us so long."""
    empty = Roster(()).digest
    return sign_message(identity, config.run_id, empty, HELLO_STAGE, NOTHING, Hello(gradient_ms, state)).envelope


class Founder:
    """Collects HELLOs and answers all of them with seal 0 once the genesis roster is full.

    ``keep`` writes seal 0 down before anybody hears of it. A founder that has lost its ledger asks everyone that it has
    a link to: members know the seal, so there is no second one while any of them finds it.
    """

    def __init__(
        self,
        identity: Identity,
        config: RunConfig,
        hub: Hub,
        state: bytes,
        keep: Callable[[SignedSeal], None] = lambda sealed: None,
    ) -> None:
        self._identity, self._config, self._state, self._keep = identity, config, state, keep
        self._promised: dict[PeerId, int] = {}
        self._sealed: SignedSeal | None = None
        self._full = trio.Event()
        self._is_founded = False
        self._hub = hub
        hub.favour(self._promised.__contains__)
        hub.serve[Kind.HELLO] = self._serve

    @property
    def warm(self) -> int:
        """How many peers have said HELLO."""
        return len(self._promised)

    def admit(self, envelope: bytes, peer: PeerId | None = None) -> PeerId:
        """Take a HELLO into account that ``peer`` brought, None for our own.

        Raises:
            RemoteProtocolError: not a HELLO for this run, or of somebody else: each place costs a link.
            Refused: its gradients are too slow, its x_0 differs from ours, or the roster is full.
        """
        message = open_message(self._config.run_id, envelope)
        hello = message.payload
        if not isinstance(hello, Hello):
            raise RemoteProtocolError("not a HELLO", message.sender)
        if peer is not None and message.sender != peer:
            raise RemoteProtocolError("a HELLO of somebody else", peer)
        if hello.gradient_ms > 1000 * self._config.max_gradient_s:
            limit = self._config.max_gradient_s
            raise Refused(f"a gradient takes you {hello.gradient_ms / 1000:.0f} s, the run allows {limit:g} s")
        if hello.state != self._state:
            raise Refused("your initial parameters differ from the founder's: other task code, data set or torch build")
        if message.sender not in self._promised and self._full.is_set():
            raise Started(STARTED)
        self._promised[message.sender] = hello.gradient_ms
        if self.warm == self._config.genesis_size and not self._full.is_set():
            self._sealed = self._seal_genesis()
            self._keep(self._sealed)
            self._full.set()
        return message.sender

    def _forget_gone(self) -> None:
        """Give the places of those who lost their link to others: nobody holds many with one link after another."""
        for peer in [] if self._full.is_set() else list(self._promised):
            if peer != self._identity.peer_id and not self._hub.is_connected(peer):
                del self._promised[peer]

    def _seal_genesis(self) -> SignedSeal:
        seal = Seal(
            run_id=self._config.run_id,
            round=0,
            attempt=0,
            transcript=NOTHING,
            state=self._state,
            full_state=NOTHING,
            roster=tuple(sorted(self._promised)),
            banned=(),
            previous=NOTHING,
            q=digest(Context.VALIDATORS, self._config.run_id, self._state, *sorted(self._promised)),
            gradient_ms=max(1, *self._promised.values()),
            ticket_bits=self._config.ticket_bits,
        )
        return SignedSeal(seal, sign_seal(self._identity, seal))

    async def genesis(self) -> SignedSeal:
        """Return seal 0 once it is signed.

        Raises:
            ConfigError: others hold seal 0 already; nothing was signed.
        """
        while not self._full.is_set() and not self._is_founded:
            await self._look_around(but=self._identity.peer_id)
            with trio.move_on_after(LOOK_S):
                await self._full.wait()
        if self._sealed is None:
            raise ConfigError(
                "this run was founded before: others hold its seal 0, and this data directory does not; a key without "
                "its ledger signs nothing. Start with the directory that has the ledger, or found a new run"
            )
        return self._sealed

    async def _look_around(self, but: PeerId) -> None:
        """Ask those who have a link to us and say no HELLO for seal 0: members of a run that goes on are among them."""
        hello = make_hello(self._identity, self._config, self._state, self._promised[self._identity.peer_id])

        async def ask(peer: PeerId) -> None:
            with suppress(NetworkError, RemoteProtocolError, Refused):
                answer = await self._hub.request(peer, Kind.HELLO, hello, timeout_s=self._config.delay_s)
                self._is_founded |= read_welcome(answer.head, self._config) is not None

        async with trio.open_nursery() as nursery:
            for peer in sorted(self._hub.connected - self._promised.keys() - {but}):
                nursery.start_soon(ask, peer)

    async def _serve(self, peer: PeerId, body: bytes) -> tuple[bytes, None]:
        self._forget_gone()
        if not self._full.is_set() and self.warm == self._config.genesis_size - 1:
            await self._look_around(but=peer)
        if self._is_founded and self._sealed is None:
            return encode(Welcome(b"", b"", STARTED)), None
        try:
            self.admit(body, peer)
        except Refused as refusal:
            return encode(Welcome(b"", b"", str(refusal))), None
        with trio.move_on_after(HELLO_TIMEOUT_S / 2):
            sealed = await self.genesis()
            return encode(Welcome(encode_seal(sealed.seal), sealed.signature, "")), None
        return encode(Welcome(b"", b"", "")), None


def serve_genesis(hub: Hub, sealed: SignedSeal) -> None:
    """Answer HELLOs of members with seal 0, should they have died before they heard of it; of others with a refusal."""

    async def serve(peer: PeerId, body: bytes) -> tuple[bytes, None]:
        if peer in sealed.seal.roster:
            return encode(Welcome(encode_seal(sealed.seal), sealed.signature, "")), None
        return encode(Welcome(b"", b"", STARTED)), None

    hub.serve[Kind.HELLO] = serve


async def ask_for_genesis(
    hub: Hub, config: RunConfig, hello: bytes, reach_founder: Callable[[], Awaitable[None]]
) -> SignedSeal:
    """Say HELLO to the founder until it answers with seal 0; a link that is lost meanwhile is made again.

    Raises:
        Refused: the run has started, our gradients are too slow, or our initial parameters differ.
        NetworkError: the founder cannot be reached within the patience of ``reach_founder``, or hangs up each time.
    """
    for pause_s in RETRY_S:
        await reach_founder()
        try:
            return await _ask_founder(hub, config, hello)
        except NetworkError as error:
            log.info("the founder is asked again", reason=str(error), pause_s=pause_s)
            await trio.sleep(pause_s)
    await reach_founder()
    return await _ask_founder(hub, config, hello)


async def _ask_founder(hub: Hub, config: RunConfig, hello: bytes) -> SignedSeal:
    while True:
        answer = await hub.request(config.founder_id, Kind.HELLO, hello, timeout_s=HELLO_TIMEOUT_S)
        sealed = read_welcome(answer.head, config)
        if sealed is not None:
            return sealed


def read_welcome(body: bytes, config: RunConfig) -> SignedSeal | None:
    """Return seal 0 if the answer to a HELLO has it, None if there is none yet.

    Raises:
        Started: there is a seal 0, and it is without us.
        Refused: the asked says so.
        RemoteProtocolError: it is no answer, or no seal 0 of this run.
    """
    welcome: Welcome = decode(body, Welcome)
    if welcome.refusal:
        raise (Started if welcome.refusal == STARTED else Refused)(welcome.refusal)
    if not welcome.seal:
        return None
    sealed = SignedSeal(decode_seal(welcome.seal), welcome.signature)
    check_genesis(sealed, config)
    return sealed


def check_genesis(sealed: SignedSeal, config: RunConfig) -> None:
    """Return if this is seal 0 of the run, signed by its founder.

    Raises:
        RemoteProtocolError: it is not.
    """
    seal = sealed.seal
    if not is_seal_signed_by(config.founder_id, seal, sealed.signature):
        raise RemoteProtocolError("seal 0 is not signed by the founder of the run")
    fits = (seal.run_id, seal.round, seal.banned) == (config.run_id, 0, ())
    if not fits or len(seal.roster) != config.genesis_size or list(seal.roster) != sorted(set(seal.roster)):
        raise RemoteProtocolError("the founder's seal 0 does not fit the run's configuration")

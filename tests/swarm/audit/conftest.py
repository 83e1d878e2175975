"""A synthetic run with real keys and signatures: enough of a swarm to fill a ledger with every kind of evidence."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from btard.identity import Context, Identity, PeerId, digest
from btard.robust import Directions, compute_centered_clip
from btard.rules.config import RunConfig
from btard.rules.draws import combine_nonces, commit_to_nonce, derive_nonce
from btard.rules.evidence import (
    AnyProof,
    AttestProof,
    Cause,
    CertificateProof,
    ColumnProof,
    Departure,
    DepartureKind,
    EquivocationProof,
    RevealProof,
    SliceProof,
    StateProof,
    VoteProof,
)
from btard.rules.judgement import compute_part_report
from btard.rules.merkle import MerkleTree, compute_leaves, compute_root
from btard.rules.messages import (
    Aggregate,
    AnyPayload,
    Attest,
    Ballot,
    Check,
    Commit,
    Confirm,
    Holding,
    Opinion,
    Phase,
    Position,
    Report,
    Reveal,
    SignedMessage,
    Slot,
    Stage,
    Transcript,
    View,
    Vote,
)
from btard.rules.parts import cut_parts
from btard.rules.recovery import compute_views_digest
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature
from btard.swarm.ledger import Ledger
from btard.wire import compute_seal_digest, sign_message, sign_seal

MEMBERS = 14
CHUNK = 20_000
ELEMENTS = 13 * CHUNK + 100
"""One chunk per member at first: 80 kB, which goes into files, but for the last one, which goes into the table."""
NONE = Opinion((), (), ())


@dataclass
class World:
    """Members with keys, the seals so far, and the ledger of the first of them."""

    directory: Path
    keys: dict[PeerId, Identity]
    config: RunConfig
    ledger: Ledger
    seals: list[Seal] = field(default_factory=list)
    leaving: list[Departure] = field(default_factory=list)
    attempt: int = 0

    @property
    def me(self) -> PeerId:
        """The peer whose ledger it is."""
        return min(self.keys)

    @property
    def round(self) -> int:
        """The round in progress."""
        return len(self.seals)

    @property
    def start(self) -> Roster:
        """The roster at the start of the round."""
        return Roster.of([PeerId(peer) for peer in self.seals[-1].roster])

    @property
    def roster(self) -> Roster:
        """The roster of the attempt in progress."""
        return self.start.without([PeerId(item.peer) for item in self.leaving if item.attempt < self.attempt])

    def stage(self, phase: Phase) -> Stage:
        """A stage of the attempt in progress; recoveries belong to no round, COMMIT to the first attempt."""
        if phase >= Phase.HALT:
            return Stage(0, self.attempt, phase)
        return Stage(self.round, self.seals[-1].attempt if phase is Phase.COMMIT else self.attempt, phase)

    def say(self, peer: PeerId, phase: Phase, payload: AnyPayload, roster: Roster | None = None) -> SignedMessage:
        """A message of ``peer`` in this attempt; stored if it is ours, as a peer would."""
        roster = roster or (self.start if phase is Phase.COMMIT else self.roster)
        message = sign_message(self.keys[peer], self.config.run_id, roster.digest, self.stage(phase), b"", payload)
        if peer == self.me:
            self.ledger.record_message(message)
        return message

    def say_all(self, phase: Phase, payload: Callable[[PeerId], AnyPayload]) -> Transcript:
        """A message of everyone."""
        roster = self.start if phase is Phase.COMMIT else self.roster
        return Transcript(self.stage(phase), tuple(self.say(peer, phase, payload(peer)) for peer in roster.members))

    def commit(self, peer: PeerId, root: bytes = b"", state: bytes = b"s" * 32) -> Commit:
        """A COMMIT that signs the newest seal."""
        return Commit(root, False, (), state, sign_seal(self.keys[peer], self.seals[-1]), False)

    def depart(
        self,
        peer: PeerId,
        kind: DepartureKind,
        cause: Cause,
        proof: AnyProof | None,
        blobs: dict[bytes, bytes] | None = None,
        restart: bool = True,
    ) -> Departure:
        """Record a departure in this attempt; ``restart`` begins the next one."""
        departure = Departure(peer, self.round, self.attempt, kind, cause, proof)
        self.ledger.record_departure(departure, blobs)
        self.leaving.append(departure)
        self.attempt += restart
        return departure

    def seal(self, signers: Sequence[PeerId] | None = None, **changes: object) -> Seal:
        """Close the round: record its seal with signatures of ``signers``, by default of the whole old roster."""
        before = self.seals[-1]
        gone = {item.peer for item in self.leaving}
        bans = {item.peer for item in self.leaving if item.kind is DepartureKind.BAN}
        seal = Seal(
            run_id=self.config.run_id,
            round=self.round,
            attempt=self.attempt,
            transcript=b"t" * 32,
            state=b"s" * 32,
            full_state=b"",
            roster=tuple(peer for peer in before.roster if peer not in gone),
            banned=tuple(sorted({*before.banned, *bans})),
            previous=compute_seal_digest(before),
            q=digest(Context.EXPAND, before.q),
            gradient_ms=5,
        )
        values = {name: changes.get(name, getattr(seal, name)) for name in seal.__struct_fields__}
        return self.record(Seal(**values), self.start.members if signers is None else signers)

    def record(self, seal: Seal, signers: Sequence[PeerId]) -> Seal:
        """Store a seal and signatures over it."""
        self.ledger.record_seal(seal)
        signed = [SealSignature(peer, sign_seal(self.keys[peer], seal)) for peer in signers]
        self.ledger.record_signatures(seal.round, signed)
        self.seals.append(seal)
        self.leaving = []
        return seal

    def equivocate(self, peer: PeerId) -> EquivocationProof:
        """Two COMMITs of one peer for this round."""
        messages = [self.say(peer, Phase.COMMIT, self.commit(peer, bytes([n]) * 32)) for n in (1, 2)]
        return EquivocationProof(messages[0].envelope, messages[1].envelope)

    def nonce(self, peer: PeerId, phase: Phase) -> bytes:
        """A peer's nonce for the draw that ``phase`` reveals."""
        return derive_nonce(self.keys[peer].seed, Slot(self.stage(phase), peer))

    def promise(self, peer: PeerId, phase: Phase) -> bytes:
        """The commitment to that nonce."""
        return commit_to_nonce(Slot(self.stage(phase), peer), self.nonce(peer, phase))

    def break_reveal(self, peer: PeerId, phase: Phase, nonce: bytes = b"x" * 32) -> RevealProof:
        """A promise and a reveal; the nonce is another one unless the right one is given."""
        promise = self.promise(peer, phase)
        if phase is Phase.REVEAL:
            commitment = self.say(peer, Phase.AGGREGATE, Aggregate(b"r" * 32, 0.0, (), promise))
            reveal = self.say(peer, Phase.REVEAL, Reveal(nonce, ()))
        else:
            commitment = self.say(peer, Phase.CHECK, Check((), promise))
            reveal = self.say(peer, Phase.CONFIRM, Confirm(nonce, ()))
        return RevealProof(commitment.envelope, reveal.envelope)

    def vote(
        self,
        kind: str,
        accused: PeerId,
        accuser: PeerId | None,
        guilty: int,
        opinion: Opinion,
        about: int = 0,
        without: Sequence[PeerId] = (),
    ) -> VoteProof:
        """The first ``guilty`` members hold ``opinion`` on dispute 1 of 2, the others none."""
        camp = self.roster.members[:guilty]
        votes = self.say_all(Phase.VOTE, lambda peer: Vote((NONE, opinion if peer in camp else NONE)))
        envelopes = tuple(message.envelope for message in votes.without(list(without)).messages)
        return VoteProof(kind, self.round - about, accused, accuser or b"", 1, envelopes)

    def recover(self, missing: PeerId, overdue: bool = True) -> CertificateProof:
        """A recovery in which nobody holds the AGGREGATE of ``missing``, who is silent."""
        position = Position(self.round, self.attempt, int(Phase.AGGREGATE), 0)
        held = tuple(b"" if peer == missing else b"d" * 32 for peer in self.roster.members)
        view = View(position, overdue, (Holding(position, held),), (), (), b"")
        others = [peer for peer in self.roster.members if peer != missing]
        views = {peer: self.say(peer, Phase.VIEW, view) for peer in others}
        ballot = Ballot((missing,), compute_views_digest(views))
        ballots = [self.say(peer, Phase.BALLOT, ballot) for peer in others]
        return CertificateProof(tuple(m.envelope for m in ballots), tuple(views[peer].envelope for peer in others))

    def attest(self, held_by: int) -> AttestProof:
        """The first ``held_by`` members hold what complaint 0 asked for."""
        camp = self.roster.members[:held_by]
        attests = self.say_all(Phase.ATTEST, lambda peer: Attest((peer in camp, True)))
        return AttestProof(0, tuple(message.envelope for message in attests.messages))

    def commit_states(self, states: Callable[[PeerId], bytes]) -> StateProof:
        """Everyone commits to a state."""
        commits = self.say_all(Phase.COMMIT, lambda peer: self.commit(peer, state=states(peer)))
        return StateProof(tuple(message.envelope for message in commits.messages))

    def open_column(self, index: int, bend: "Bend | None" = None, liar: PeerId | None = None) -> "OpenedColumn":
        """Part ``index`` of this round with all its proofs: one aggregator bends it, one contributor lies."""
        return OpenedColumn.build(self, index, bend or (lambda aggregate: aggregate), liar)


Bend = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OpenedColumn:
    """A column as a proof and its blobs; ``contributors`` by part's aggregator and so on are in the proof."""

    proof: ColumnProof
    blobs: dict[bytes, bytes]
    aggregator: PeerId

    @classmethod
    def build(cls, world: World, index: int, bend: Bend, liar: PeerId | None) -> "OpenedColumn":
        """Run a round honestly but for ``bend`` and ``liar``, and keep what a column's opening shows."""
        config, roster = world.config, world.roster
        parts = cut_parts(config, world.seals[-1].q, world.start, roster)
        part = parts[index]
        gradients = {peer: _draw_gradient(world, peer) for peer in roster.members}
        trees = {peer: _build_tree(gradient) for peer, gradient in gradients.items()}
        commits = world.say_all(Phase.COMMIT, lambda peer: world.commit(peer, trees[peer].root))
        rows = {peer: gradient[part.start : part.stop].clone() for peer, gradient in gradients.items()}
        aggregate = bend(compute_centered_clip(list(rows.values()), part.tau, config.epsilon).aggregate)
        root, norm = compute_root(_bytes(aggregate), 4 * CHUNK), float(aggregate.double().norm())
        aggregates = world.say_all(
            Phase.AGGREGATE, lambda peer: Aggregate(root, norm, (), world.promise(peer, Phase.REVEAL))
        )
        reveals = world.say_all(Phase.REVEAL, lambda peer: Reveal(world.nonce(peer, Phase.REVEAL), ()))
        directions = Directions(combine_nonces(reveals), config.elements, config.projections)

        def report(peer: PeerId) -> tuple[Report, ...]:
            true = compute_part_report(directions, part, rows[peer], aggregate)
            told = Report(tuple(value + 1.0 for value in true.projections), true.norm) if peer == liar else true
            return tuple(told if other is part else Report(true.projections, 0.0) for other in parts)

        checks = world.say_all(Phase.CHECK, lambda peer: Check(report(peer), b"n" * 32))
        blobs = {peer: bytes(_bytes(row)) for peer, row in rows.items()}
        proof = ColumnProof(
            world.round,
            world.attempt,
            index,
            world.seals[-1].q,
            world.start.members,
            roster.members,
            roster.members,
            _envelopes(commits),
            aggregates[part.aggregator].envelope,
            _envelopes(reveals),
            _envelopes(checks),
            tuple(SliceProof(peer, _name(blobs[peer]), trees[peer].prove(part.chunks)) for peer in roster.members),
            _name(bytes(_bytes(aggregate))),
        )
        contents = [*blobs.values(), bytes(_bytes(aggregate))]
        return cls(proof, {_name(data): data for data in contents}, part.aggregator)


def _draw_gradient(world: World, peer: PeerId) -> Tensor:
    seed = torch.Generator().manual_seed(sorted(world.keys).index(peer) + 100 * world.round)
    return torch.randn(ELEMENTS, generator=seed) / CHUNK**0.5


def _build_tree(values: Tensor) -> MerkleTree:
    return MerkleTree.build(compute_leaves(_bytes(values), 0, 4 * CHUNK), ELEMENTS)


def _bytes(values: Tensor) -> memoryview:
    return memoryview(values.contiguous().numpy()).cast("B")


def _name(data: bytes) -> bytes:
    return digest(Context.EVIDENCE, data)


def _envelopes(transcript: Transcript) -> tuple[bytes, ...]:
    return tuple(message.envelope for message in transcript.messages)


def build_world(directory: Path, members: int = MEMBERS) -> World:
    """A run of ``members``, sealed by its founder, in round 1."""
    keys = {key.peer_id: key for key in (Identity(bytes([number]) * 32) for number in range(1, members + 1))}
    founder = max(keys)
    config = RunConfig(founder=founder.hex(), genesis_size=members, elements=ELEMENTS, chunk_size=CHUNK)
    world = World(directory, keys, config, Ledger.create(directory, config, min(keys)))
    genesis = Seal(
        config.run_id, 0, 0, b"", b"s" * 32, b"", tuple(sorted(keys)), (), b"", digest(Context.EXPAND, b"q"), 5
    )
    world.record(genesis, [founder])
    return world


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Builds worlds whose ledgers are closed at the end of the test."""
    worlds: list[World] = []

    def build(members: int = 6) -> World:
        worlds.append(build_world(tmp_path, members))
        return worlds[-1]

    yield build
    for world in worlds:
        world.ledger.close()


def fill(world: World) -> None:
    """Play a round for every kind of departure; 10 leave, 4 remain."""
    victims = list(reversed(world.start.members))
    ban, removal = DepartureKind.BAN, DepartureKind.REMOVAL

    opened = world.open_column(13, liar=victims[0])
    world.depart(victims[0], ban, Cause.FALSE_REPORT, opened.proof, opened.blobs)
    world.seal()
    opened = world.open_column(0, bend=lambda aggregate: aggregate + 1.0)
    world.depart(opened.aggregator, ban, Cause.WRONG_AGGREGATE, opened.proof, opened.blobs)
    victims = [peer for peer in victims[1:] if peer != opened.aggregator]
    world.seal()
    world.depart(victims[0], ban, Cause.EQUIVOCATION, world.equivocate(victims[0]))
    world.depart(victims[1], ban, Cause.BROKEN_REVEAL, world.break_reveal(victims[1], Phase.CONFIRM))
    world.depart(victims[2], removal, Cause.SILENCE, world.recover(victims[2]))
    world.seal()
    proof: AnyProof = world.vote("gradient", victims[3], victims[8], 6, Opinion((victims[3],), (), (2,)), about=1)
    world.depart(victims[3], ban, Cause.FALSE_GRADIENT, proof, restart=False)
    world.seal()
    proof = world.vote("report", victims[8], victims[4], 2, Opinion((victims[8],), (), ()))
    world.depart(victims[4], ban, Cause.FALSE_NAMING, proof)
    world.depart(victims[5], removal, Cause.WITHHOLDING, world.attest(3))
    proof = world.commit_states(lambda peer: b"o" * 32 if peer == victims[6] else b"s" * 32)
    world.depart(victims[6], removal, Cause.OTHER_STATE, proof)
    world.depart(victims[7], DepartureKind.GOODBYE, Cause.GOODBYE, None)
    world.seal()
    world.seal()
    world.seal(signers=[])


@pytest.fixture(scope="session")
def full_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a closed ledger with every kind of evidence; copy it before changing anything."""
    world = build_world(tmp_path_factory.mktemp("full"))
    fill(world)
    world.ledger.close()
    return world.directory

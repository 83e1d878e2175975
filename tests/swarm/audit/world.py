"""A synthetic run with real keys and signatures: enough of a swarm to fill a ledger with every kind of evidence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from btard.identity import Context, Identity, PeerId, digest
from btard.rules.config import RunConfig
from btard.rules.draws import commit_to_nonce, derive_nonce
from btard.rules.evidence import (
    AnyProof,
    Cause,
    CertificateProof,
    Departure,
    DepartureKind,
    EquivocationProof,
    RevealProof,
    StateProof,
)
from btard.rules.messages import (
    Aggregate,
    AnyPayload,
    Ballot,
    Check,
    Commit,
    Confirm,
    Holding,
    Phase,
    Position,
    Reveal,
    SignedMessage,
    Slot,
    Stage,
    Transcript,
    Verdict,
    View,
)
from btard.rules.parts import Part, cut_parts
from btard.rules.recovery import compute_views_digest
from btard.rules.roster import Roster
from btard.rules.seal import Seal, SealSignature
from btard.swarm.audit import audit_ledger
from btard.swarm.ledger import Ledger
from btard.wire import compute_seal_digest, prove_equivocation, sign_message, sign_seal

MEMBERS = 14
CHUNK = 20_000
ELEMENTS = 13 * CHUNK + 100
"""One chunk per member at first: 80 kB, which goes into files, but for the last one, which goes into the table."""


Verdicts = tuple[Verdict, ...]


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
    ahead: int = 0  # rounds without a seal in this ledger

    @property
    def me(self) -> PeerId:
        """The peer whose ledger it is."""
        return min(self.keys)

    @property
    def round(self) -> int:
        """The round in progress."""
        return len(self.seals) + self.ahead

    @property
    def start(self) -> Roster:
        """The roster at the start of the round."""
        return Roster.of([PeerId(peer) for peer in self.seals[-1].roster])

    @property
    def roster(self) -> Roster:
        """The roster of the attempt in progress."""
        return self.start.without([PeerId(item.peer) for item in self.leaving if item.attempt < self.attempt])

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the attempt in progress."""
        return cut_parts(self.config, self.seals[-1].q, self.start, self.roster)

    def stage(self, phase: Phase, serial: int = 0) -> Stage:
        """A stage of the attempt in progress; recoveries belong to no round, COMMIT to the first attempt."""
        if phase >= Phase.HALT and phase is not Phase.AGREE:
            return Stage(0, self.attempt, phase)
        return Stage(self.round, self.seals[-1].attempt if phase is Phase.COMMIT else self.attempt, phase, serial)

    def say(
        self, peer: PeerId, phase: Phase, payload: AnyPayload, previous: bytes = b"", serial: int = 0
    ) -> SignedMessage:
        """A message of ``peer`` in this attempt; stored if it is ours, as a peer would."""
        roster = self.start if phase is Phase.COMMIT else self.roster
        stage = self.stage(phase, serial)
        message = sign_message(self.keys[peer], self.config.run_id, roster.digest, stage, previous, payload)
        if peer == self.me:
            self.ledger.record_message(message)
        return message

    def say_all(
        self, phase: Phase, payload: Callable[[PeerId], AnyPayload], previous: bytes = b"", serial: int = 0
    ) -> Transcript:
        """A message of every member of the attempt."""
        messages = [self.say(peer, phase, payload(peer), previous, serial) for peer in self.roster.members]
        return Transcript(self.stage(phase, serial), tuple(messages))

    def commit(self, peer: PeerId, root: bytes = b"", state: bytes = b"s" * 32, verdicts: Verdicts = ()) -> Commit:
        """A COMMIT that signs the newest seal."""
        return Commit(root, False, verdicts, state, sign_seal(self.keys[peer], self.seals[-1]), False)

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
        self.ledger.sync()
        self.seals.append(seal)
        self.leaving = []
        return seal

    def equivocate(self, peer: PeerId) -> EquivocationProof:
        """Two COMMITs of one peer for this round."""
        messages = [self.say(peer, Phase.COMMIT, self.commit(peer, bytes([n]) * 32)) for n in (1, 2)]
        return prove_equivocation(*messages)

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
            commitment = self.say(peer, Phase.AGGREGATE, Aggregate(b"r" * 32, 0.0, (), promise, ()))
            reveal = self.say(peer, Phase.REVEAL, Reveal(nonce, ()))
        else:
            commitment = self.say(peer, Phase.CHECK, Check((), promise))
            reveal = self.say(peer, Phase.CONFIRM, Confirm(nonce, ()))
        return RevealProof(commitment.envelope, reveal.envelope)

    def recover(self, missing: PeerId, overdue: bool = True, supplied: tuple[bytes, ...] = ()) -> CertificateProof:
        """A recovery in which nobody holds the AGGREGATE of ``missing``, who is silent."""
        position = Position(self.round, self.attempt, int(Phase.AGGREGATE), 0)
        held = tuple(b"" if peer == missing else b"d" * 32 for peer in self.roster.members)
        view = View(position, overdue, (Holding(position, held),), supplied, (), b"", (), False)
        others = [peer for peer in self.roster.members if peer != missing]
        views = {peer: self.say(peer, Phase.VIEW, view) for peer in others}
        ballot = Ballot((missing,), compute_views_digest(views))
        ballots = [self.say(peer, Phase.BALLOT, ballot) for peer in others]
        return CertificateProof(tuple(m.envelope for m in ballots), tuple(views[peer].envelope for peer in others))

    def commit_states(self, states: Callable[[PeerId], bytes]) -> StateProof:
        """Everyone commits to a state."""
        commits = self.say_all(Phase.COMMIT, lambda peer: self.commit(peer, state=states(peer)))
        return StateProof(collect(commits))


def build_world(directory: Path, members: int = MEMBERS) -> World:
    """A run of ``members``, sealed by its founder, in round 1."""
    keys = {key.peer_id: key for key in (Identity(bytes([number]) * 32) for number in range(1, members + 1))}
    founder = max(keys)
    spared = {"validators": 2, "max_byzantine": members // 4}
    config = RunConfig(founder=founder.hex(), genesis_size=members, elements=ELEMENTS, chunk_size=CHUNK, **spared)
    world = World(directory, keys, config, Ledger.create(directory, config, min(keys)))
    genesis = Seal(
        config.run_id, 0, 0, b"", b"s" * 32, b"", tuple(sorted(keys)), (), b"", digest(Context.EXPAND, b"q"), 5
    )
    world.record(genesis, [founder])
    return world


def collect(transcript: Transcript) -> tuple[bytes, ...]:
    """The envelopes of a transcript, as proofs keep them."""
    return tuple(message.envelope for message in transcript.messages)


def last(world: World, place: int = 1) -> PeerId:
    """A member that is not the ledger's owner."""
    return world.start.members[-place]


def expect(world: World, words: str) -> None:
    """Expect one problem with these words, or none where there are no words."""
    problems = audit_ledger(world.directory).problems
    assert len(problems) == bool(words), problems
    assert all(words in problem for problem in problems), problems

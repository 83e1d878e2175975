"""
Rules of the protocol, each broken in one place: what the tests must notice.

A mutant replaces one piece of text that occurs exactly once in one file. ``tests`` are where its end is
expected; a mutant that none of them notices is a hole in the tests, or a rule that is not needed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One broken rule: ``old`` becomes ``new`` in ``path`` below ``src/btard``."""

    name: str
    source: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


def _mutant(name: str, source: str, path: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, source, path, old, new, tests)


MUTANTS = (
    _mutant(
        "skip the signature of a message",
        "attacks C9",
        "wire/envelope.py",
        "if not is_signed_by(PeerId(body.sender), ENVELOPE_TAG + outer.body, outer.signature):",
        "if not outer.signature:",
        "tests/wire",
    ),
    _mutant(
        "take messages of another run",
        "attacks C9",
        "wire/envelope.py",
        "if body.run_id != run_id:",
        "if not body.run_id:",
        "tests/wire",
    ),
    _mutant(
        "take a payload under another phase",
        "attacks C9",
        "wire/envelope.py",
        "if type(body.payload).__struct_config__.tag != int(phase):",
        "if phase is None:",
        "tests/wire",
    ),
    _mutant(
        "take a link key that its identity did not sign",
        "design 6",
        "net/handshake.py",
        "if not is_signed_by(PeerId(introduction.peer), statement, introduction.signature):",
        "if not introduction.signature:",
        "tests/net",
    ),
    _mutant(
        "take an old contact record over a newer one",
        "attacks C17",
        "dht/storage.py",
        "if held is not None and held[0].sequence >= contact.sequence:",
        "if held is not None and held[0].sequence > contact.sequence + 2**62:",
        "tests/dht",
    ),
    _mutant(
        "draw validators before CHECK, from the draw r",
        "attacks A1",
        "swarm/round.py",
        "q = combine_nonces(verified.confirms)",
        "q = combine_nonces(work.reveals)",
        "tests/swarm/test_draw.py",
    ),
    _mutant(
        "let a nonce outlive its attempt",
        "attacks A2",
        "rules/draws.py",
        "return digest(Context.NONCE_SECRET, secret, _slot_bytes(slot))",
        "return digest(Context.NONCE_SECRET, secret, slot.stage.round.to_bytes(8, 'little'))",
        "tests/rules/test_draws.py",
        "tests/attacks/test_shortcuts.py",
    ),
    _mutant(
        "commit to a nonce without its slot and sender",
        "attacks C9",
        "rules/draws.py",
        "return digest(Context.NONCE, _slot_bytes(slot), nonce)",
        "return digest(Context.NONCE, nonce)",
        "tests/rules/test_draws.py",
    ),
    _mutant(
        "keep the slices of those who left after COMMIT",
        "attacks A3",
        "swarm/state.py",
        "self.commits = self.commits and self.commits.without(gone)",
        "self.commits = self.commits and self.commits.without([])",
        "tests/attacks/test_shortcuts.py",
        "tests/attacks/test_scenarios.py",
    ),
    _mutant(
        "let validators contribute a gradient",
        "attacks A4",
        "rules/validity.py",
        "wants_root = not (is_validator or is_closing or commit.goodbye)",
        "wants_root = bool(commit.root) or not (is_validator or is_closing or commit.goodbye)",
        "tests/rules/test_validity.py",
    ),
    _mutant(
        "allow a sum a thousand times too far from zero",
        "Verification 1",
        "rules/checks.py",
        "if any(abs(math.fsum(column)) > tolerance for column in columns):",
        "if any(abs(math.fsum(column)) > 1000 * tolerance for column in columns):",
        "tests/rules/test_checks.py",
    ),
    _mutant(
        "halve the tolerance of sums",
        "Verification 1",
        "rules/checks.py",
        "return compute_sum_tolerance(bound, part.tau, rows)",
        "return compute_sum_tolerance(bound, part.tau, rows) / 2",
        "tests/rules/test_checks.py",
        "tests/robust",
    ),
    _mutant(
        "open a column at half of the contributors",
        "attacks B4",
        "rules/checks.py",
        "if loud >= max(1, len(reports) - tolerated) or has_impossible_projection(reports, part):",
        "if loud > len(reports) // 2 or has_impossible_projection(reports, part):",
        "tests/rules/test_checks.py",
    ),
    _mutant(
        "open an exempt part again and again",
        "attacks B4",
        "rules/checks.py",
        "if part.index in exempt or not part.elements:",
        "if not part.elements:",
        "tests/rules/test_checks.py",
    ),
    _mutant(
        "believe any projection that sums to zero",
        "attacks B4",
        "rules/checks.py",
        "abs(value) > PROJECTION_FACTOR * min(report[part.index].norm, part.tau) * (1 + 1e-9) + 1e-12 * part.tau",
        "abs(value) > 1e300",
        "tests/rules/test_checks.py",
    ),
    _mutant(
        "convict only as far as validators accuse",
        "attacks B7",
        "swarm/validation.py",
        "ACCUSE, CONVICT = 2.0, 1.0",
        "ACCUSE, CONVICT = 1.0, 2.0",
        "tests/attacks",
        "tests/swarm",
    ),
    _mutant(
        "let NaN under a signed root spread",
        "attacks B5",
        "rules/judgement.py",
        "return torch.zeros_like(values) if find_non_finite([values]) else values",
        "return values",
        "tests/rules",
        "tests/attacks",
    ),
    _mutant(
        "let a leaf forget its place",
        "attacks C9",
        "rules/merkle.py",
        'return digest(Context.LEAF, index.to_bytes(8, "little"), chunk)',
        "return digest(Context.LEAF, chunk)",
        "tests/rules/test_merkle.py",
    ),
    _mutant(
        "hash leaves and nodes alike",
        "attacks C9",
        "rules/merkle.py",
        "pairs = [digest(Context.NODE, *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]",
        "pairs = [digest(Context.LEAF, *level[i : i + 2]) for i in range(0, len(level) - 1, 2)]",
        "tests/rules/test_merkle.py",
    ),
    _mutant(
        "take a seal that half of the roster signed",
        "design 3",
        "rules/seal.py",
        "return len(signers & set(roster.members)) >= roster.majority",
        "return 2 * len(signers & set(roster.members)) >= len(roster)",
        "tests/rules",
        "tests/swarm/audit",
    ),
    _mutant(
        "count the signatures of strangers under a seal",
        "design 3",
        "rules/seal.py",
        "return len(signers & set(roster.members)) >= roster.majority",
        "return len(signers) >= roster.majority",
        "tests/rules",
        "tests/swarm/audit",
    ),
    _mutant(
        "spare more validators than honest contributors can",
        "attacks C6",
        "rules/roster.py",
        "return min(wanted, max(1, len(self) - 2 * self.tolerated(max_byzantine) - 1))",
        "return wanted",
        "tests/rules/test_roster.py",
    ),
    _mutant(
        "tolerate half of the roster",
        "design 3",
        "rules/roster.py",
        "bound = (len(self) + 1) // 2 - 1",
        "bound = len(self) // 2",
        "tests/rules/test_roster.py",
    ),
    _mutant(
        "convict with the most votes instead of more than half of the roster",
        "design 4, disputes",
        "rules/disputes.py",
        "if sum(peer in getattr(opinion, field) for opinion in opinions) >= roster.majority",
        "if 2 * sum(peer in getattr(opinion, field) for opinion in opinions) > len(opinions)",
        "tests/rules/test_disputes.py",
    ),
    _mutant(
        "let an accuser that loses go free",
        "design 4, disputes",
        "rules/disputes.py",
        "banned = tuple(sorted({*banned, dispute.accuser}))",
        "banned = tuple(sorted({*banned}))",
        "tests/rules/test_disputes.py",
    ),
    _mutant(
        "let anybody accuse anybody",
        "design 4, Verification 3",
        "rules/disputes.py",
        "and any(verdict.target == pair.target and verdict.guilty for verdict in commit.verdicts)",
        "and any(verdict.guilty for verdict in commit.verdicts)",
        "tests/rules/test_disputes.py",
    ),
)

"""Admission: who becomes a candidate, what counts as work, and when a candidate is a member."""

from tests.mutants.mutant import mutant

RULES, HOSTILE = "tests/rules/test_admission.py", "tests/swarm/test_hostile_joining.py"

ADMITTING = (
    mutant(
        "count a ticket that f quote",
        "attacks B8",
        "rules/admission.py",
        "if count > tolerated and ticket.peer not in excluded",
        "if count >= tolerated and ticket.peer not in excluded",
        RULES,
    ),
    mutant(
        "count one of two samples",
        "design section 6",
        "rules/admission.py",
        "if len(agreed) == 1:",
        "if agreed:",
        RULES,
    ),
    mutant(
        "forget who was banned or dismissed",
        "design section 6",
        "rules/admission.py",
        "return item.peer not in gone and number",
        "return number",
        RULES,
    ),
    mutant(
        "promote whoever has stopped working",
        "design section 6",
        "rules/admission.py",
        "if item.worked >= config.probation and item.peer in worked]",
        "if item.worked >= config.probation]",
        RULES,
    ),
    mutant(
        "promote without probation",
        "design section 6",
        "rules/admission.py",
        "if item.worked >= config.probation and item.peer in worked]",
        "if item.peer in worked]",
        RULES,
    ),
    mutant(
        "admit any number in an epoch",
        "attacks B8",
        "rules/admission.py",
        "max(0, min(count_places(roster) - len(candidates), places - admitted))",
        "max(0, count_places(roster) - len(candidates))",
        RULES,
    ),
    mutant(
        "let anybody charge a candidate",
        "design section 6",
        "rules/admission.py",
        "if check.work.candidate in charged.get(check.checker, ())",
        "if any(check.work.candidate in item for item in charged.values())",
        RULES,
    ),
    mutant(
        "find an idle candidate's sample true",
        "design section 6",
        "rules/sampling.py",
        "is_gross = not is_near_report(claimed, own, math.inf, GROSS * own.norm)",
        "return Finding.TRUE",
        "tests/rules/test_sampling.py",
    ),
    mutant(
        "ban a checker whose charge some could not redo",
        "design section 6",
        "rules/disputes.py",
        "payer = None if dispute.kind is DisputeKind.SAMPLE else dispute.accuser",
        "payer = dispute.accuser",
        "tests/rules/test_disputes.py",
    ),
    mutant(
        "believe a place from half of the members",
        "design section 6",
        "swarm/joining/handover.py",
        "< witnesses.majority:",
        "< witnesses.majority - 1:",
        "tests/swarm/test_handover.py",
    ),
    mutant(
        "go on from a state that no seal names",
        "design section 6",
        "swarm/joining/candidacy.py",
        "if compute_state_root(after[0], self._config.chunk_size) == seal.state:",
        "if after:",
        HOSTILE,
    ),
    mutant(
        "let a roster grow within an attempt",
        "attacks A5",
        "swarm/state.py",
        "self.roster, self.banned = state.roster.without(state.newcomers), state.banned",
        "self.roster, self.banned = state.roster, state.banned",
        HOSTILE,
    ),
)

"""Restarts among cheats: what whoever is back waits for, and what the others make of its absence."""

from tests.mutants.mutant import mutant

RESTARTING = (
    mutant(
        "keep the aggregate of our part in memory alone",
        "record 29",
        "swarm/updates.py",
        "self._ledger.record_part(number, attempt, bytes(data))",
        "pass",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "believe whatever file lies where our part should",
        "record 29",
        "swarm/aggregation.py",
        "if await services.compute.run(lambda: compute_root(as_bytes(own), size)) == said.root:",
        "if True:",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "give others time to come back while they miss us",
        "record 27",
        "swarm/refetching.py",
        "return broadcast.has_recovered() or is_inexcusable",
        "return is_inexcusable",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "give nobody time to come back after a recovery of long ago",
        "record 27",
        "swarm/broadcast.py",
        "return (self.place.attempt, self.place.serial) > self._recalled_in",
        "return self.place.serial > 0",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "let whoever shows nothing of a stage deny what others hold",
        "attacks A6",
        "rules/recovery.py",
        "if shown and order_stage(view.position.stage) >= order_stage(stage):",
        "if True:",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "let whoever is back in COMMIT deny what others hold of what comes after it",
        "attacks A6",
        "rules/recovery.py",
        "if shown and order_stage(view.position.stage) >= order_stage(stage):",
        "if shown:",
        "tests/rules/test_restarted_views_model.py",
    ),
    mutant(
        "wait for a relay as long as for a power cut",
        "attacks B1",
        "swarm/relaying.py",
        "+ 2 * deadlines.messages_s",
        "+ 2 * (deadlines.messages_s + deadlines.warm_up_s)",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "ask for lost parts without asking where we stand",
        "record 27",
        "swarm/rounds.py",
        " or self._broadcast.place.is_starved",
        "",
        "tests/swarm/test_told_when_starved.py",
    ),
)

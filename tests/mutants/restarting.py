"""Restarts among cheats: what whoever is back waits for, and what the others make of its absence."""

from tests.mutants.mutant import mutant

RESTARTING = (
    mutant(
        "take words from before a power cut for news",
        "attacks C15",
        "swarm/services.py",
        " and item.digest not in self.broadcast.recalled",
        "",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "do without slices before AGGREGATE is said",
        "record 27",
        "swarm/refetching.py",
        "return is_gathered and services.has_said(work, Phase.AGGREGATE)",
        "return is_gathered",
        "tests/swarm/test_words_of_the_departed.py",
    ),
    mutant(
        "wait for slices that nobody needs any more",
        "record 27",
        "swarm/refetching.py",
        "return is_gathered and services.has_said(work, Phase.AGGREGATE)",
        "return False",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "give others time to come back while they miss us",
        "record 27",
        "swarm/refetching.py",
        "is_missed or ",
        "",
        "tests/swarm/test_restart_among_cheats.py",
    ),
    mutant(
        "let whoever shows nothing of a stage deny what others hold",
        "attacks A6",
        "rules/recovery.py",
        "sum(map(bool, shown))",
        "len(views)",
        "tests/swarm/test_restart_among_cheats.py",
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

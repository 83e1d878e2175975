"""Newcomers: what a member does for somebody who is no member, and what they believe of it."""

from tests.mutants.mutant import mutant

NEWCOMERS = (
    mutant(
        "dial a newcomer at a port of the system",
        "record 17",
        "training/checkup.py",
        "return port >= FIRST_PORT and",
        "return port > 0 and",
        "tests/training/test_checkup.py",
    ),
    mutant(
        "dial our own machine for somebody behind a proxy",
        "record 17",
        "training/checkup.py",
        "(caller.is_loopback and all(map(is_loopback, listen)))",
        "caller.is_loopback",
        "tests/training/test_checkup.py",
    ),
    mutant(
        "dial for several newcomers at once",
        "record 17",
        "training/checkup.py",
        "if self._is_taken or now",
        "if now",
        "tests/training/test_checkup.py",
    ),
    mutant(
        "call a newcomer reached where somebody else answers",
        "record 17",
        "training/checkup.py",
        "self._transport.connect(address, peer)",
        "self._transport.connect(address, None)",
        "tests/training/test_checkup.py",
    ),
    mutant(
        "believe a peer that says it reached us",
        "record 17",
        "cli/doctor_swarm.py",
        "came = [visit for visit in asked if visit.has_come]",
        "came = [visit for visit in asked if visit.dialled is Dialled.REACHED]",
        "tests/cli/test_doctor_swarm.py",
    ),
)

"""The project's chores. ``nox`` runs the quick ones, ``nox -l`` lists all, ``nox -s NAME`` runs one."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "imports", "tests"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, extra: str) -> None:
    """Install btard with one of its extras, at the versions of constraints.txt."""
    session.install("-q", "-c", "constraints.txt", "-e", f".[{extra}]")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after ``--`` go to pytest."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests that are left out of the quick ones, real processes for a minute each."""
    install(session, "test")
    session.run("pytest", "-m", "long", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and show the lines and branches that none of them reached."""
    install(session, "test")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report")


@nox.session
def properties(session: nox.Session) -> None:
    """Search for counter-examples to the properties longer than the tests do."""
    install(session, "test")
    session.run("pytest", "--hypothesis-profile=thorough", "-m", "hypothesis", "--timeout=1200", *session.posargs)


@nox.session
def model(session: nox.Session) -> None:
    """Check the model of two attempts to a larger bound than the tests do."""
    install(session, "test")
    session.run("python", "-m", "tests.rules.boundary_model")


@nox.session
def mutants(session: nox.Session) -> None:
    """Break one rule at a time and name the test that notices: ``nox -s mutants -- --only signature``."""
    install(session, "test")
    session.run("python", "-m", "tests.mutants.run", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("-q", "-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    install(session, "lint")
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports only point down the layers and the rules stay pure."""
    install(session, "test")
    session.run("lint-imports", "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the API reference to build/docs."""
    install(session, "docs")
    session.run("pdoc", "btard", "--docformat", "google", "--output-directory", "build/docs")


@nox.session
def bench(session: nox.Session) -> None:
    """Run one benchmark: ``nox -s bench -- clip --help``."""
    install(session, "bench")
    name, *arguments = session.posargs or ["clip"]
    session.run("python", "-m", f"benchmarks.{name}", *arguments)


@nox.session
def hivemind(session: nox.Session) -> None:
    """Make the environment of a rival of ``benchmarks.round``: hivemind, with the torch that we have."""
    session.install("-q", "torch==2.13.0", "hivemind==1.1.12")
    session.run("python", "-c", "from hivemind.averaging.allreduce import AllReduceRunner")


@nox.session
def byzfl(session: nox.Session) -> None:
    """Run ``benchmarks.clip`` beside ByzFL's CenteredClipping, which needs an environment of its own."""
    install(session, "bench")
    session.install("-q", "torch==2.13.0", "byzfl==0.0.11")
    session.run("python", "-m", "benchmarks.clip", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Play many simulated runs on all cores and check them: ``nox -s simulate -- --seeds 500``."""
    install(session, "test")
    session.run("python", "-m", "btard.cli.simulate_many", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Throw malformed bytes at a peer of a live swarm: ``nox -s fuzz -- --frames 1000000``."""
    install(session, "test")
    session.run("python", "-m", "tests.fuzz", *session.posargs)

"""
House rules that a machine can check.

Each rule is a function that yields complaints about one file; each has a test that every file of the
project obeys it, and one that it catches a file that does not.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
DRAWERS = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"}

SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OTHERS = [*sorted((ROOT / "benchmarks").rglob("*.py")), ROOT / "noxfile.py"]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Rule = Callable[[Path, str], Iterator[str]]


def long_functions(path: Path, text: str) -> Iterator[str]:
    """Yield each function longer than a screen, its docstring not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FUNCTIONS) and node.end_lineno is not None:
            docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            spared = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
            lines = node.end_lineno - node.lineno + 1 - spared
            if lines > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def long_files(path: Path, text: str) -> Iterator[str]:
    """Yield a file that holds more than one idea."""
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{path}: {lines} lines, more than {FILE_LINES_MAX}: find the two ideas in it"


def drawers(path: Path, _text: str) -> Iterator[str]:
    """Yield a module whose name says nothing of what is inside."""
    for part in path.with_suffix("").parts:
        if part in DRAWERS:
            yield f"{path}: a module named {part} attracts everything: name it after its concept"


def leftovers(path: Path, text: str) -> Iterator[str]:
    """Yield notes of unfinished work: it goes to an issue, or is done."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"{path}:{number}: {line.strip()}"


def no_docstring(path: Path, text: str) -> Iterator[str]:
    """Yield a module that does not say what it is for."""
    if text.strip() and not ast.get_docstring(ast.parse(text)):
        yield f"{path}: no docstring"


def definitions_in_init(path: Path, text: str) -> Iterator[str]:
    """Yield whatever a package's ``__init__`` does beside re-exporting exactly what its ``__all__`` names."""
    if path.name != "__init__.py":
        return
    exported: set[str] = set()
    imported: set[str] = set()
    for node in ast.parse(text).body:
        match node:
            case ast.ImportFrom(names=names):
                imported |= {alias.asname or alias.name for alias in names}
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() as value):
                exported |= set(ast.literal_eval(value))
            case ast.Assign(targets=[ast.Name(id="__version__")]) | ast.Expr(value=ast.Constant()):
                pass
            case _:
                yield f"{path}:{node.lineno}: a package's __init__ only re-exports"
    if imported != exported:
        yield f"{path}: imported but not in __all__, or the reverse: {sorted(imported ^ exported)}"


def sleeps(path: Path, text: str) -> Iterator[str]:
    """Yield calls of time.sleep, which make tests slow, then flaky."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="sleep")):
                yield f"{path}:{node.lineno}: time.sleep"
            case ast.ImportFrom(module="time", names=names) if any(alias.name == "sleep" for alias in names):
                yield f"{path}:{node.lineno}: time.sleep"


def untold_tests(path: Path, text: str) -> Iterator[str]:
    """Yield tests whose failure would not say which sentence became false."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and not ast.get_docstring(node):
            yield f"{path}:{node.lineno}: {node.name} has no docstring"


def absolute_deadlines(path: Path, text: str) -> Iterator[str]:
    """Yield cancel scopes of a peer that end at a time of its clock, which a simulation takes for the true one."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=base, attr="deadline", ctx=ast.Store()) if ast.unparse(base).endswith("scope"):
                yield f"{path}:{node.lineno}: set relative_deadline"
            case ast.Call(func=ast.Attribute(attr="CancelScope"), keywords=named):
                if any(each.arg == "deadline" for each in named):
                    yield f"{path}:{node.lineno}: take trio.move_on_at"


EVERYWHERE = (SOURCES, TESTS, OTHERS)
SIMULATED = [path for name in ("swarm", "attacks") for path in SOURCES if ROOT / "src" / "btard" / name in path.parents]
RULES: list[tuple[Rule, tuple[list[Path], ...]]] = [
    (long_functions, EVERYWHERE),
    (long_files, EVERYWHERE),
    (drawers, EVERYWHERE),
    (no_docstring, EVERYWHERE),
    (definitions_in_init, (SOURCES,)),
    (sleeps, (TESTS,)),
    (untold_tests, (TESTS,)),
    (absolute_deadlines, (SIMULATED,)),
]


@pytest.mark.parametrize(("rule", "files"), RULES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_file_obeys(rule, files):
    """No file of the project breaks the rule."""
    paths = [path for group in files for path in group]
    assert len(paths) > 1
    assert [] == [line for path in paths for line in rule(path.relative_to(ROOT), path.read_text("utf-8"))]


def test_nothing_is_left_over():
    """No source, benchmark or document carries a note of unfinished work (this file names the words)."""
    paths = [*SOURCES, *OTHERS, *DOCUMENTS, *(path for path in TESTS if path != Path(__file__))]
    assert [] == [line for path in paths for line in leftovers(path.relative_to(ROOT), path.read_text("utf-8"))]


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (long_functions, "a.py", "def f():\n" + "    g()\n" * FUNCTION_LINES_MAX),
        (long_functions, "a.py", "class A:\n    async def f(self):\n" + "        g()\n" * FUNCTION_LINES_MAX),
        (long_files, "a.py", "a = 1\n" * (FILE_LINES_MAX + 1)),
        (drawers, "src/btard/utils/a.py", ""),
        (drawers, "src/btard/helpers.py", ""),
        (no_docstring, "a.py", "a = 1\n"),
        (definitions_in_init, "a/__init__.py", "def f(): ...\n"),
        (definitions_in_init, "a/__init__.py", "from b import c\n__all__ = []\n"),
        (definitions_in_init, "a/__init__.py", "from b import c\n__all__ = ['c', 'd']\n"),
        (sleeps, "a.py", "import time\ntime.sleep(1)\n"),
        (sleeps, "a.py", "from time import sleep\n"),
        (untold_tests, "a.py", "async def test_a():\n    pass\n"),
        (leftovers, "a.py", "# TODO: later\n"),
        (absolute_deadlines, "a.py", "nursery.cancel_scope.deadline = trio.current_time() + 1\n"),
        (absolute_deadlines, "a.py", "with trio.CancelScope(deadline=due):\n    pass\n"),
    ],
)
def test_every_rule_bites(rule, name, text):
    """A file that breaks a rule is named."""
    assert len(list(rule(Path(name), text))) == 1


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (long_functions, "a.py", 'def f():\n    """Say.\n' + "\n" * 80 + '    """\n    g()\n'),
        (long_files, "a.py", "a = 1\n" * FILE_LINES_MAX),
        (drawers, "src/btard/commonplace.py", ""),
        (no_docstring, "a/__init__.py", ""),
        (definitions_in_init, "a/__init__.py", '"""A."""\n__version__ = "1"\nfrom b import c\n__all__ = ["c"]\n'),
        (definitions_in_init, "a/b.py", "def f(): ...\n"),
        (sleeps, "a.py", "import trio\nasync def f(): await trio.sleep(1)\n"),
        (absolute_deadlines, "a.py", "scope.relative_deadline = 1\nwith trio.CancelScope():\n    pass\n"),
    ],
)
def test_no_rule_bites_the_innocent(rule, name, text):
    """A file that obeys is left alone."""
    assert [] == list(rule(Path(name), text))


def test_imports_point_down_and_rules_are_pure():
    """import-linter finds the contracts of pyproject.toml kept."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr


def readme_command(name: str) -> str:
    """Return the line of code below the comment that marks it in README.md."""
    match = re.search(rf"<!-- {name} command -->\n```console\n(.+)\n```", (ROOT / "README.md").read_text("utf-8"))
    assert match, f"README.md has no {name} command of one line"
    return match[1]


@pytest.mark.parametrize(("name", "last"), [("demo", "btard-peer demo"), ("test", "pytest")])
def test_readme_commands_do_all_the_set_up(name, last):
    """Each README command makes its environment, installs pinned versions with an extra that exists, and runs."""
    make, install, run = readme_command(name).split(" && ")
    extra = re.fullmatch(r"\.venv/bin/pip install -q -c constraints\.txt -e '\.\[(\w+)\]'", install)
    assert make == "python3 -m venv .venv"
    assert run.startswith(f".venv/bin/{last}")
    assert extra
    assert extra[1] in project()["optional-dependencies"]


def project() -> dict:
    """Return the table ``project`` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def requirement_names(requirements: list[str]) -> set[str]:
    """Return the names in a list of requirements, normalised, btard itself left out."""
    names = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower().replace("_", "-") for line in requirements}
    return names - {"btard"}


def test_every_dependency_is_pinned_and_has_its_reason():
    """constraints.txt gives each dependency one version, and the decision record says why it is there."""
    wanted = requirement_names(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        wanted |= requirement_names(extra)
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    record = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text("utf-8").lower()
    assert [] == [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert set() == wanted - requirement_names(pins)
    assert [] == sorted(name for name in wanted if f"`{name}`" not in record)


def test_links_between_documents_lead_somewhere():
    """Every relative link in a Markdown file names a file of the project."""
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (document.parent / target).exists()
    ]
    assert [] == broken


def test_every_decision_is_in_the_index():
    """Each record of docs/decisions has its line in the index there."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    assert [] == [path.name for path in folder.glob("0*.md") if f"]({path.name})" not in index]

"""The catalogue of mutants fits the sources; trying them all is a session of its own (``nox -s mutants``)."""

import shutil

import pytest
from tests.mutants.catalogue import MUTANTS
from tests.mutants.run import ROOT, apply


def test_names_are_unique_and_tests_exist():
    """Every mutant has a name of its own and names tests that are there."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    missing = [test for mutant in MUTANTS for test in mutant.tests if not (ROOT / test).exists()]
    assert missing == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_changes_one_place_and_compiles(mutant, tmp_path):
    """The text that a mutant replaces is there once, and what comes out is Python."""
    path = tmp_path / "btard" / mutant.path
    path.parent.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "btard" / mutant.path, path)
    before = path.read_text()
    apply(mutant, tmp_path)
    assert path.read_text() != before
    compile(path.read_text(), str(path), "exec")

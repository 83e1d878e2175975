"""
Rules of the protocol, each broken in one place: what the tests must notice.

A mutant replaces one piece of text that occurs exactly once in one file. ``tests`` are where its end is
expected; a mutant that none of them notices is a hole in the tests, or a rule that is not needed.
"""

from tests.mutants.admitting import ADMITTING
from tests.mutants.agreeing import AGREEING
from tests.mutants.checking import CHECKING
from tests.mutants.finding import FINDING
from tests.mutants.newcomers import NEWCOMERS
from tests.mutants.recovering import RECOVERING
from tests.mutants.restarting import RESTARTING
from tests.mutants.settling import SETTLING
from tests.mutants.signing import SIGNING

MUTANTS = (*SIGNING, *CHECKING, *SETTLING, *RECOVERING, *AGREEING, *NEWCOMERS, *ADMITTING, *FINDING, *RESTARTING)

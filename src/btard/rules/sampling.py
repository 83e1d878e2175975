"""
What a candidate says of its gradient, and what a member that redoes it makes of that (design section 6, Joining 4).

A sample is the norm of the whole gradient and its projections on directions of the candidate's own: nobody knows
them without the gradient, and they take no more room than a report. Directions known beforehand are no help, for
there is no aggregate to hide from: to say what they give one needs the gradient.
"""

import math

import torch
from torch import Tensor

from btard.identity import Context, PeerId, digest
from btard.robust import Directions, compute_report
from btard.rules.checks import is_near_report, is_well_formed
from btard.rules.config import RunConfig
from btard.rules.judgement import read_committed
from btard.rules.messages import Finding, Report

GROSS = 0.1
"""A relative deviation beyond this is a lie; less, but beyond half the tolerance, is another kind of machine."""


def is_sample(config: RunConfig, report: Report) -> bool:
    """Return whether a report could be the sample of a gradient."""
    return is_well_formed((report,), 1, config.projections)


def compute_sample(config: RunConfig, q: bytes, round_number: int, peer: PeerId, gradient: Tensor) -> Report:
    """Return the sample of a candidate's gradient, float32 of shape (D,), in a round that starts from ``q``."""
    seed = digest(Context.SAMPLE, q, round_number.to_bytes(8, "little"), peer)
    directions = Directions(seed, config.elements, config.projections)
    values = read_committed(gradient)
    projections, norm = compute_report(directions, values, torch.zeros_like(values), math.inf, 0)
    return Report(tuple(map(float, projections)), norm)


def judge_sample(config: RunConfig, claimed: Report, own: Report, slack: float) -> Finding:
    """Return what a recomputation says of a sample.

    Checkers charge beyond the tolerance (``slack`` 1), voters agree beyond half of it (1/2): whoever is a member
    later is within the tolerance of everybody, and an honest checker never loses.
    """
    if is_near_report(claimed, own, math.inf, slack * config.tolerance * own.norm):
        return Finding.TRUE
    is_gross = not is_near_report(claimed, own, math.inf, GROSS * own.norm)
    return Finding.FALSE if is_gross else Finding.DIFFERENT

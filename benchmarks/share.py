"""
What share of the roster an attacker reaches that has a share of all work for tickets, by formula and by simulation.

The attacker does everything right, gradients too, so each of its identities that is admitted becomes a member.
Nobody leaves. The model has no network: each epoch as many tickets as given lie before the members, each of them the
attacker's with its share as probability, and the rules' own functions choose (btard.rules.admission). A roster of n
members, b of them the attacker's, is its own from 2b >= n on.

    mean    (b0 + aA) / (n0 + A) after A admissions
    half    ever reached with probability (a / (1 - a))^(n0 - 2 b0) if a < 1/2, else certainly: each admission moves
            the honest majority by one, down with a, up with 1 - a (gambler's ruin)
"""

from pathlib import Path
from random import Random
from statistics import fmean
from typing import Annotated, Any

import typer
from typer import Option

from benchmarks.report import describe, write
from btard.identity import Context, JoinTicket, PeerId, digest
from btard.rules.admission import choose_quoted, count_admissions
from btard.rules.roster import Roster

Result = dict[str, Any]


def compute_mean_share(members: int, byzantine: int, share: float, admissions: float) -> float:
    """Return the attacker's expected share of the roster after so many admissions."""
    return (byzantine + share * admissions) / (members + admissions)


def compute_odds_of_half(members: int, byzantine: int, share: float) -> float:
    """Return how likely the attacker ever has half of the roster."""
    lead = members - 2 * byzantine
    if lead <= 0 or share >= 0.5:
        return 1.0
    return float((share / (1 - share)) ** lead)


def compute_admissions_to_half(members: int, byzantine: int, share: float) -> float | None:
    """Return the expected number of admissions until the attacker has half; None if it is not expected to."""
    return (members - 2 * byzantine) / (2 * share - 1) if share > 0.5 else None


def play(members: int, byzantine: int, share: float, tickets: int, epochs: int, seed: int) -> tuple[float, int, bool]:
    """Return the attacker's share in the end, the admissions, and whether it ever had half."""
    random = Random(seed)
    roster = Roster.of(tuple(PeerId(random.randbytes(32)) for _ in range(members)))
    own, had_half = set(roster.members[:byzantine]), 2 * byzantine >= members
    for epoch in range(epochs):
        shown = []
        for nonce in range(tickets):
            peer = PeerId(random.randbytes(32))
            shown.append(JoinTicket(peer, epoch, 0, nonce))
            if random.random() < share:
                own.add(peer)
        q = digest(Context.EXPAND, b"the draw of an epoch", f"{seed}/{epoch}".encode())
        chosen = choose_quoted(q, shown, count_admissions(roster))
        roster = Roster.of((*roster.members, *(PeerId(ticket.peer) for ticket in chosen)))
        had_half = had_half or 2 * len(own.intersection(roster.members)) >= len(roster)
    return len(own.intersection(roster.members)) / len(roster), len(roster) - members, had_half


def compare(members: int, byzantine: int, share: float, tickets: int, epochs: int, runs: int) -> Result:
    """Return both accounts of one case."""
    played = [play(members, byzantine, share, tickets, epochs, seed) for seed in range(runs)]
    admissions = played[0][1]
    to_half = compute_admissions_to_half(members, byzantine, share)
    return {
        "share_of_tickets": share,
        "admissions": admissions,
        "share_by_formula": round(compute_mean_share(members, byzantine, share, admissions), 4),
        "share_simulated": round(fmean(result[0] for result in played), 4),
        "half_ever_by_formula": round(compute_odds_of_half(members, byzantine, share), 4),
        "half_simulated": round(fmean(result[2] for result in played), 4),
        "admissions_to_half": to_half and round(to_half, 1),
    }


def main(
    members: Annotated[int, Option(min=1, help="roster at the start")] = 16,
    byzantine: Annotated[int, Option(min=0, help="of them the attacker's")] = 2,
    share: Annotated[list[float] | None, Option(help="of all tickets, the attacker's; repeat for several")] = None,
    tickets: Annotated[int, Option(min=1, help="valid tickets that lie before the members in an epoch")] = 16,
    epochs: Annotated[int, Option(min=1, help="epochs of K rounds")] = 64,
    runs: Annotated[int, Option(min=1, help="runs of each case")] = 400,
    path: Annotated[Path | None, Option("--json", help="where to write the result")] = None,
) -> None:
    """Compare the share of the roster that an attacker reaches with what the formula says."""
    shares = share or [0.1, 0.25, 0.4, 0.5, 0.6, 0.75]
    results = [compare(members, byzantine, each, tickets, epochs, runs) for each in shares]
    print("| tickets | admissions | share, formula | simulated | half ever, formula | half, simulated | to half |")
    print("|---|---|---|---|---|---|---|")
    for result in results:
        print("| " + " | ".join(str(value) for value in result.values()) + " |")
    write(path, {**describe("share"), "cases": results})


if __name__ == "__main__":
    typer.run(main)

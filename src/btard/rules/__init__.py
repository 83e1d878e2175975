"""
The protocol as in the paper, as pure functions of values: no I/O, no clock, no randomness.

Read in this order: messages (what peers say), roster, draws (shared randomness), merkle
(commitments), parts (who reduces what), checks (Verifications 1 to 3), judgement and disputes (who
is guilty), recovery (how a halted round goes on), seal and evidence (what remains), config.
"""

"""
The concurrent protocols of one peer, and the round that strings them together.

Start with round.py, which reads like the paper's Algorithm 1. Each step has its file: committing,
sealing, aggregation, checking, settling, validation. The services are tasks or served by one:
exchange and broadcast (signed messages), recovery, scatter and gather (bulk data), links, ledger.
peer.py owns the nursery.
"""

"""
The programs that reduce the same vectors, or train the same model, in turns; one process for each peer.

``gate`` is how a process is told when its turn is; ``btard`` runs the protocol whole, the others are
what it is held against. Each is a command line that ``benchmarks.contest`` starts.
"""

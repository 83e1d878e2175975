"""Rules by which a peer is found although others would rather it were not."""

from tests.mutants.mutant import mutant

FINDING = (
    mutant(
        "hear nodes whose keys have no work behind them",
        "design section 6",
        "dht/protocol.py",
        " or not is_identity_worked(header.sender, header.identity_nonce, self._work.bits)",
        "",
        "tests/dht/test_abuse.py",
    ),
    mutant(
        "let one draw keys for a node id, and work for the key that lies well",
        "design section 6",
        "dht/datagram.py",
        'digest(Context.NODE_ID, run_id, peer, identity_nonce.to_bytes(_NONCE_SIZE, "little"))',
        "digest(Context.NODE_ID, run_id, peer)",
        "tests/dht/test_datagram.py",
    ),
    mutant(
        "let one address block fill a bucket",
        "issue C 6",
        "dht/table.py",
        "return _count(waiting, block) < MAX_PER_BLOCK and _count(self.nodes, block) < MAX_PER_BLOCK_IN_ALL",
        "return _count(self.nodes, block) < MAX_PER_BLOCK_IN_ALL",
        "tests/dht/test_table.py",
    ),
    mutant(
        "count every node of a block among the closest",
        "issue C 6",
        "dht/blocks.py",
        "if count[block] <= MAX_PER_BLOCK:",
        "if count[block]:",
        "tests/dht/test_blocks.py",
    ),
    mutant(
        "go on asking for the nodes that a liar invents",
        "issue C 6",
        "dht/crawl.py",
        "< MAX_DOUBT",
        "< 1e9",
        "tests/dht/test_crawl.py",
    ),
    mutant(
        "let replayed copies of an old record end a lookup",
        "issue C 6",
        "dht/newest.py",
        "self.contact, self._record, self._copies = contact, record, 1",
        "self.contact, self._record, self._copies = contact, record, self._copies + 1",
        "tests/dht/test_newest.py",
    ),
    mutant(
        "let one address block push out the records of others",
        "issue C 6",
        "dht/storage.py",
        "of_block = [key for key, held in self._held.items() if held.block == block]",
        "of_block = list(self._held)",
        "tests/dht/test_storage.py",
    ),
    mutant(
        "forget the silence of a node that answers pings only",
        "issue C 6",
        "dht/limits.py",
        "self._until[node] = (0.0, pause)",
        "del self._until[node]",
        "tests/dht/test_limits.py",
    ),
)

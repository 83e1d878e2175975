"""Rules by which a peer is found, and found again, although others would rather it were not."""

from tests.mutants.mutant import mutant

FINDING = (
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
    mutant(
        "go on sending to the link that the lower key dialled",
        "record 4",
        "net/session.py",
        "(link.serial, dialler == min(self._me, self.peer))",
        "(0, dialler == min(self._me, self.peer))",
        "tests/net/test_two_links.py",
    ),
    mutant(
        "number a link by a clock that is behind",
        "record 4",
        "net/tcp.py",
        "serial = max(now, theirs.serial)",
        "serial = now",
        "tests/net/test_two_links.py",
    ),
    mutant(
        "say nothing again on a link that follows a dead one",
        "record 4",
        "net/hub.py",
        "                self.on_connected(link.peer)  # what was written to a link before may be lost\n",
        "                pass\n",
        "tests/net/test_two_links.py",
    ),
)

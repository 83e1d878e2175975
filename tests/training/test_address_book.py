"""What is remembered of the members' addresses, whatever one of them announced."""

import json
from pathlib import Path

from btard.identity import PeerId
from btard.net import Address
from btard.training.address_book import read_addresses

ONE, OTHER = PeerId(b"\1" * 32), PeerId(b"\2" * 32)
PLACE = Address("192.0.2.1", 4000)


def test_an_absurd_address_costs_nobody_else(tmp_path: Path) -> None:
    """The DHT carries host names that cannot be dialled: whoever announces one is forgotten, the others are not."""
    path = tmp_path / "addresses.json"
    path.write_text(json.dumps({ONE.hex(): ["-:4000"], OTHER.hex(): [str(PLACE)], "no key": [str(PLACE)], "": 7}))
    assert read_addresses(path)[OTHER] == (PLACE,)
    assert ONE not in read_addresses(path)

"""The benchmark of swarms: what it makes of rows that were measured."""

import pytest
import typer
from benchmarks.swarm import complete, fit, format_result, model, read_sizes


def make_row(peers: int, how: str = "simulated", elements: int = 1000) -> dict:
    """Return a row that costs (n - 1) (100 + 2n) protocol bytes and 1 ms for every peer."""
    return {
        "peers": peers,
        "elements": elements,
        "how": how,
        "cpu_s_per_peer": peers / 1000,
        "bytes_data": 8.0 * elements,
        "bytes_protocol": (peers - 1) * (100.0 + 2 * peers),
        "hops": 6.0,
    }


def test_the_model_predicts_what_it_was_not_fitted_to():
    """Fitted at 16, 32 and 64, it gives 128 and 1,024 as the same law makes them, and its rows say what they are."""
    _, modelled, errors = model([make_row(peers) for peers in (8, 16, 32, 64, 128)])
    assert (errors["fitted_at"], errors["of"]) == ([16, 32, 64], 128)
    assert [row["peers"] for row in modelled] == [256, 512, 1024]
    assert {row["how"] for row in modelled} == {"modelled"}
    assert modelled[-1]["bytes_protocol"] == pytest.approx(1023 * (100 + 2 * 1024), rel=1e-6)
    assert errors["bytes_protocol"] == pytest.approx(0.0, abs=1e-6)
    assert errors["cpu_s_per_peer"] == pytest.approx(0.0, abs=1e-6)


def test_a_wrong_prediction_is_shown():
    """Where 128 peers cost twice what the law says, the error is a half."""
    rows = [make_row(peers) for peers in (16, 32, 64, 128)]
    rows[-1]["bytes_protocol"] *= 2
    assert model(rows)[2]["bytes_protocol"] == pytest.approx(-0.5, abs=1e-4)


def test_without_its_sizes_there_is_no_model():
    """Processes share this machine's cores: they are not what it is fitted to, and the reason is told."""
    costs, modelled, errors = model([make_row(peers, "processes") for peers in (16, 32, 64)])
    assert costs is None
    assert modelled == []
    assert "fitted at" in errors["reason"]
    assert "no size" in model([make_row(peers) for peers in (16, 32, 64)])[2]["reason"]


def test_a_row_is_projected_to_links():
    """Hops, bytes and CPU seconds add up; a row without figures stays as it is."""
    row = complete(make_row(10), 6.0)
    assert row["projected_s"]["100 Mbit/s"] == pytest.approx(6 * 0.05 + 8 * 9080 / 100e6 + 0.01, abs=1e-3)
    assert row["protocol_share"] == pytest.approx(1080 / 9080, abs=1e-4)
    assert complete({"peers": 64, "reason": "no memory"}, 6.0) == {"peers": 64, "reason": "no memory"}


def test_exponents_are_told_of_what_varies():
    """In n along the largest vector, in D along the largest swarm, for each kind of row alone."""
    fits = fit([make_row(4), make_row(8), make_row(8, elements=2000), make_row(4, "processes")])
    assert fits["simulated: bytes_data in elements"] == 1.0
    assert fits["simulated: bytes_protocol in elements"] == 0.0
    assert "simulated: bytes_protocol in peers" not in fits
    assert not [name for name in fits if name.startswith("processes")]


@pytest.mark.parametrize("text", ["", "4,x", "1,2", "0"])
def test_sizes_are_numbers_above_one(text):
    """Anything else is the user's mistake."""
    with pytest.raises(typer.BadParameter):
        read_sizes(text)
    assert read_sizes("8,4,8") == [4, 8]


def test_the_table_names_what_could_not_run():
    """A size without memory has its reason below the table."""
    rows = [complete(make_row(4), 6.0), {"peers": 64, "elements": 10, "how": "processes", "reason": "no memory"}]
    result = {"command": "c", "machine": "m", "commit": "x", "rows": rows, "fits": {}, "model": None, "prediction": {}}
    assert "- 64 processes: no memory" in format_result(result)

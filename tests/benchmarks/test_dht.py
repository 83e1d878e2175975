"""The benchmark of the DHT: what it demands of its figures."""

from contextlib import nullcontext

import pytest
import trio
import typer
from benchmarks.dht import MERGE_SECONDS, RECOVERY_SECONDS, find_shortfalls, measure_loss
from trio.testing import MockClock

from benchmarks import dht


def make_result(found: float = 100.0, failed_s: float = 0.0, merged_s: float = 5.0) -> dict:
    """Return figures that suffice, but for those that are given: each of the last look of its scenario."""
    looks = ("at_once", "settled", "victim_of_squatters")
    return {
        "speed": {},
        "abuse": {name: {"found_percent": 100.0} for name in looks} | {"victim_of_squatters": {"found_percent": found}},
        "loss": {
            "at_once": {"last_failure_s_after_loss": 1.5},
            "recovered": {"last_failure_s_after_loss": 0.0},
            "a_minute_later": {"last_failure_s_after_loss": failed_s},
        },
        "split": {"all_found_s_after_mending": merged_s},
    }


@pytest.mark.parametrize(
    ("figures", "shortfall"),
    [
        ({"found": 99.0}, None),
        ({"found": 98.9}, "abuse, victim_of_squatters: 98.9% found, not 99%"),
        ({"failed_s": RECOVERY_SECONDS}, None),
        ({"failed_s": 10.1}, "loss, a_minute_later: a lookup failed 10.1 s after the loss, not up to 10 s"),
        ({"merged_s": MERGE_SECONDS}, None),
        ({"merged_s": 65.1}, "split: merged 65.1 s after mending or later, not within 65 s"),
    ],
)
def test_what_falls_short_ends_with_1(
    figures: dict[str, float], shortfall: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """99% found among hostile nodes, all found 10 s after the loss, one refresh and one lookup to merge: no less."""
    result = make_result(**figures)
    assert find_shortfalls(result) == ([shortfall] if shortfall else [])
    monkeypatch.setattr(dht, "play", lambda name, *_, **__: result[name])
    with pytest.raises(typer.Exit) if shortfall else nullcontext() as end:
        dht.run(path=None)
    assert end is None or end.value.exit_code == 1


async def test_after_a_loss_it_looks_at_once_and_when_all_must_be_found(autojump_clock: MockClock) -> None:
    """The look that decides begins when the stated time is over, no matter how long the first one took."""
    result = await measure_loss(8, 40, 0)
    assert [result[name]["begun_s_after_loss"] for name in ("at_once", "recovered")] == [0.0, RECOVERY_SECONDS]
    assert result["recovered"]["found_percent"] == 100.0
    assert trio.current_time() > 60

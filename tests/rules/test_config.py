"""The run file: what cannot be a run is refused in one line; what can is read back unchanged."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.build import make_config

from btard.errors import ConfigError
from btard.rules.config import RunConfig, build_config, format_run_file, parse_run_file

words = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers(-(2**60), 2**60)
options = st.dictionaries(
    words, words | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False), max_size=4
)
positive = st.floats(1e-300, 1e300)
configs = st.builds(
    make_config,
    seed=numbers,
    task=words,
    dataset=words,
    task_options=options,
    optimizer_options=options,
    tau=positive | st.integers(1, 2**70),
    delta=positive,
    epsilon=positive,
    tolerance=st.floats(1e-4, 1e9),
    projections=st.integers(1, 64),
    rounds=st.integers(1, 2**40),
    max_byzantine=st.integers(-1, 100),
)

OTHER = {
    "founder": "cd" * 32,
    "genesis_size": 9,
    "rounds": 101,
    "seed": 1,
    "task": "text",
    "task_options": {"width": 4},
    "dataset": "00",
    "elements": 65,
    "chunk_size": 8,
    "optimizer": "sgd",
    "optimizer_options": {"lr": 0.1},
    "tau": 1.5,
    "delta": 4.5,
    "tolerance": 2e-4,
    "epsilon": 1e-5,
    "projections": 11,
    "validators": 2,
    "max_byzantine": 0,
    "delay_s": 2.5,
    "max_gradient_s": 5.0,
    "min_bandwidth": 1,
    "state_interval": 17,
    "exemption": 9,
    "min_roster": 3,
    "identity_bits": 21,
    "ticket_bits": 12,
    "ticket_memory_kib": 4096,
    "ticket_window": 32,
    "admission": "closed",
    "probation": 16,
    "check_rate": 0.25,
    "defence": "none",
}


@given(configs)
def test_run_file_is_read_back_unchanged(config: RunConfig) -> None:
    """Whatever the words and numbers, the file gives the same run with the same run_id."""
    again = parse_run_file(format_run_file(config))
    assert again == config
    assert again.run_id == config.run_id
    assert again.field_digests == config.field_digests


@pytest.mark.parametrize("name", [item.name for item in fields(RunConfig)])
def test_digests_differ_exactly_where_a_field_differs(name: str) -> None:
    """Two peers find out which value differs, and any difference is another run."""
    one, other = make_config(), replace(make_config(), **{name: OTHER[name]})
    assert one.run_id != other.run_id
    assert [key for key, value in one.field_digests.items() if other.field_digests[key] != value] == [name]


def test_whole_numbers_and_floats_of_one_value_are_one_run() -> None:
    """Tau = 1 and tau = 1.0 have the same run_id."""
    assert (
        make_config(tau=1).run_id
        == make_config(tau=1.0).run_id
        == parse_run_file(format_run_file(make_config())).run_id
    )


def test_unknown_field_is_named_with_the_known_ones() -> None:
    """A typing mistake is not ignored."""
    with pytest.raises(ConfigError, match=r"unknown field 'tua'; known are .*tau"):
        build_config({"tua": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", "100"),
        ("rounds", 1.0),
        ("rounds", True),
        ("tau", "1"),
        ("tau", False),
        ("task", 3),
        ("task_options", [1]),
        ("task_options", "lr=1"),
        ("founder", None),
    ],
)
def test_wrong_type_is_named(name: str, value: object) -> None:
    """The message names the field and shows the value."""
    with pytest.raises(ConfigError, match=f"{name} has the wrong type: "):
        build_config({name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"genesis_size": 0}, "genesis_size must be above 0"),
        ({"genesis_size": 65}, "genesis_size is at most 64: the messages of a recovery"),
        ({"elements": 2**36 + 1, "chunk_size": 65_536}, "elements is at most 68719476736: a part"),
        ({"rounds": -1}, "rounds must be above 0"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"tau": float("nan")}, "tau must be"),
        ({"tau": float("inf")}, "tau must be finite"),
        ({"delta": 10**400}, "delta must be finite"),
        ({"epsilon": -1.0}, "epsilon must be above 0"),
        ({"delay_s": 0}, "delay_s must be above 0"),
        ({"tolerance": 9e-5}, "at least 1e-4"),
        ({"tolerance": float("nan")}, "tolerance must be finite"),
        ({"projections": 0}, "projections must be between 1 and 64"),
        ({"projections": 65}, "projections must be between 1 and 64"),
        ({"identity_bits": -1}, "identity_bits must be between 0 and 40"),
        ({"identity_bits": 41}, "identity_bits must be between 0 and 40"),
        ({"ticket_bits": -1}, "ticket_bits must be between 0 and 32"),
        ({"ticket_bits": 33}, "ticket_bits must be between 0 and 32"),
        ({"ticket_memory_kib": 7}, "ticket_memory_kib must be between 8 and 32768"),
        ({"ticket_memory_kib": 32_769}, "ticket_memory_kib must be between 8 and 32768"),
        ({"ticket_window": 0}, "ticket_window must be between 1 and 1024"),
        ({"ticket_window": 1025}, "ticket_window must be between 1 and 1024"),
        ({"validators": -1}, "validators must be between"),
        ({"validators": 8}, "validators must be between"),
        ({"defence": "hope"}, "defence is btard or none"),
        ({"founder": "ab"}, "64 hex digits"),
        ({"founder": "zz" * 32}, "64 hex digits"),
        ({"founder": "ab " * 32}, "64 hex digits"),
        ({"max_byzantine": -2}, "max_byzantine is -1"),
        ({"elements": 10, "chunk_size": 0}, "chunk_size must be above 0"),
        ({"elements": -1}, "elements must not be negative"),
        ({"exemption": -1}, "exemption must not be negative"),
        ({"task_options": {"x": [1]}}, "task_options: 'x'"),
        ({"optimizer_options": {"lr": float("inf")}}, "optimizer_options: 'lr'"),
    ],
    ids=str,
)
def test_impossible_value_is_refused_with_its_remedy(values: dict, message: str) -> None:
    """Each rule on values has its one-line message."""
    with pytest.raises(ConfigError, match=message):
        make_config(**values)


@pytest.mark.parametrize("text", ["tau = ", "= 1", "tau = 1\ntau = 2", "\x00", "when = 2020-01-01"])
def test_text_that_is_no_run_file_is_refused(text: str) -> None:
    """Broken TOML and foreign fields raise ConfigError."""
    with pytest.raises(ConfigError):
        parse_run_file(text)


@given(st.text(max_size=80))
def test_any_text_gives_a_configuration_or_a_config_error(text: str) -> None:
    """No run file raises anything but ConfigError."""
    try:
        parse_run_file(text)
    except ConfigError:
        return


def test_date_among_the_options_is_refused() -> None:
    """TOML knows more types than a configuration may hold."""
    with pytest.raises(ConfigError, match="task_options: 'when'"):
        parse_run_file("[task_options]\nwhen = 2020-01-01")


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_radii_scale_with_the_square_root_of_the_length(elements: int, chunk: int) -> None:
    """A part's radius is a constant per element, so cutting parts otherwise clips nothing else (attacks B4d)."""
    config = make_config(elements=elements, chunk_size=chunk, tau=3.0)
    assert config.scale(config.tau, chunk) == 3.0
    assert config.scale(config.tau, 4 * chunk) == 6.0
    assert config.scale(config.tau, elements) ** 2 * chunk == pytest.approx(9.0 * elements)


def test_byzantine_bound_of_the_run() -> None:
    """-1 leaves it to the roster; any other number is the bound."""
    assert make_config().byzantine_bound is None
    assert make_config(max_byzantine=0).byzantine_bound == 0
    assert make_config().founder_id == bytes.fromhex("ab" * 32)


@pytest.mark.parametrize(
    "text",
    ["rounds = 0x" + "f" * 9000, "rounds = " + "9" * 9000, "tau = 0x" + "f" * 9000, "task_options = " + "[" * 9000],
)
def test_monstrous_numbers_and_nesting_are_refused(text: str) -> None:
    """A run file from a hostile bootstrap peer gives an error with advice, nothing else."""
    with pytest.raises(ConfigError):
        parse_run_file(text)

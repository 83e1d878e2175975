"""Who attacks, and what is on disk before anything starts."""

import socket
import stat

import pytest

from btard.cli.demo_plan import PORTS, Settings, check_settings, draw_attacks, find_free_port, make_command, make_plan
from btard.cli.demo_strangers import schedule_strangers
from btard.cli.files import read_run_file
from btard.cli.leash import WAIT_OPTION
from btard.errors import ConfigError
from btard.identity import load_identity
from btard.wire import parse_ticket

from .small_plans import add_strangers, make_small_plan


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (Settings(attack="sing-flip"), "known are mixed, sign-flip"),
        (Settings(peers=8, byzantine=4), "at most 3"),
        (Settings(peers=2, byzantine=1), "at most 0"),
        (Settings(attack="collude", byzantine=1), "--byzantine 2 or more"),
        (Settings(late_joiners=1, defence="none"), "leave --late-joiners and --sybils out"),
        (Settings(late_joiners=2, sybils=1, rounds=89), "choose --rounds 90 or more"),
    ],
)
def test_impossible_demos_are_refused(settings, advice):
    """What cannot be run is refused with what to change."""
    with pytest.raises(ConfigError, match=advice):
        check_settings(settings)


@pytest.mark.parametrize("settings", [Settings(), Settings(byzantine=0), Settings(attack="mixed"), Settings(peers=7)])
def test_possible_demos_are_not_refused(settings):
    """Fewer than half may attack."""
    check_settings(settings)


@pytest.mark.parametrize("seed", range(10))
def test_the_founder_never_attacks(seed):
    """As many attack as were asked for, the founder not among them, the same for the same seed."""
    attacks = draw_attacks(Settings(seed=seed))
    assert attacks[0] is None
    assert sorted(attack or "" for attack in attacks) == [""] * 5 + ["sign-flip"] * 3
    assert attacks == draw_attacks(Settings(seed=seed))


def test_seeds_draw_different_attackers():
    """Who attacks depends on the seed."""
    assert len({draw_attacks(Settings(seed=seed)) for seed in range(10)}) > 1


def test_mixed_kinds_do_not_repeat():
    """A mixed attack has each kind once, a colluding pair apart."""
    attacks = draw_attacks(Settings(peers=16, byzantine=7, attack="mixed"))
    kinds = [attack for attack in attacks if attack not in {None, "collude"}]
    assert len(kinds) == len(set(kinds))
    assert attacks.count("collude") in {0, 2}
    assert attacks.count(None) == 9


@pytest.mark.parametrize(("peers", "bound_s"), [(2, 1.0), (8, 1.0), (9, 2.0), (16, 2.0), (33, 5.0)])
def test_more_peers_are_given_more_time(peers, bound_s):
    """The bound on delays grows with the number of processes that share a machine, unless it is given."""
    assert Settings(peers=peers).delay_bound_s == bound_s
    assert Settings(peers=peers, delay_s=0.5).delay_bound_s == 0.5


def test_a_free_port_is_free():
    """The port can be bound for TCP and UDP, and is not among those given to outgoing connections."""
    port = find_free_port()
    assert port in PORTS
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_free(monkeypatch):
    """A port on which somebody listens is not chosen, for TCP or UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            monkeypatch.setattr("btard.cli.demo_plan.PORTS", range(port, port + 1))
            with pytest.raises(ConfigError, match="no free port"):
                find_free_port()


def test_a_plan_is_on_disk_before_anything_starts(tmp_path):
    """The run file, its ticket and all keys belong together, and every player has its own directory."""
    plan = make_plan(Settings(peers=4, byzantine=1, rounds=7, seed=3, defence="none"), tmp_path)
    config, ticket = read_run_file(tmp_path / "run.toml"), parse_ticket(plan.ticket)
    assert (config.genesis_size, config.rounds, config.seed, config.defence) == (4, 7, 3, "none")
    assert config == plan.config
    assert config.elements > 0
    assert ticket.run_id == config.run_id
    assert config.founder == plan.players[0].peer
    for player in plan.players:
        key = player.directory / "identity.key"
        assert load_identity(key).peer_id.hex() == player.peer
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_strangers_come_in_turn_over_a_third_of_the_run():
    """Late joiners and Sybils take turns, from the second round on, none in the last two thirds."""
    schedule = schedule_strangers(Settings(rounds=90, late_joiners=2, sybils=1))
    assert schedule == [(None, 2), ("idle-candidate", 12), (None, 22)]
    assert schedule_strangers(Settings()) == []


def test_a_run_is_changed_for_strangers_only(tmp_path):
    """Work and probation are those of every run, unless strangers come: then the run file has small ones."""
    usual = make_plan(Settings(peers=2, byzantine=0), tmp_path / "usual").config
    plan = make_plan(Settings(peers=2, byzantine=0, late_joiners=1), tmp_path / "strange")
    assert (usual.ticket_bits, usual.probation, usual.check_rate) == (13, 32, 0.5)
    assert (plan.config.ticket_bits, plan.config.probation, plan.config.check_rate) == (3, 8, 1.0)
    assert [player.comes_after for player in plan.players] == [None, None, 2]
    assert load_identity(plan.players[2].directory / "identity.key").peer_id.hex() == plan.players[2].peer


def test_strangers_have_the_ticket_and_wait_to_be_let_go(tmp_path):
    """A stranger is started with what anybody has; it begins when told to, and a Sybil attacks from the first round."""
    plan = add_strangers(make_small_plan(tmp_path, None, "sign-flip"), None, "idle-candidate")
    founder, attacker, joiner, sybil = (list(make_command(plan, player)) for player in plan.players)
    waits = [WAIT_OPTION in command for command in (founder, attacker, joiner, sybil)]
    assert waits == [False, False, True, True]
    assert not {"--attack", "--found", "--run-file", "--trust-seal"} & {*joiner}
    begin = sybil.index("--attack")
    assert sybil[begin : begin + 4] == ["--attack", "idle-candidate", "--attack-from", "1"]
    assert attacker[attacker.index("--attack-from") + 1] == "5"


def test_a_directory_in_use_is_refused(tmp_path):
    """Keys of an earlier demo are never mixed with new ones."""
    (tmp_path / "peer-0").mkdir()
    with pytest.raises(ConfigError, match="choose a new, writable --data-dir"):
        make_plan(Settings(), tmp_path)


def test_only_attackers_are_told_that_they_attack(tmp_path):
    """The founder founds, attackers get the hidden options, and the others have nothing but the ticket."""
    plan = make_small_plan(tmp_path, None, "collude", None)
    founder, attacker, honest = (list(make_command(plan, player)) for player in plan.players)
    assert founder[founder.index("--found") + 1] == str(tmp_path / "run.toml")
    assert attacker[attacker.index("--attack") + 1] == "collude"
    assert attacker[attacker.index("--coalition") + 1] == str(tmp_path / "coalition")
    assert not {"--attack", "--coalition", "--attack-from"} & {*founder, *honest}
    assert "--found" not in {*attacker, *honest}
    assert all("--leash" in command and "btard1-ticket" in command for command in (founder, attacker, honest))

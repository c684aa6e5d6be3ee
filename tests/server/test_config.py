"""Settings: precedence, and a clear refusal of everything that cannot be."""

from __future__ import annotations

import pytest

from seatrial.raft.ids import NodeId
from seatrial.server.config import Address, ServerConfig, UsageError, parse

BASE = ["--node-id", "1", "--data-dir", "d"]


def no_file(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", path)


def parsed(*flags: str, environment: dict[str, str] | None = None, file: str = "") -> ServerConfig:
    read = (lambda path: file.encode()) if file else no_file
    return parse([*BASE, *flags], environment or {}, read)


def refusal(*flags: str, environment: dict[str, str] | None = None, file: str = "") -> str:
    with pytest.raises(UsageError) as error:
        parsed(*flags, environment=environment, file=file)
    return str(error.value)


def test_a_flag_beats_the_environment_and_the_environment_beats_the_file() -> None:
    file = 'heartbeat-ms = 11\nrack = "from-file"\nlog-level = "debug"'
    environment = {"SEATRIAL_HEARTBEAT_MS": "12", "SEATRIAL_RACK": "from-environment"}
    config = parsed("--config", "f.toml", "--heartbeat-ms", "13", environment=environment, file=file)
    assert (config.heartbeat_ms, config.rack, config.log_level) == (13, "from-environment", "debug")


def test_required_options_may_come_from_the_environment() -> None:
    config = parse([], {"SEATRIAL_NODE_ID": "3", "SEATRIAL_DATA_DIR": "x"}, no_file)
    assert (config.node_id, config.data_dir) == (3, "x")


def test_peers_never_hold_the_node_itself_and_voters_always_do() -> None:
    with_itself = parsed("--peers", "1@a:1,2@b:2,3@c:3")
    without = parsed("--peers", "2@b:2,3@c:3")
    assert with_itself.peers == without.peers == {NodeId(2): "b:2", NodeId(3): "c:3"}
    assert with_itself.voters == without.voters == (1, 2, 3)


def test_peers_in_toml_may_be_a_list() -> None:
    assert parsed("--config", "f", file='peers = ["2@b:2", "3@c:3"]').peers == {2: "b:2", 3: "c:3"}


@pytest.mark.parametrize(
    ("peers", "says"),
    [
        ("127.0.0.1:7101", "is not NODE@host:port"),
        ("x@127.0.0.1:7101", "is not NODE@host:port"),
        ("0@127.0.0.1:7101", "is not NODE@host:port"),
        ("1@127.0.0.1", "is not host:port"),
        ("1@127.0.0.1:99999", "is not host:port"),
        ("2@a:1,2@b:2", "node 2 is named twice"),
        ("2@:7101", "needs a host"),
    ],
)
def test_bad_peers_are_refused_with_an_example(peers: str, says: str) -> None:
    message = refusal("--peers", peers)
    assert message.startswith("--peers: ")
    assert says in message
    assert "1@127.0.0.1:7101,2@" in message or "needs a host" in message


def test_a_bad_value_names_the_place_it_came_from() -> None:
    assert refusal(environment={"SEATRIAL_DURABILITY": "yes"}).startswith("SEATRIAL_DURABILITY: 'yes' is none of")
    assert refusal("--config", "f.toml", file="heartbeat-ms = 0").startswith("f.toml: heartbeat-ms: 0 is not between")
    assert "no such option: heartbeet" in refusal("--config", "f.toml", file="heartbeet = 1")
    assert "not TOML" in refusal("--config", "f.toml", file="= 3")
    assert "No such file" in refusal("--config", "f.toml")


def test_a_missing_node_id_says_how_to_give_it() -> None:
    with pytest.raises(UsageError, match=r"--node-id is missing.*SEATRIAL_NODE_ID"):
        parse(["--data-dir", "d"], {}, no_file)


def test_unknown_flags_and_abbreviations_are_refused() -> None:
    assert "unrecognized" in refusal("--nod", "1")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("0", False), ("Yes", True)])
def test_booleans_are_read_from_any_source(text: str, value: bool) -> None:
    assert parsed("--fetch-from-followers", text).fetch_from_followers is value
    assert parsed(environment={"SEATRIAL_FETCH_FROM_FOLLOWERS": text}).fetch_from_followers is value


def test_a_boolean_in_toml_is_a_boolean() -> None:
    assert parsed("--config", "f", file="auto-create-topics = true").auto_create_topics is True
    assert parsed("--auto-create-topics").auto_create_topics is True


def test_kafka_is_advertised_where_it_listens_unless_told_otherwise() -> None:
    assert parsed("--kafka-addr", "127.0.0.9:9092").advertise_kafka == Address("127.0.0.9", 9092)
    assert parsed("--advertise-kafka", "[::1]:1").advertise_kafka == Address("::1", 1)


def test_http_beyond_loopback_needs_a_token() -> None:
    assert "--http-token" in refusal("--http-addr", "0.0.0.0:9644")
    assert "--http-token" in refusal("--http-addr", ":9644")
    assert parsed("--http-addr", "0.0.0.0:9644", "--http-token", "s").http_token == "s"


def test_an_election_timeout_below_three_heartbeats_is_refused() -> None:
    assert "three times" in refusal("--heartbeat-ms", "100", "--election-timeout-ms", "299")


def test_unsafe_switches_are_known_by_name_and_may_be_repeated() -> None:
    config = parsed("--unsafe", "stale-reads", "--unsafe", "forget-vote")
    assert config.unsafe == {"stale-reads", "forget-vote"}
    assert "is none of" in refusal("--unsafe", "everything")


def test_reads_take_a_round_trip_unless_leases_are_asked_for() -> None:
    assert not parsed().lease_reads
    assert parsed("--lease-reads", "true").lease_reads
    assert "--lease-reads" in refusal("--lease-reads", "perhaps")

"""What one node is told at start: from the command line, the environment and a TOML file, in that order of weight.

Rule: every option is one line of the table OPTIONS, so that its flag (`--raft-addr`), variable
(`SEATRIAL_RAFT_ADDR`) and TOML key (`raft-addr`) can never differ; a bad value is refused before anything is
opened, naming where it came from and showing a good one.  Imports as little as it can: the listening sockets wait
for it.  Knows nothing of how the values are used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeAlias

if TYPE_CHECKING:
    from seatrial.raft.ids import NodeId  # a type only: its package's import would triple this module's

Durability: TypeAlias = Literal["fsync", "os"]
TransportName: TypeAlias = Literal["framed", "grpc"]
ReplicaSelector: TypeAlias = Literal["rack", "load"]
UNSAFE_SWITCHES = frozenset({"ack-before-commit", "forget-vote", "stale-reads"})
LOG_LEVELS = ("debug", "info", "warning", "error")
JOIN_WAIT = "wait"  # --join wait: an operator adds the node
LEASE_READS_HELP = "the leader's lease answers reads, with no round trip; for clocks that differ by less than a tenth"
PEERS_EXAMPLE = "--peers 1@127.0.0.1:7101,2@127.0.0.1:7102,3@127.0.0.1:7103"


class UsageError(ValueError):
    """The command line, environment or file asks for something that cannot be; the message says what to do."""


class HelpShown(Exception):
    """`--help` was given."""


class Address(NamedTuple):
    """Where to listen or what to tell others; an empty host means every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A node's settings, checked.  `peers` holds other nodes' Raft addresses, never the node's own.

    `join`: None where the peers are those with which the cluster begins; else URLs of members to ask to be added by,
    none of them where somebody else will ask.
    """

    node_id: NodeId
    data_dir: str
    cluster_id: str = "seatrial"
    peers: Mapping[NodeId, str] = field(default_factory=dict)
    raft_addr: Address
    kafka_addr: Address
    http_addr: Address
    advertise_kafka: Address
    advertise_raft: Address | None = None  # None: raft_addr
    join: tuple[str, ...] | None = None
    transport: TransportName = "framed"
    raft_tls_cert: str = ""  # "": no TLS between nodes
    raft_tls_key: str = ""
    raft_tls_ca: str = ""  # "": the authorities that the system trusts, and callers need no certificate
    raft_tls_name: str = ""  # "": the host that is dialled
    rack: str = ""
    durability: Durability = "fsync"
    heartbeat_ms: int = 50
    election_timeout_ms: int = 300
    lease_reads: bool = False
    fetch_from_followers: bool = True
    follower_staleness_max_ms: int = 10_000
    replica_selector: ReplicaSelector = "rack"
    default_replication_factor: int = 3
    auto_create_topics: bool = False
    max_message_bytes: int = 1 << 20
    max_request_bytes: int = 100 << 20
    disk_reserve_bytes: int = 64 << 20
    max_connections: int = 0  # of Kafka clients; 0: no bound
    connections_max_idle_ms: int = 600_000
    request_arrival_max_ms: int = 60_000
    http_max_connections: int = 1000
    raft_max_connections: int = 1000
    http_token: str = ""
    log_level: str = "info"
    uvloop: bool = True
    unsafe: frozenset[str] = frozenset()
    test_hooks: bool = False
    group_coordinators: int = 3
    group_initial_rebalance_delay_ms: int = 100
    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    offsets_retention_minutes: int = 10_080

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """With which the cluster begins; none on a node that joins one."""
        if self.join is not None:
            return ()
        return tuple(sorted({self.node_id, *self.peers}))


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its TOML key and flag name, how its text is read, what it means."""

    name: str
    read: Callable[[str], Any]
    help: str
    default: str | None = None
    metavar: str = "VALUE"
    hidden: bool = False
    required: bool = False

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return f"SEATRIAL_{self.attribute.upper()}"


def read_address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port (for example 127.0.0.1:9092)")
    return Address(host.strip("[]"), int(port))


def read_integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return read


def read_boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def read_choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return read


def read_name(text: str) -> str:
    if not text or len(text) > 200 or not all(c.isalnum() or c in "._-" for c in text):
        raise ValueError(f"{text!r} is not a name of letters, digits, '.', '_' and '-'")
    return text


def read_peers(text: str) -> dict[NodeId, str]:
    """`1@host:port,2@host:port` as {1: "host:port", …}; the node's own entry may be there or not."""
    peers: dict[NodeId, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        number, at, address = item.partition("@")
        if not at or not number.isdigit() or not 1 <= int(number) <= 0xFFFF:
            raise ValueError(f"{item!r} is not NODE@host:port; write for example {PEERS_EXAMPLE}")
        try:
            parsed = read_address(address)
        except ValueError as error:
            raise ValueError(f"{item!r}: {error}; write for example {PEERS_EXAMPLE}") from None
        if not parsed.host or not parsed.port:
            raise ValueError(f"{item!r} needs a host and a port other than 0")
        node_id: NodeId = int(number)  # type: ignore[assignment]
        if node_id in peers:
            raise ValueError(f"node {number} is named twice; each node once, for example {PEERS_EXAMPLE}")
        peers[node_id] = str(parsed)
    return peers


def read_join(text: str) -> tuple[str, ...]:
    """`http://host:port,…` as a tuple; `wait` as none."""
    if text == JOIN_WAIT:
        return ()
    urls = tuple(filter(None, (part.strip().rstrip("/") for part in text.split(","))))
    for url in urls:
        scheme, separator, address = url.partition("://")
        if scheme != "http" or not separator:
            raise ValueError(f"{url!r} is not http://host:port of a member's HTTP API, nor the word {JOIN_WAIT}")
        read_address(address)
    if not urls:
        raise ValueError(f"give the HTTP address of a member, such as http://127.0.0.1:9644, or the word {JOIN_WAIT}")
    return urls


def read_unsafe(text: str) -> frozenset[str]:
    switches = frozenset(filter(None, (part.strip() for part in text.split(","))))
    if unknown := switches - UNSAFE_SWITCHES:
        raise ValueError(f"{', '.join(sorted(unknown))} is none of {', '.join(sorted(UNSAFE_SWITCHES))}")
    return switches


NODE_NUMBER = read_integer(1, 0xFFFF)
OPTIONS: tuple[Option, ...] = (
    Option("node-id", NODE_NUMBER, "this node's number, 1 or more, unique in the cluster", None, "N", required=True),
    Option("data-dir", str, "directory for the node's log and state", None, "DIR", required=True),
    Option("cluster-id", read_name, "name of the cluster; nodes of another one are refused", "seatrial", "NAME"),
    Option("peers", read_peers, "Raft addresses of all nodes: 1@host:port,2@host:port,…", "", "LIST"),
    Option(
        "join",
        read_join,
        "HTTP addresses of members to be added by: http://host:port,…; or 'wait' to be added by an operator "
        "(then with --peers); for a node that comes later",
        None,
        "LIST",
    ),
    Option("raft-addr", read_address, "where to listen for peers", "127.0.0.1:7101", "ADDR"),
    Option("kafka-addr", read_address, "where to listen for Kafka clients", "127.0.0.1:9092", "ADDR"),
    Option("http-addr", read_address, "where to listen for HTTP", "127.0.0.1:9644", "ADDR"),
    Option("advertise-kafka", read_address, "address told to Kafka clients (default: --kafka-addr)", None, "ADDR"),
    Option("advertise-raft", read_address, "address told to peers (default: --raft-addr)", None, "ADDR"),
    Option("transport", read_choice("framed", "grpc"), "how nodes talk; the same on all of them", "framed", "NAME"),
    Option("raft-tls-cert", str, "this node's certificate, in PEM: nodes talk over TLS", None, "FILE"),
    Option("raft-tls-key", str, "its key, in PEM and not encrypted", None, "FILE"),
    Option(
        "raft-tls-ca",
        str,
        "certificates, in PEM, of the authority that signs for this cluster's nodes: a peer must present one of it",
        None,
        "FILE",
    ),
    Option("raft-tls-name", str, "name that peers' certificates are for (default: the host dialled)", None, "NAME"),
    Option("rack", str, "the node's rack, for reads from the nearest replica", "", "NAME"),
    Option(
        "durability",
        read_choice("fsync", "os"),
        "fsync: acknowledged means on a majority of disks; os: in a majority of page caches",
        "fsync",
        "MODE",
    ),
    Option("heartbeat-ms", read_integer(1, 60_000), "how often a leader shows itself", "50", "MS"),
    Option(
        "election-timeout-ms",
        read_integer(5, 600_000),
        "silence after which a follower stands for election (random in one to two times this)",
        "300",
        "MS",
    ),
    Option("lease-reads", read_boolean, LEASE_READS_HELP, "false", "BOOL"),
    Option("fetch-from-followers", read_boolean, "followers serve what is committed", "true", "BOOL"),
    Option(
        "follower-staleness-max-ms",
        read_integer(0, 3_600_000),
        "how old what a follower shows may be, by its leader's word; 0: as old as it is",
        "10000",
        "MS",
    ),
    Option(
        "replica-selector",
        read_choice("rack", "load"),
        "where consumers read: rack: in their own rack, else from the leader; load: also those without one, wherever "
        "the fewest read",
        "rack",
        "NAME",
    ),
    Option("default-replication-factor", read_integer(1, 99), "for topics that ask for -1", "3", "N"),
    Option("auto-create-topics", read_boolean, "create topics that clients ask for", "false", "BOOL"),
    Option("max-message-bytes", read_integer(1024, 1 << 30), "largest record batch", str(1 << 20), "BYTES"),
    Option("max-request-bytes", read_integer(1024, 1 << 31), "largest Kafka request", str(100 << 20), "BYTES"),
    Option(
        "disk-reserve-bytes",
        read_integer(0, 1 << 50),
        "while the disk has less free, no records are taken (of leaders: half of it); 0: until a write fails",
        str(64 << 20),
        "BYTES",
    ),
    Option(
        "max-connections",
        read_integer(0, 1_000_000),
        "Kafka clients at once, more are turned away; 0: half as many as the process may open files",
        "0",
        "N",
    ),
    Option(
        "connections-max-idle-ms",
        read_integer(1_000, 86_400_000),
        "a client's connection is closed on which nothing was sent or taken for so long",
        "600000",
        "MS",
    ),
    Option(
        "request-arrival-max-ms",
        read_integer(1_000, 86_400_000),
        "a client's connection is closed whose request takes longer from its first byte to its last",
        "60000",
        "MS",
    ),
    Option("http-max-connections", read_integer(0, 1_000_000), "HTTP clients at once; 0: no bound", "1000", "N"),
    Option("raft-max-connections", read_integer(0, 1_000_000), "from peers at once; 0: no bound", "1000", "N"),
    Option("group-coordinators", read_integer(1, 1000), "shards of consumer groups, made with the first one", "3", "N"),
    Option(
        "group-initial-rebalance-delay-ms",
        read_integer(0, 600_000),
        "how long an empty consumer group waits for more members",
        "100",
        "MS",
    ),
    Option("group-min-session-timeout-ms", read_integer(1, 86_400_000), "of a consumer in a group", "6000", "MS"),
    Option("group-max-session-timeout-ms", read_integer(1, 86_400_000), "of a consumer in a group", "1800000", "MS"),
    Option(
        "offsets-retention-minutes",
        read_integer(1, 1 << 30),
        "how long offsets are kept after the last member left its group",
        "10080",
        "MIN",
    ),
    Option("http-token", str, "bearer token for HTTP; needed when --http-addr is not loopback", "", "TOKEN"),
    Option("log-level", read_choice(*LOG_LEVELS), "least severe event that is logged", "info", "LEVEL"),
    Option("uvloop", read_boolean, "use uvloop where it is installed", "true", "BOOL"),
    Option("unsafe", read_unsafe, "planted bugs, for testing the tests", "", "LIST", hidden=True),
    Option("test-hooks", read_boolean, "for tests: message filters over HTTP", "false", "BOOL"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise HelpShown


def argument_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="seatrial serve",
        description="One node of a Raft-replicated, Kafka-compatible log.  Each option can also be given as an "
        "environment variable (SEATRIAL_NODE_ID, …) or in a TOML file (node-id = 1); a flag beats the "
        "environment, the environment beats the file.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with any of these options")
    for option in OPTIONS:
        text = option.help + (f" (default {option.default})" if option.default else "")
        parser.add_argument(
            f"--{option.name}",
            metavar=option.metavar,
            help=argparse.SUPPRESS if option.hidden else text,
            nargs="?" if option.read is read_boolean else None,
            const="true" if option.read is read_boolean else None,
            action="append" if option.name == "unsafe" else "store",
        )
    return parser


def _text(value: object) -> str:
    """A TOML value, or a flag's, as the text that the option's reader takes."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_file(path: str, read_file: Callable[[str], bytes]) -> dict[str, Any]:
    import tomllib  # only where there is a file: nodes should listen soon after their start

    try:
        table = tomllib.loads(read_file(path).decode())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not TOML: {error}") from None
    known = {option.name: option for option in OPTIONS}
    values = {str(key).replace("_", "-"): value for key, value in table.items()}
    if unknown := sorted(values.keys() - known.keys()):
        raise UsageError(f"--config {path}: no such option: {', '.join(unknown)}")
    return values


def parse(arguments: Sequence[str], environment: Mapping[str, str], read_file: Callable[[str], bytes]) -> ServerConfig:
    """The checked settings.

    Raises:
        UsageError: anything missing, unknown, malformed or contradictory.
        HelpShown: `--help` was asked for, and is printed.
    """
    flags = vars(argument_parser().parse_args(list(arguments)))
    config_file = flags.pop("config") or environment.get("SEATRIAL_CONFIG")
    table = _from_file(config_file, read_file) if config_file else {}
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if flags[option.attribute] is not None:
            source, given = f"--{option.name}", flags[option.attribute]
        elif option.variable in environment:
            source, given = option.variable, environment[option.variable]
        elif option.name in table:
            source, given = f"{config_file}: {option.name}", table[option.name]
        elif option.default is not None:
            source, given = f"--{option.name}", option.default
        elif option.required:
            raise UsageError(f"--{option.name} is missing: {option.help} (or set {option.variable})")
        else:
            continue
        try:
            values[option.attribute] = option.read(_text(given))
        except ValueError as error:
            raise UsageError(f"{source}: {error}") from None
    return _checked(values)


def _checked(values: dict[str, Any]) -> ServerConfig:
    values.setdefault("advertise_kafka", values["kafka_addr"])
    node_id, peers = values["node_id"], dict(values["peers"])
    peers.pop(node_id, None)
    values["peers"] = peers
    if values.get("join") == () and not peers:
        raise UsageError(f"--join {JOIN_WAIT} needs --peers, whose connections are to be accepted: {PEERS_EXAMPLE}")
    heartbeat, election = values["heartbeat_ms"], values["election_timeout_ms"]
    if election < 3 * heartbeat:
        raise UsageError(
            f"--election-timeout-ms {election} is less than three times --heartbeat-ms {heartbeat}: one lost "
            "heartbeat would start an election; raise the one or lower the other"
        )
    cert, key, ca, name = (bool(values.get(f"raft_tls_{part}")) for part in ("cert", "key", "ca", "name"))
    if cert != key or ((ca or name) and not cert):
        raise UsageError(
            "--raft-tls-cert and --raft-tls-key go together, and --raft-tls-ca and --raft-tls-name need both: "
            "give the node's certificate, its key and, where peers must show one too, that of the cluster's authority"
        )
    http: Address = values["http_addr"]
    if not http.is_loopback and not values["http_token"]:
        raise UsageError(
            f"--http-addr {http} can be reached from other machines and would serve anyone: "
            "give --http-token (or SEATRIAL_HTTP_TOKEN), or listen on 127.0.0.1"
        )
    return ServerConfig(**values)

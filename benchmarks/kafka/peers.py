"""The peers that are compared: how each is fetched, prepared and started.

Rule: a peer is a command line for each node and nothing else; all are started, watched, killed and cleared away by the
same code (nodes.py), and every option that differs from a peer's default stands here with its reason.
Knows nothing of what is measured.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from seatrial.cluster.drivers.base import NodePlace
from seatrial.cluster.drivers.own import OwnDriver, rack_of
from seatrial.cluster.errors import Unavailable

KAFKA_VERSION: Final = "4.3.0"
# Small heap, as issue and aims have it; the rest is what Kafka's own kafka-run-class.sh gives the JVM.
KAFKA_JVM: Final = (
    "-Xmx256m", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
)  # fmt: skip
MAVEN_DEADLINE_S: Final = 600
FORMAT_DEADLINE_S: Final = 180
MOCK_START_DEADLINE_S: Final = 10


class Peer(Protocol):
    """One system.  `durability` is "os" (acknowledged: in page caches) or "fsync" (on disks)."""

    name: str
    processes: int  # that make up its three nodes
    ports: Mapping[str, int]  # service -> port of a node's own address
    has_admin: bool  # whether topics can be asked for; where not, the first use makes them

    def unavailable(self) -> str | None:
        """Why it cannot run here, or None."""

    def prepare(self) -> None:
        """Fetch what it needs, once for all runs.  Raises Unavailable."""

    def lay_out(self, place: NodePlace, durability: str) -> None:
        """Write what a node must find before its first start.  Raises Unavailable."""

    def command(self, place: NodePlace, durability: str) -> tuple[str, ...]: ...

    def bootstrap(self, places: Mapping[int, NodePlace]) -> str:
        """The Kafka addresses, once its processes are started."""


class Own:
    """Seatrial's own server at its defaults, but for the durability that is asked for."""

    name = "seatrial"
    processes = 3
    ports: Mapping[str, int] = OwnDriver.ports
    has_admin = True

    def unavailable(self) -> str | None:
        return None

    def prepare(self) -> None:
        """Nothing: it is this installation."""

    def lay_out(self, place: NodePlace, durability: str) -> None:
        place.directory.mkdir(parents=True)

    def command(self, place: NodePlace, durability: str) -> tuple[str, ...]:
        return OwnDriver(options={"durability": durability, "log_level": "warning"}).command(place).argv

    def bootstrap(self, places: Mapping[int, NodePlace]) -> str:
        return ",".join(place.listen["kafka"] for place in places.values())


class ApacheKafka:
    """Apache Kafka in KRaft mode, every node broker and controller, jars from Maven."""

    name = "Kafka"
    processes = 3
    ports: Mapping[str, int] = {"peer": 9093, "kafka": 9092}
    has_admin = True

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._jars = cache / "seatrial" / f"kafka-java-{KAFKA_VERSION}"

    def unavailable(self) -> str | None:
        if shutil.which("java") is None:
            return "java is not installed (Debian: default-jdk-headless)"
        if not self._is_fetched() and shutil.which("mvn") is None:
            return (
                f"Kafka's jars are not in {self._jars}, and mvn, which fetches them, is not installed (Debian: maven)"
            )
        return None

    def prepare(self) -> None:
        if self._is_fetched():
            return
        artifacts = (
            ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
            ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
            ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
        )
        with tempfile.TemporaryDirectory() as directory:
            project = Path(directory) / "pom.xml"
            project.write_text(_maven_project(artifacts))
            command = ["mvn", "-q", "-B", "-f", str(project), "dependency:copy-dependencies"]
            _run([*command, f"-DoutputDirectory={self._jars}"], MAVEN_DEADLINE_S)

    def lay_out(self, place: NodePlace, durability: str) -> None:
        place.directory.mkdir(parents=True)
        settings = self._settings(place, durability)
        self._properties(place).write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # Any cluster id does: 16 bytes in base64.
        tool = ("kafka.tools.StorageTool", "format", "-t", "c2VhdHJpYWwtYmVuY2htYQ", "-c", str(self._properties(place)))
        command = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{self._jars}/*", *tool]
        _run(command, FORMAT_DEADLINE_S)

    def command(self, place: NodePlace, durability: str) -> tuple[str, ...]:
        return ("java", *KAFKA_JVM, "-cp", f"{self._jars}/*", "kafka.Kafka", str(self._properties(place)))

    def bootstrap(self, places: Mapping[int, NodePlace]) -> str:
        return ",".join(place.listen["kafka"] for place in places.values())

    def _is_fetched(self) -> bool:
        return (self._jars / f"kafka_2.13-{KAFKA_VERSION}.jar").exists()

    def _properties(self, place: NodePlace) -> Path:
        return place.directory / "server.properties"

    def _settings(self, place: NodePlace, durability: str) -> dict[str, str]:
        broker, controller = place.listen["kafka"], place.listen["peer"]
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(place.node),
            "controller.quorum.voters": ",".join(f"{node}@{address}" for node, address in place.peers.items()),
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(place.directory / "data"),
            "auto.create.topics.enable": "false",
            # The promise that a majority of our replicas makes: two of three hold what is acknowledged.
            "min.insync.replicas": "2",
            # Reads from the nearest replica, as ours has it by default.
            "broker.rack": rack_of(place.node),
            "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
        }
        if durability == "fsync":
            settings["log.flush.interval.messages"] = "1"  # the broker's default of the topics' flush.messages
        return settings


class LibrdkafkaMock:
    """librdkafka's mock cluster: three brokers in one process and in memory; what the client alone can reach."""

    name = "mock"
    processes = 1
    ports: Mapping[str, int] = {"peer": 0}
    has_admin = False

    def unavailable(self) -> str | None:
        return None

    def prepare(self) -> None:
        """Nothing: it comes with confluent-kafka."""

    def lay_out(self, place: NodePlace, durability: str) -> None:
        assert durability == "os", "it keeps nothing on disk"
        place.directory.mkdir(parents=True)

    def command(self, place: NodePlace, durability: str) -> tuple[str, ...]:
        return (sys.executable, str(Path(__file__).with_name("mock_cluster.py")), str(_mock_addresses(place)))

    def bootstrap(self, places: Mapping[int, NodePlace]) -> str:
        addresses = _mock_addresses(places[1])
        deadline = time.monotonic() + MOCK_START_DEADLINE_S
        while not addresses.exists():
            if time.monotonic() > deadline:
                raise Unavailable(f"librdkafka's mock cluster did not start within {MOCK_START_DEADLINE_S} s")
            time.sleep(0.005)
        return addresses.read_text()


def _run(command: list[str], deadline_s: float) -> None:
    """Run one of Java's tools to its end.  Raises Unavailable with the end of what it printed when it does badly."""
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} did not end within {deadline_s:.0f} s: {' '.join(command)}") from error
    if ended.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {ended.stdout[-2000:]}")


def _mock_addresses(place: NodePlace) -> Path:
    return place.directory / "bootstrap"


def _maven_project(artifacts: tuple[tuple[str, str, str], ...]) -> str:
    wanted = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in artifacts
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>seatrial</groupId>'
        f"<artifactId>benchmark</artifactId><version>1</version><dependencies>{wanted}</dependencies></project>"
    )


PEERS: Final[Mapping[str, Peer]] = {peer.name: peer for peer in (Own(), ApacheKafka(), LibrdkafkaMock())}

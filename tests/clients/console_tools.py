"""What is claimed of Kafka's console tools, once for all versions.

Knows nothing of how their JVM is started.
"""

from __future__ import annotations

from collections.abc import Callable

from client_brokers import Brokers
from java_client import run_tool

TOOLS = "org.apache.kafka.tools"


def creates_and_describes_a_topic(version: str, brokers: Brokers) -> None:
    """`kafka-topics` creates and describes a topic."""
    topic = brokers.unused_topic()
    command = (version, f"{TOOLS}.TopicCommand", "--bootstrap-server", brokers.bootstrap)
    shape = ("--partitions", "2", "--replication-factor", "3")
    assert f"Created topic {topic}." in run_tool(*command, "--create", "--topic", topic, *shape)
    described = run_tool(*command, "--describe", "--topic", topic)
    assert "PartitionCount: 2" in described and "ReplicationFactor: 3" in described


def gives_back_from_a_follower_what_it_was_given(version: str, brokers: Brokers) -> None:
    """`kafka-console-consumer` prints from a follower, to the byte, what `kafka-console-producer` was given, and
    `kafka-consumer-groups` shows how far it came."""
    topic = brokers.create_topic()
    given = "".join(f"line {number} with an é\n" for number in range(500))
    producer = f"{TOOLS}.ConsoleProducer" if version >= "4" else "kafka.tools.ConsoleProducer"
    run_tool(version, producer, "--bootstrap-server", brokers.bootstrap, "--topic", topic, given=given.encode())
    brokers.wait_for_records(topic, 500)
    leader = brokers.leader_of(topic)
    follower = next(node for node in brokers.addresses if node != leader)
    setting = "--command-property" if version >= "4" else "--consumer-property"
    printed = run_tool(
        version,
        f"{TOOLS}.consumer.ConsoleConsumer",
        *("--bootstrap-server", brokers.bootstrap, "--topic", topic, "--from-beginning", "--max-messages", "500"),
        *("--group", f"console-{topic}", setting, f"client.rack={brokers.rack_of(follower)}"),
    )
    assert printed == given
    assert brokers.fetched_bytes(follower, topic) > 0
    assert brokers.fetched_bytes(leader, topic) == 0
    _shows_offsets(version, brokers, f"console-{topic}", 500)


def _shows_offsets(version: str, brokers: Brokers, group: str, offset: int) -> None:
    """Partition, current offset, end offset and lag, as printed."""
    shown = run_tool(
        version,
        f"{TOOLS}.consumer.group.ConsumerGroupCommand",
        *("--bootstrap-server", brokers.bootstrap, "--describe", "--group", group),
    )
    (line,) = (line.split() for line in shown.splitlines() if line.startswith(group))
    assert line[2:6] == ["0", str(offset), str(offset), "0"]


def shows_configurations(version: str, brokers: Brokers) -> None:
    """`kafka-configs` shows a topic's configuration."""
    topic = brokers.create_topic()
    shown = run_tool(
        version,
        "kafka.admin.ConfigCommand",
        *("--bootstrap-server", brokers.bootstrap, "--describe", "--all", "--entity-type", "topics"),
        *("--entity-name", topic),
    )
    assert "max.message.bytes=" in shown


TOOL_CLAIMS: tuple[Callable[[str, Brokers], None], ...] = (
    creates_and_describes_a_topic,
    gives_back_from_a_follower_what_it_was_given,
    shows_configurations,
)

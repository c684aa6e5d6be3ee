"""What is claimed of every client, each claim once.

Rule: a claim fails where the client or the broker does other than Kafka's documentation promises; it never asks how.
What a client cannot do by itself is in its profile; what the broker does not serve yet is seen from `needs`.
Knows nothing of any one client.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from client_brokers import Brokers, until
from client_under_test import DEADLINE_S, EARLIEST, LATEST, Client, Producing, Profile, Record

from seatrial.kafka.apis import APIS

Check = Callable[[Client, Brokers], None]


@dataclass(frozen=True, slots=True)
class Claim:
    """`needs`: Kafka's number of the request without which the broker cannot keep it."""

    name: str
    text: str
    check: Check
    needs: int | None = None

    @property
    def is_served(self) -> bool:
        return self.needs is None or self.needs in APIS


CLAIMS: list[Claim] = []


def claim(text: str, *, needs: int | None = None) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        CLAIMS.append(Claim(check.__name__, text, check, needs))
        return check

    return add


def claims_for(profile: Profile) -> list[Claim]:
    """All but those that the client itself has no way to keep."""
    assert profile.cannot.keys() <= {one.name for one in CLAIMS}
    return [one for one in CLAIMS if one.name not in profile.cannot]


def hold(one: Claim, client: Client, brokers: Brokers) -> None:
    """Check the claim; one that the broker does not serve yet is an expected failure."""
    if not one.is_served:
        pytest.xfail(f"the broker does not serve request {one.needs} yet")
    one.check(client, brokers)


def numbers(first: int, last: int) -> list[Record]:
    """Records whose values are the numbers from `first` to before `last`."""
    return [Record(b"%d" % number) for number in range(first, last)]


def read_values(client: Client, topic: str, count: int) -> list[bytes]:
    return [found.value for found in client.read(topic, 0, count)]


# ---- writing -------------------------------------------------------------------------------------------------------


@claim("creates a topic with three partitions on three nodes")
def creates_topics(client: Client, brokers: Brokers) -> None:
    topic = brokers.unused_topic()
    client.create_topic(topic, 3)
    assert {brokers.leader_of(topic, partition) for partition in range(3)} <= set(brokers.addresses)


def _written(client: Client, brokers: Brokers, how: Producing) -> str:
    """Fifty records written and read again; the topic."""
    topic = brokers.create_topic()
    told = client.produce(topic, numbers(0, 50), how)
    assert told in ([], list(range(50)))
    assert read_values(client, topic, 50) == [b"%d" % number for number in range(50)]
    return topic


@claim("writes with `acks=0`")
def produces_without_acknowledgement(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 50), Producing(acks=0))
    assert read_values(client, topic, 50) == [b"%d" % number for number in range(50)]


@claim("writes with `acks=1`")
def produces_to_the_leader(client: Client, brokers: Brokers) -> None:
    _written(client, brokers, Producing(acks=1))


@claim("writes with `acks=all`")
def produces_to_all(client: Client, brokers: Brokers) -> None:
    topic = _written(client, brokers, Producing(acks=-1))
    assert {batch.producer_id for batch in brokers.stored_batches(topic)} == {-1}


@claim("writes as an idempotent producer")
def produces_idempotently(client: Client, brokers: Brokers) -> None:
    topic = _written(client, brokers, Producing(idempotent=True))
    assert all(batch.producer_id >= 0 for batch in brokers.stored_batches(topic))


@claim("keeps keys, headers, empty values and timestamps")
def keeps_keys_headers_and_times(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    written = [
        Record(b"value", b"key", (("h", b"1"), ("h", b"2")), 1_600_000_000_000),
        Record(b"", "clé".encode(), (("empty", b""),), 1_600_000_000_001),
        Record(bytes(range(256)) * 100, b"large", (), 1_600_000_000_002),
    ]
    client.produce(topic, written, Producing())
    found = client.read(topic, 0, 3)
    assert [Record(*one[1:]) for one in found] == written
    assert [one.offset for one in found] == [0, 1, 2]


def compresses(codec: str) -> Check:
    def check(client: Client, brokers: Brokers) -> None:
        topic = brokers.create_topic()
        values = [b"%d " % number * 200 for number in range(50)]
        client.produce(topic, [Record(value) for value in values], Producing(codec=codec))
        assert {batch.codec for batch in brokers.stored_batches(topic)} == {codec}
        assert read_values(client, topic, 50) == values

    check.__name__ = f"compresses_with_{codec}"
    return check


for _codec in ("gzip", "snappy", "lz4", "zstd"):
    claim(f"writes and reads {_codec}")(compresses(_codec))


# ---- reading -------------------------------------------------------------------------------------------------------


@claim("reads an assigned partition from an offset")
def reads_by_assignment(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 60), Producing())
    found = client.read(topic, 25, 35)
    assert [(one.offset, one.value) for one in found] == [(number, b"%d" % number) for number in range(25, 60)]


@claim("reads as a group, commits, and resumes where it stopped")
def reads_as_a_group_and_resumes(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 60), Producing())
    group = f"group of {topic}"
    assert client.read_as_group(group, topic, 20) == list(range(20))
    assert client.read_as_group(group, topic, 40) == list(range(20, 60))


@claim("reads all partitions of a topic as a group")
def reads_all_partitions_as_a_group(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic(3)
    brokers.fill(topic, [(b"%d" % number, 0) for number in range(60)], partitions=3)
    assert sorted(client.read_as_group(f"group of {topic}", topic, 60)) == list(range(60))


@claim("finds offsets: first, next, and by time")
def lists_offsets(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    begin = 1_600_000_000_000
    brokers.fill(topic, [(b"x", begin + 1000 * number) for number in range(30)])
    assert client.offset_at(topic, EARLIEST) == 0
    assert client.offset_at(topic, LATEST) == 30
    assert client.offset_at(topic, begin + 12_000) == 12
    assert client.offset_at(topic, begin + 12_001) == 13


@claim("reads from a follower in its rack")
def reads_from_a_follower(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 100), Producing())
    brokers.wait_for_records(topic, 100)
    leader = brokers.leader_of(topic)
    follower = next(node for node in brokers.addresses if node != leader)
    found = client.read(topic, 0, 100, rack=brokers.rack_of(follower))
    assert [(one.offset, one.value) for one in found] == [(number, b"%d" % number) for number in range(100)]
    assert brokers.fetched_bytes(follower, topic) > 0
    assert brokers.fetched_bytes(leader, topic) == 0


# ---- administration ------------------------------------------------------------------------------------------------


@claim("lists and describes topics")
def describes_topics(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic(2)
    assert topic in client.admin("list_topics")
    assert client.admin("replicas_of", topic=topic) == {0: [1, 2, 3], 1: [1, 2, 3]}


@claim("deletes a topic")
def deletes_topics(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    assert topic in client.admin("list_topics")
    client.admin("delete_topic", topic=topic)
    until(lambda: client.admin("list_topics"), lambda topics: topic not in topics)


@claim("describes the cluster")
def describes_the_cluster(client: Client, brokers: Brokers) -> None:
    assert sorted(client.admin("node_ids")) == [1, 2, 3]


@claim("reads the configuration of topics and brokers")
def reads_configurations(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    assert int(client.admin("topic_config", topic=topic)["max.message.bytes"]) > 0
    for node in brokers.addresses:
        assert client.admin("broker_config", node=node)["broker.id"] == str(node)


@claim("changes a topic's configuration", needs=44)
def changes_configurations(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.admin("set_topic_config", topic=topic, name="retention.ms", value="86400000")
    until(lambda: client.admin("topic_config", topic=topic), lambda config: config["retention.ms"] == "86400000")


@claim("adds partitions to a topic", needs=37)
def adds_partitions(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.admin("set_partition_count", topic=topic, count=3)
    until(lambda: client.admin("replicas_of", topic=topic), lambda replicas: len(replicas) == 3)


@claim("deletes records before an offset", needs=21)
def deletes_records(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 30), Producing())
    client.admin("delete_records", topic=topic, before=12)
    until(lambda: client.offset_at(topic, EARLIEST), lambda first: first == 12)


@claim("lists and describes groups, and sees their offsets")
def administers_groups(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 30), Producing())
    group = f"group-of-{topic}"
    client.read_as_group(group, topic, 10)
    assert group in client.admin("list_groups")
    assert client.admin("group_state", group=group).lower() == "empty"
    assert client.admin("group_offsets", group=group, topic=topic) == {0: 10}


@claim("deletes a group")
def deletes_groups(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 10), Producing())
    group = f"group-of-{topic}"
    client.read_as_group(group, topic, 5)
    client.admin("delete_group", group=group)
    assert client.read_as_group(group, topic, 5) == list(range(5))


@claim("sets a group's offsets")
def sets_group_offsets(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 30), Producing())
    group = f"group-of-{topic}"
    client.read_as_group(group, topic, 20)
    client.admin("set_group_offset", group=group, topic=topic, offset=5)
    assert client.admin("group_offsets", group=group, topic=topic) == {0: 5}
    assert client.read_as_group(group, topic, 5) == list(range(5, 10))


@claim("deletes a group's offsets")
def deletes_group_offsets(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 30), Producing())
    group = f"group-of-{topic}"
    client.read_as_group(group, topic, 20)
    client.admin("delete_group_offset", group=group, topic=topic)
    assert client.admin("group_offsets", group=group, topic=topic) == {}


@claim("elects the preferred leader", needs=43)
def elects_preferred_leaders(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    preferred = brokers.preferred_leader(topic)
    brokers.move_leadership(topic, to=next(node for node in brokers.addresses if node != preferred))
    client.admin("elect_preferred_leader", topic=topic)
    until(lambda: brokers.leader_of(topic), lambda leader: leader == preferred)


@claim("moves a partition's replicas", needs=45)
def moves_replicas(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 30), Producing())
    client.admin("reassign", topic=topic, replicas=[2, 3])
    until(lambda: client.admin("replicas_of", topic=topic), lambda replicas: replicas == {0: [2, 3]})
    assert read_values(client, topic, 30) == [b"%d" % number for number in range(30)]


@claim("describes log directories", needs=35)
def describes_log_directories(client: Client, brokers: Brokers) -> None:
    topic = brokers.create_topic()
    client.produce(topic, numbers(0, 30), Producing())
    brokers.wait_for_records(topic, 30)
    sizes = client.admin("partition_sizes", topic=topic)
    assert sorted(sizes) == [1, 2, 3] and all(size > 0 for size in sizes.values())


# ---- failure (last, because the cluster has to recover from it) ----------------------------------------------------


@claim("writes and reads on, without loss, order or duplicate, when the leader is killed in mid-stream")
def survives_the_leader(client: Client, brokers: Brokers) -> None:
    topic, total = brokers.create_topic(), 200
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(client.read, topic, 0, total)
        writing = threads.submit(client.produce, topic, numbers(0, total), Producing(idempotent=True, pause_s=0.005))
        leader = brokers.leader_of(topic)
        until(lambda: brokers.high_watermark(leader, topic), lambda count: count >= total // 4)
        brokers.kill(leader)
        try:
            told, found = writing.result(2 * DEADLINE_S), reading.result(2 * DEADLINE_S)
        finally:
            brokers.start(leader)
    assert told in ([], list(range(total)))
    assert [(one.offset, one.value) for one in found] == [(number, b"%d" % number) for number in range(total)]

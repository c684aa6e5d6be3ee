"""Consumer groups of real clients on three nodes as processes: shared, rebalanced, resumed, carried over a crash."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from server_processes import Server, Servers, servers
from server_processes import until as until_within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
PARTITIONS = 6
PASSING = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR, KafkaError._TIMED_OUT)
GROUP_OPTIONS = ("--group-min-session-timeout-ms", "500")


def until(condition: Callable[[], Any], what: Callable[[], object]) -> Any:
    """Longer than elsewhere: members commit record by record, each by a sync on two disks, on whatever machine."""
    return until_within(condition, what, 60.0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three nodes for the tests that kill nobody."""
    with servers(tmp_path_factory.mktemp("groups"), 3, *GROUP_OPTIONS) as started:
        yield started


_topics = itertools.count()


def filled_topic(cluster: Servers, records: int = 60, partitions: int = PARTITIONS) -> str:
    """A new topic with so many records, spread over its partitions in turn."""
    name = f"t{next(_topics)}"
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(name, partitions, 3)])[name].result(20)
    produce(cluster, name, range(records), partitions)
    return name


def produce(cluster: Servers, topic: str, numbers: range, partitions: int = PARTITIONS) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "enable.idempotence": True})
    for number in numbers:
        producer.produce(topic, b"%d" % number, partition=number % partitions)
    assert producer.flush(30) == 0


class Member:
    """A confluent-kafka consumer in a thread of its own, as an application would have it."""

    def __init__(self, cluster: Servers, group: str, topic: str, **config: Any) -> None:
        settings = {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 3000,
            "heartbeat.interval.ms": 200,
            "log_level": 0,
        }
        settings |= {key.replace("_", "."): value for key, value in config.items()}
        self.values: list[int] = []
        self.offsets: dict[int, int] = {}  # acknowledged commits, by partition
        self.assigned: set[int] = set()
        self.rebalances = 0
        self.lost = 0
        self.errors: list[KafkaError] = []
        self.commits = bool(config.get("commits", True))
        settings.pop("commits", None)
        self._cooperative = settings.get("partition.assignment.strategy") == "cooperative-sticky"
        self._consumer = Consumer(settings)
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.rebalances += 1
        numbers = {p.partition for p in partitions}
        self.assigned = self.assigned | numbers if self._cooperative else numbers

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.lost += len(partitions)
        self.assigned -= {p.partition for p in partitions}

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                self.errors.append(error)
                continue
            value, partition, offset = message.value(), message.partition(), message.offset()
            assert value is not None and partition is not None and offset is not None
            self.values.append(int(value))
            if self.commits:
                self._commit(message, partition, offset + 1)

    def _commit(self, message: Any, partition: int, offset: int) -> None:
        try:
            done = self._consumer.commit(message=message, asynchronous=False)
        except KafkaException as failed:
            self.errors.append(failed.args[0])
            return
        if done and done[0].error is None:
            self.offsets[partition] = offset

    def stop(self) -> None:
        """Leave the group, unless it is a static member."""
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._consumer.close()


MEMBER = """
import json, sys
from confluent_kafka import Consumer
config, topic = json.loads(sys.argv[1]), sys.argv[2]
consumer = Consumer(config)
consumer.subscribe([topic], on_assign=lambda c, ps: print(*(p.partition for p in ps), flush=True))
while True:
    consumer.poll(0.1)
"""


@contextmanager
def member_process(cluster: Servers, group: str, topic: str, **config: Any) -> Iterator[subprocess.Popen[str]]:
    """A member that can be killed without a word to its group; it prints each assignment, partitions on a line."""
    settings = {"bootstrap.servers": cluster.bootstrap, "group.id": group, "log_level": 0, **config}
    command = [sys.executable, "-c", MEMBER, json.dumps(settings), topic]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def assigned_to(process: subprocess.Popen[str]) -> set[int]:
    """The next assignment that it gets."""
    assert process.stdout is not None
    return set(map(int, process.stdout.readline().split()))


@contextmanager
def members(count: int, cluster: Servers, group: str, topic: str, **config: Any) -> Iterator[list[Member]]:
    started = [Member(cluster, group, topic, **config) for _ in range(count)]
    try:
        yield started
    finally:
        for member in started:
            if not member._stop.is_set():
                member.stop()


def asked(question: Callable[[], Any]) -> Any:
    """An administrator's question, asked again where an election on a busy machine was in the way."""
    failed: list[KafkaException] = []

    def answer() -> Any:
        try:
            return [question()]
        except KafkaException as error:
            if error.args[0].code() not in PASSING:
                raise
            failed.append(error)
            return None

    return until(answer, lambda: failed)[0]


def committed(cluster: Servers, group: str, topic: str, partitions: int = PARTITIONS) -> dict[int, int]:
    """By partition, as an administrator sees it; partitions without a commit are left out."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in range(partitions)])
    found = asked(lambda: admin.list_consumer_group_offsets([wanted])[group].result(20))
    return {tp.partition: tp.offset for tp in found.topic_partitions if tp.offset >= 0}


def described(cluster: Servers, group: str) -> Any:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    return asked(lambda: admin.describe_consumer_groups([group])[group].result(20))


def shares(group: list[Member]) -> list[set[int]]:
    return [member.assigned for member in group]


def is_shared(group: list[Member], partitions: int = PARTITIONS) -> bool:
    """Every partition has exactly one of them, and each of them has its fair share."""
    everything = Counter(itertools.chain.from_iterable(shares(group)))
    fair = partitions // len(group)
    return everything == Counter(range(partitions)) and all(len(share) >= fair for share in shares(group))


# ---- confluent-kafka (librdkafka) ----------------------------------------------------------------------------------


def test_members_share_the_partitions_and_hand_them_on_when_one_leaves(shared: Servers) -> None:
    topic = filled_topic(shared)
    with members(3, shared, "share", topic) as group:
        until(lambda: is_shared(group), lambda: shares(group))
        until(lambda: {n for m in group for n in m.values} >= set(range(60)), lambda: [m.values for m in group])
        until(lambda: sum(committed(shared, "share", topic).values()) == 60, lambda: committed(shared, "share", topic))
        group[0].stop()
        until(lambda: is_shared(group[1:]), lambda: shares(group))
        produce(shared, topic, range(60, 120))
        until(lambda: {n for m in group for n in m.values} >= set(range(120)), lambda: [m.values for m in group])


def test_a_member_that_dies_without_a_word_is_missed_when_its_session_ends(shared: Servers) -> None:
    topic = filled_topic(shared)
    short = {"session.timeout.ms": 1000, "heartbeat.interval.ms": 200}
    with members(1, shared, "dies", topic) as (lives,), member_process(shared, "dies", topic, **short) as dies:
        assert len(assigned_to(dies)) == PARTITIONS // 2
        until(lambda: len(lives.assigned) == PARTITIONS // 2, lambda: lives.assigned)
        dies.kill()
        until(lambda: len(lives.assigned) == PARTITIONS, lambda: lives.assigned)


def test_a_group_goes_on_where_it_had_committed(shared: Servers) -> None:
    topic = filled_topic(shared)
    with members(1, shared, "resume", topic) as (first,):
        until(lambda: sum(first.offsets.values()) == 60, lambda: first.offsets)
    assert described(shared, "resume").state.name == "EMPTY"
    produce(shared, topic, range(60, 90))
    with members(1, shared, "resume", topic) as (second,):
        until(lambda: sum(second.offsets.values()) == 90, lambda: second.offsets)
    assert sorted(second.values) == list(range(60, 90))


def test_a_cooperative_rebalance_takes_from_nobody_more_than_it_must(shared: Servers) -> None:
    topic = filled_topic(shared)
    how: Any = {"partition_assignment_strategy": "cooperative-sticky"}
    with members(2, shared, "cooperative", topic, **how) as group:
        until(lambda: is_shared(group), lambda: shares(group))
        for member in group:
            member.lost = 0
        kept = [set(member.assigned) for member in group]
        group.append(Member(shared, "cooperative", topic, **how))
        until(lambda: is_shared(group), lambda: shares(group))
        assert [member.lost for member in group] == [1, 1, 0]
        assert all(len(member.assigned & before) == 2 for member, before in zip(group, kept, strict=False))


def test_a_static_member_is_restarted_without_a_rebalance(shared: Servers) -> None:
    topic = filled_topic(shared)
    how: Any = {"group.instance.id": "two", "session.timeout.ms": 20_000}
    with members(1, shared, "static", topic, group_instance_id="one", session_timeout_ms=20_000) as (one,):
        with member_process(shared, "static", topic, **how) as two:
            mine = assigned_to(two)
            assert len(mine) == PARTITIONS // 2
            until(lambda: len(one.assigned) == PARTITIONS // 2, lambda: one.assigned)
        one.rebalances = one.lost = 0
        with member_process(shared, "static", topic, **how) as again:
            assert assigned_to(again) == mine
            found = described(shared, "static")
            assert found.state.name == "STABLE"
            assert {member.group_instance_id for member in found.members} == {"one", "two"}
            assert (one.rebalances, one.lost) == (0, 0)


def test_an_administrator_sees_and_deletes_groups(shared: Servers) -> None:
    topic = filled_topic(shared)
    admin = AdminClient({"bootstrap.servers": shared.bootstrap})
    with members(1, shared, "admin", topic) as (member,):
        until(lambda: sum(member.offsets.values()) == 60, lambda: member.offsets)
        found = described(shared, "admin")
        assert (found.state.name, found.partition_assignor, len(found.members)) == ("STABLE", "range", 1)
        assert {tp.partition for tp in found.members[0].assignment.topic_partitions} == set(range(PARTITIONS))
        listed = {group.group_id: group.state.name for group in admin.list_consumer_groups().result(20).valid}
        assert listed["admin"] == "STABLE"
        with pytest.raises(KafkaException, match="NON_EMPTY_GROUP"):
            admin.delete_consumer_groups(["admin"])["admin"].result(20)
    listed = {group.group_id: group.state.name for group in admin.list_consumer_groups().result(20).valid}
    assert listed["admin"] == "EMPTY"
    set_back = ConsumerGroupTopicPartitions("admin", [TopicPartition(topic, 0, 3)])
    admin.alter_consumer_group_offsets([set_back])["admin"].result(20)
    assert committed(shared, "admin", topic)[0] == 3
    admin.delete_consumer_groups(["admin"])["admin"].result(20)
    assert committed(shared, "admin", topic) == {}
    assert "admin" not in {group.group_id for group in admin.list_consumer_groups().result(20).valid}
    with pytest.raises(KafkaException, match="GROUP_ID_NOT_FOUND"):
        admin.delete_consumer_groups(["admin"])["admin"].result(20)


def test_a_new_topic_of_an_old_name_is_read_from_its_beginning(shared: Servers) -> None:
    topic = filled_topic(shared)
    with members(1, shared, "renewed", topic) as (member,):
        until(lambda: sum(member.offsets.values()) == 60, lambda: member.offsets)
    admin = AdminClient({"bootstrap.servers": shared.bootstrap})
    admin.delete_topics([topic])[topic].result(20)

    def created() -> bool:
        try:
            admin.create_topics([NewTopic(topic, PARTITIONS, 3)])[topic].result(20)
        except KafkaException:
            return False
        return True

    until(created, lambda: admin.list_topics().topics)
    assert committed(shared, "renewed", topic) == {}


def test_the_topic_that_holds_groups_is_shown_to_nobody_and_cannot_be_touched(shared: Servers) -> None:
    topic = filled_topic(shared)
    with members(1, shared, "any", topic) as (member,):
        until(lambda: len(member.assigned) == PARTITIONS, lambda: member.assigned)
    admin = AdminClient({"bootstrap.servers": shared.bootstrap})
    names = admin.list_topics(timeout=20).topics
    assert topic in names and "__consumer_offsets" not in names
    for attempts in (
        admin.create_topics([NewTopic("__consumer_offsets", 1, 1)]),
        admin.delete_topics(["__consumer_offsets"]),
    ):
        with pytest.raises(KafkaException, match=r"internal|Invalid topic"):
            attempts["__consumer_offsets"].result(20)


# ---- a coordinator dies --------------------------------------------------------------------------------------------


def coordinator_of(cluster: Servers, group: str, partitions: int = 3) -> Server:
    """By the hash that Kafka uses, written down a second time."""
    value = 0
    for character in group:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >> 31 else value
    return cluster.leader(f"__consumer_offsets/{abs(signed) % partitions}")


def test_no_committed_offset_is_lost_and_the_group_goes_on_when_coordinators_die(tmp_path: Path) -> None:
    """Two members read and commit one by one; their coordinator is killed, twice, and comes back."""
    with servers(tmp_path, 3, *GROUP_OPTIONS) as cluster:
        topic = filled_topic(cluster)
        # Long sessions: what goes on after the failover must not be a group that has lost its members.
        with members(2, cluster, "survives", topic, session_timeout_ms=45_000) as group:
            until(lambda: is_shared(group), lambda: shares(group))
            number = 60
            for _ in range(2):
                victim = coordinator_of(cluster, "survives")
                before = {p: o for m in group for p, o in m.offsets.items()}
                rebalances = [m.rebalances for m in group]
                victim.kill()
                produce(cluster, topic, range(number, number + 60))
                number += 60
                expected = set(range(number))
                until(lambda wanted=expected: {n for m in group for n in m.values} >= wanted, lambda: shares(group))  # type: ignore[misc]
                now = committed(cluster, "survives", topic)
                assert all(now[p] >= offset for p, offset in before.items())
                assert [m.rebalances for m in group] == rebalances
                victim.start()
                cluster.wait_until_ready()
            until(
                lambda: sum(committed(cluster, "survives", topic).values()) == number,
                lambda: committed(cluster, "survives", topic),
            )
            assert described(cluster, "survives").state.name == "STABLE"


# ---- aiokafka ------------------------------------------------------------------------------------------------------


def test_aiokafka_members_share_commit_and_resume(shared: Servers) -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka import TopicPartition as AioPartition

    topic = filled_topic(shared)

    def consumer() -> Any:
        return AIOKafkaConsumer(
            topic,
            bootstrap_servers=shared.bootstrap,
            group_id="aio",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=3000,
            heartbeat_interval_ms=200,
            metadata_max_age_ms=1000,
        )

    async def scenario() -> None:
        first, second = consumer(), consumer()
        values: set[int] = set()
        await first.start()
        try:
            await second.start()
            try:
                deadline = time.monotonic() + 30
                while len(values) < 60 or len(first.assignment()) != 3 or len(second.assignment()) != 3:
                    assert time.monotonic() < deadline, (len(values), first.assignment(), second.assignment())
                    for member in (first, second):
                        for records in (await member.getmany(timeout_ms=100)).values():
                            values |= {int(record.value) for record in records}
                for member in (first, second):
                    await member.commit()
            finally:
                await second.stop()
        finally:
            await first.stop()
        again = consumer()
        await again.start()
        try:
            offsets = [await again.committed(AioPartition(topic, n)) for n in range(PARTITIONS)]
            assert sum(offset or 0 for offset in offsets) == 60
            assert await again.getmany(timeout_ms=300) == {}
        finally:
            await again.stop()

    asyncio.run(asyncio.wait_for(scenario(), 90))
    assert sum(committed(shared, "aio", topic).values()) == 60


# ---- kafka-python --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of kafka-python, in how it reads its own files
def test_kafka_python_members_share_commit_and_resume_and_its_admin_sees_them(shared: Servers) -> None:
    from kafka import KafkaAdminClient, KafkaConsumer

    topic = filled_topic(shared)

    def consumer() -> Any:
        return KafkaConsumer(
            topic,
            bootstrap_servers=shared.bootstrap,
            group_id="python",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=300,
        )

    values: set[int] = set()
    shares: dict[int, set[Any]] = {}
    stop = threading.Event()

    def work(number: int, member: Any) -> None:
        # In a thread of its own, and patiently: a poll that ends while the group is being rebalanced makes this
        # client begin again.
        while not stop.is_set():
            for records in member.poll(timeout_ms=2000, max_records=20).values():
                values.update(int(record.value) for record in records)
            shares[number] = member.assignment()
        member.commit()

    group = [consumer(), consumer()]
    workers = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(group)]
    with contextlib.ExitStack() as stack:
        for member, worker in zip(group, workers, strict=True):
            stack.callback(member.close)
            worker.start()
        until(lambda: len(values) == 60 and [len(s) for s in shares.values()] == [3, 3], lambda: (len(values), shares))
        stop.set()
        for worker in workers:
            worker.join(20)
        admin = KafkaAdminClient(bootstrap_servers=shared.bootstrap)
        stack.callback(admin.close)
        assert "python" in str(admin.list_groups())
        assert "Stable" in str(admin.describe_groups(["python"]))
        offsets = admin.list_group_offsets("python")["python"]
        assert sum(found.offset for found in offsets.values()) == 60
    again = consumer()
    try:
        assert again.poll(timeout_ms=5000) == {}
        assert len(again.assignment()) == PARTITIONS
    finally:
        again.close()
    assert sum(committed(shared, "python", topic).values()) == 60


# ---- kcat ----------------------------------------------------------------------------------------------------------


@pytest.mark.external
@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed (Debian: kcat)")
def test_kcat_reads_as_a_group_and_resumes(shared: Servers) -> None:
    topic = filled_topic(shared)

    def read() -> list[int]:
        command = ["kcat", "-b", shared.bootstrap, "-G", "kcat", topic, "-e", "-q", "-f", "%s\n"]
        command += ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return sorted(int(line) for line in ended.stdout.split())

    assert read() == list(range(60))
    produce(shared, topic, range(60, 72))
    assert read() == list(range(60, 72))

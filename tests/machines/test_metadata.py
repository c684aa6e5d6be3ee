"""Metadata: ids that are never given twice, refusals as data, and listeners that hear what changed."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.machines.commands import MalformedCommand, request_id_of
from seatrial.machines.metadata import (
    FIRST_PARTITION_GROUP,
    AddPartitions,
    AllocateProducerIds,
    CreateTopic,
    DeleteTopic,
    ElectPreferred,
    MetadataChange,
    MetadataError,
    MetadataMachine,
    MetadataResult,
    RegisterNode,
    SetBrokerConfigs,
    SetClusterId,
    SetTopicConfigs,
    decode_command,
    encode_command,
)
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import COMMAND, NOOP, Entry

ID = bytes(range(16))


class Cluster:
    def __init__(self, nodes: int = 3) -> None:
        self.machine = MetadataMachine()
        self.index = 0
        self.changes: list[MetadataChange] = []
        for node in range(1, nodes + 1):
            self.do(RegisterNode(node, f"r{node}:1", f"k{node}", 9092, f"h{node}:1"))
        self.machine.listeners.append(self.changes.append)

    def do(self, command: Any) -> MetadataResult:
        self.index += 1
        encoded = encode_command(command, request_id=ID)
        result = self.machine.apply(Entry(Term(1), Index(self.index), COMMAND, encoded))
        assert result is not None
        return result


def test_a_topic_gets_groups_of_its_own_and_an_id_that_stays() -> None:
    cluster = Cluster()
    first = cluster.do(CreateTopic("a", ((1, 2, 3), (2, 3, 1)), {"x": "1"})).topic
    second = cluster.do(CreateTopic("b", ((3,),))).topic
    assert first is not None and second is not None
    assert [(p.index, p.group, p.replicas) for p in first.partitions] == [
        (0, FIRST_PARTITION_GROUP, (1, 2, 3)),
        (1, FIRST_PARTITION_GROUP + 1, (2, 3, 1)),
    ]
    assert second.partitions[0].group == FIRST_PARTITION_GROUP + 2 == cluster.machine.next_group - 1
    assert len(first.topic_id) == 16 and first.topic_id != second.topic_id
    assert cluster.machine.topics["a"] is first is cluster.machine.topic_by_id(first.topic_id)
    assert first.configs == {"x": "1"}


def test_a_topic_made_again_shares_nothing_with_the_old_one() -> None:
    cluster = Cluster()
    old = cluster.do(CreateTopic("a", ((1,),))).topic
    assert old is not None
    assert cluster.do(DeleteTopic(old.topic_id)).topic == old
    assert cluster.machine.topic_by_id(old.topic_id) is None
    new = cluster.do(CreateTopic("a", ((1,),))).topic
    assert new is not None
    assert new.topic_id != old.topic_id
    assert new.partitions[0].group != old.partitions[0].group
    assert cluster.do(DeleteTopic(old.topic_id)).error == MetadataError.UNKNOWN_TOPIC  # the new one is safe
    assert "a" in cluster.machine.topics


def test_a_name_that_is_taken_is_a_result_that_names_the_topic() -> None:
    cluster = Cluster()
    first = cluster.do(CreateTopic("a", ((1,),))).topic
    again = cluster.do(CreateTopic("a", ((2,),)))
    assert (again.error, again.topic) == (MetadataError.TOPIC_ALREADY_EXISTS, first)
    assert "already exists" in again.message


@pytest.mark.parametrize(
    ("assignments", "error"),
    [
        ((), MetadataError.INVALID_ASSIGNMENT),
        (((1,), ()), MetadataError.INVALID_ASSIGNMENT),
        (((1, 2, 1),), MetadataError.INVALID_ASSIGNMENT),
        (((1, 9),), MetadataError.UNKNOWN_NODE),
    ],
)
def test_an_assignment_that_cannot_be_changes_nothing(assignments: Any, error: MetadataError) -> None:
    cluster = Cluster()
    result = cluster.do(CreateTopic("a", assignments))
    assert (result.error, result.topic) == (error, None)
    assert result.message
    assert (dict(cluster.machine.topics), cluster.machine.next_group) == ({}, FIRST_PARTITION_GROUP)
    assert cluster.changes == []


def test_the_cluster_id_is_set_once() -> None:
    cluster = Cluster()
    assert cluster.machine.cluster_id == ""
    assert cluster.do(SetClusterId("one")).error == MetadataError.NONE
    assert cluster.do(SetClusterId("one")).error == MetadataError.NONE
    assert cluster.do(SetClusterId("two")).error == MetadataError.CLUSTER_ID_MISMATCH
    assert cluster.machine.cluster_id == "one"


def test_producer_ids_are_never_given_twice() -> None:
    cluster = Cluster()
    assert cluster.do(AllocateProducerIds(5)).first_producer_id == 0
    assert cluster.do(AllocateProducerIds()).first_producer_id == 5
    assert cluster.do(AllocateProducerIds(-3)).first_producer_id == 6
    assert cluster.do(AllocateProducerIds()).first_producer_id == 6


def test_a_node_registers_again_with_a_higher_incarnation() -> None:
    cluster = Cluster(nodes=1)
    assert cluster.machine.nodes[NodeId(1)].incarnation == 1
    node = cluster.do(RegisterNode(1, "new:1", "k", 1, "h:1", "rack")).node
    assert node == cluster.machine.nodes[NodeId(1)]
    assert node is not None and (node.raft_address, node.rack, node.incarnation) == ("new:1", "rack", 2)


def test_listeners_hear_what_changed_after_it_has() -> None:
    cluster = Cluster()
    seen: list[bool] = []
    cluster.machine.listeners.append(lambda change: seen.append("a" in cluster.machine.topics))
    topic = cluster.do(CreateTopic("a", ((1,),))).topic
    cluster.do(RegisterNode(2, "r:1", "k", 1, "h:1"))
    assert topic is not None
    cluster.do(DeleteTopic(topic.topic_id))
    assert cluster.changes == [
        MetadataChange(topics=("a",)),
        MetadataChange(nodes=(NodeId(2),)),
        MetadataChange(topics=("a",)),
    ]
    assert seen == [True, True, False]


def test_a_restored_snapshot_tells_all_that_was_and_is_there() -> None:
    source, target = Cluster(nodes=2), Cluster(nodes=3)
    source.do(CreateTopic("new", ((1,),)))
    target.do(CreateTopic("old", ((1,),)))
    target.changes.clear()
    target.machine.restore(source.machine.snapshot())
    assert target.changes == [MetadataChange(("new", "old"), (NodeId(1), NodeId(2), NodeId(3)))]
    assert set(target.machine.topics) == {"new"}
    created = target.machine.topics["new"]
    assert target.machine.topic_by_id(created.topic_id) == created


def test_commands_carry_their_request_id_and_survive_encoding() -> None:
    for command in (CreateTopic("é", ((1, 2),), {"a": "b"}), DeleteTopic(b"x" * 16), RegisterNode(1, "", "", 0, "")):
        encoded = encode_command(command, request_id=ID)
        assert request_id_of(encoded) == ID
        assert decode_command(encoded) == command


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02\x01" + ID, b"\x01\x07" + ID, b"\x01\x01" + ID, b"\x01\x01" + ID + b"\x93"]
)
def test_bytes_that_are_no_command_are_refused_loudly(data: bytes) -> None:
    with pytest.raises(MalformedCommand):
        decode_command(data)


def test_a_snapshot_that_cannot_be_read_is_refused() -> None:
    machine = MetadataMachine()
    for data in (b"", b"\x09", b"\x01", machine.snapshot()[:-1]):
        with pytest.raises(MalformedCommand):
            machine.restore(data)


def test_entries_that_are_no_commands_change_nothing() -> None:
    machine = MetadataMachine()
    assert machine.apply(Entry(Term(1), Index(1), NOOP, b"")) is None
    assert machine.applied_index == 1


def test_partitions_are_added_behind_the_last_one_with_groups_of_their_own() -> None:
    cluster = Cluster()
    made = cluster.do(CreateTopic("t", ((1, 2, 3),))).topic
    other = cluster.do(CreateTopic("other", ((1,),))).topic
    assert made is not None and other is not None
    larger = cluster.do(AddPartitions(made.topic_id, 1, ((2, 3, 1), (3,)))).topic
    assert larger is not None and larger.topic_id == made.topic_id
    assert [(p.index, p.group, p.replicas) for p in larger.partitions] == [
        (0, FIRST_PARTITION_GROUP, (1, 2, 3)),
        (1, FIRST_PARTITION_GROUP + 2, (2, 3, 1)),
        (2, FIRST_PARTITION_GROUP + 3, (3,)),
    ]
    assert cluster.machine.next_group == FIRST_PARTITION_GROUP + 4
    assert cluster.changes[-1] == MetadataChange(topics=("t",))


@pytest.mark.parametrize(
    ("first", "assignments", "error"),
    [
        (0, ((1,),), MetadataError.PARTITIONS_DIFFER),
        (2, ((1,),), MetadataError.PARTITIONS_DIFFER),
        (1, ((1, 1),), MetadataError.INVALID_ASSIGNMENT),
        (1, ((1,), ()), MetadataError.INVALID_ASSIGNMENT),
        (1, ((9,),), MetadataError.UNKNOWN_NODE),
    ],
)
def test_partitions_that_cannot_be_added_change_nothing(first: int, assignments: Any, error: MetadataError) -> None:
    cluster = Cluster()
    made = cluster.do(CreateTopic("t", ((1, 2, 3),))).topic
    assert made is not None
    result = cluster.do(AddPartitions(made.topic_id, first, assignments))
    assert result.error == error and result.message
    assert cluster.machine.topics["t"] == made
    assert cluster.machine.next_group == FIRST_PARTITION_GROUP + 1
    assert cluster.do(AddPartitions(b"?" * 16, 1, ((1,),))).error == MetadataError.UNKNOWN_TOPIC


def test_settings_are_changed_one_by_one_or_all_at_once() -> None:
    cluster = Cluster()
    made = cluster.do(CreateTopic("t", ((1,),), {"a": "1", "b": "2"})).topic
    assert made is not None
    changed = cluster.do(SetTopicConfigs(made.topic_id, {"a": None, "c": "3"})).topic
    assert changed is not None and changed.configs == {"b": "2", "c": "3"}
    replaced = cluster.do(SetTopicConfigs(made.topic_id, {"d": "4"}, True)).topic
    assert replaced is not None and replaced.configs == {"d": "4"}
    assert cluster.do(SetTopicConfigs(b"?" * 16, {})).error == MetadataError.UNKNOWN_TOPIC
    cluster.do(SetBrokerConfigs("", {"x": "1"}))
    cluster.do(SetBrokerConfigs("2", {"x": "2", "y": "3"}))
    cluster.do(SetBrokerConfigs("2", {"x": None, "y": None}))
    assert cluster.machine.broker_configs == {"": {"x": "1"}}
    restored = MetadataMachine()
    restored.restore(cluster.machine.snapshot())
    assert restored.broker_configs == {"": {"x": "1"}}
    assert restored.topics["t"].configs == {"d": "4"}


def test_an_election_is_told_and_changes_nothing() -> None:
    cluster = Cluster()
    made = cluster.do(CreateTopic("t", ((1,), (2,)))).topic
    assert made is not None
    before = cluster.machine.topics["t"]
    cluster.do(ElectPreferred(((made.topic_id, 1), (made.topic_id, 2), (b"?" * 16, 0))))
    assert cluster.changes[-1] == MetadataChange(elections=(("t", 1),))
    assert cluster.machine.topics["t"] is before

"""Group requests over the wire: every version, both directions, and what a client hears that asks the wrong node."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire
from fake_groups import FakeGroups

from seatrial.kafka import backend
from seatrial.kafka.apis import APIS, ApiKey
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import MemberView
from seatrial.kafka.group_offset_requests import subscribed_topics
from seatrial.kafka.group_settings import GROUPS_TOPIC, java_hash, shard_of
from seatrial.machines.metadata import DeleteTopic
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.server.errors import OutcomeUnknown, ProposalLost

E = ErrorCode
Scenario = Callable[["Client"], Coroutine[Any, Any, None]]


def versions(key: ApiKey, since: int = 0) -> range:
    return range(max(APIS[key].min_served, since), APIS[key].max_served + 1)


def subscription(*topics: str) -> bytes:
    names = b"".join(struct.pack(">h", len(topic)) + topic.encode() for topic in topics)
    return struct.pack(">hi", 1, len(topics)) + names + struct.pack(">ii", -1, 0)


class Client:
    """Asks a broker whose groups are real and whose Raft is a list."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.wire = Wire(self.broker)
        self.groups: FakeGroups = self.broker.groups
        self.broker.create("t", 3)

    async def ask(self, key: ApiKey, version: int | None = None, /, **fields: Any) -> Any:
        answer = self.wire.ask(key, APIS[key].max_served if version is None else version, **fields)
        return await asyncio.wait_for(answer, 10)

    async def join(self, group: str, version: int = 9, member: str = "", **fields: Any) -> Any:
        protocol = message("JoinGroupRequest").structure("JoinGroupRequestProtocol")
        fields = {
            "group_id": group,
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 10_000,
            "member_id": member,
            "protocol_type": "consumer",
            "protocols": [protocol(name="range", metadata=subscription("t"))],
            **fields,
        }
        response = await self.ask(ApiKey.JOIN_GROUP, version, **fields)
        if response.error_code == E.MEMBER_ID_REQUIRED:
            fields["member_id"] = response.member_id
            response = await self.ask(ApiKey.JOIN_GROUP, version, **fields)
        return response

    async def sync(self, group: str, joined: Any, version: int = 5) -> Any:
        assignment = message("SyncGroupRequest").structure("SyncGroupRequestAssignment")
        return await self.ask(
            ApiKey.SYNC_GROUP,
            version,
            group_id=group,
            generation_id=joined.generation_id,
            member_id=joined.member_id,
            protocol_type="consumer",
            protocol_name="range",
            assignments=[assignment(member_id=joined.member_id, assignment=b"everything")],
        )

    async def commit(
        self, group: str, offsets: dict[tuple[str, int], int], version: int = 9, text: str = "note", **fields: Any
    ) -> dict[tuple[str, int], int]:
        """The error of each partition."""
        codec = message("OffsetCommitRequest")
        topic, partition = codec.structure("OffsetCommitRequestTopic"), codec.structure("OffsetCommitRequestPartition")
        topics = [
            topic(
                name=name,
                partitions=[
                    partition(partition_index=number, committed_offset=offset, committed_metadata=text)
                    for (other, number), offset in offsets.items()
                    if other == name
                ],
            )
            for name in dict.fromkeys(name for name, _ in offsets)
        ]
        response = await self.ask(ApiKey.OFFSET_COMMIT, version, group_id=group, topics=topics, **fields)
        return {(t.name, p.partition_index): p.error_code for t in response.topics for p in t.partitions}

    async def fetch(self, group: str, version: int = 9, names: tuple[str, ...] | None = ("t",)) -> Any:
        """{(topic, partition): (offset, metadata)} or the group's error."""
        kind = "OffsetFetchRequestTopics" if version >= 8 else "OffsetFetchRequestTopic"
        codec = message("OffsetFetchRequest")
        wanted = [codec.structure(kind)(name=name, partition_indexes=[0, 1]) for name in names or ()]
        topics = None if names is None else wanted
        if version >= 8:
            asked = codec.structure("OffsetFetchRequestGroup")(group_id=group, topics=topics)
            response = await self.ask(ApiKey.OFFSET_FETCH, version, groups=[asked])
            (response,) = response.groups
        else:
            response = await self.ask(ApiKey.OFFSET_FETCH, version, group_id=group, topics=topics)
        if response.error_code:
            return response.error_code
        errors = {p.error_code for t in response.topics for p in t.partitions}
        if errors - {0}:
            return errors
        return {
            (t.name, p.partition_index): (p.committed_offset, p.metadata) for t in response.topics for p in t.partitions
        }


def run(scenario: Scenario) -> None:
    async def main() -> None:
        await scenario(Client())

    asyncio.run(main())


# ---- where a group is ----------------------------------------------------------------------------------------------


def test_a_group_has_the_shard_that_java_gives_it() -> None:
    known = {
        "": 0,
        "a": 97,
        "hello": 99_162_322,
        "Hello, World!": 1_498_789_909,
        "The quick brown fox jumps over the lazy dog": 609_428_141,  # negative in Java
        "漢字": 905_333,
        "\U0001f600": 1_772_899,  # two characters in Java
    }
    assert {text: java_hash(text) for text in known} == known
    assert java_hash("polygenelubricants") == 0  # the string whose hash in Java is -2**31
    assert shard_of("hello", 3) == 99162322 % 3


@pytest.mark.parametrize("version", versions(ApiKey.FIND_COORDINATOR))
def test_the_first_question_for_a_group_makes_the_topic_for_groups(version: int) -> None:
    async def scenario(client: Client) -> None:
        client.groups.leaders = {0: 2, 1: 3}
        assert not client.groups.are_created
        for _ in range(2):
            response = await client.ask(ApiKey.FIND_COORDINATOR, version, key="a", coordinator_keys=["a", "b"])
            found = response.coordinators if version >= 4 else [response]
            expected = [(0, 3, "kafka3", 9093), (0, 2, "kafka2", 9092)]  # "a" hashes to 97, "b" to 98
            assert [(c.error_code, c.node_id, c.host, c.port) for c in found] == expected[: len(found)]
        topic = client.broker.metadata.topics[GROUPS_TOPIC]
        assert [len(p.replicas) for p in topic.partitions] == [3, 3, 3]

    run(scenario)


@pytest.mark.slow
def test_a_leader_that_is_not_known_is_waited_for_a_moment() -> None:
    async def scenario(client: Client) -> None:
        await client.ask(ApiKey.FIND_COORDINATOR, 3, key="a")
        client.groups.leaders = {0: -1, 1: -1}
        response = await client.ask(ApiKey.FIND_COORDINATOR, 3, key="a")
        assert (response.error_code, response.node_id) == (E.COORDINATOR_NOT_AVAILABLE, -1)
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, client.groups.leaders.update, {1: 2})
        response = await client.ask(ApiKey.FIND_COORDINATOR, 3, key="a")
        assert (response.error_code, response.node_id) == (0, 2)

    run(scenario)


def test_without_enough_nodes_there_is_no_coordinator_for_now() -> None:
    async def scenario(client: Client) -> None:
        client.broker.refuse_metadata = backend.NotLeader()
        response = await client.ask(ApiKey.FIND_COORDINATOR, 6, coordinator_keys=["a"])
        (found,) = response.coordinators
        assert found.error_code == E.COORDINATOR_NOT_AVAILABLE
        assert "topic that holds the groups" in found.error_message

    run(scenario)


@pytest.mark.parametrize(
    ("key_type", "error"),
    [(1, E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED), (9, E.INVALID_REQUEST)],
)
def test_transactions_and_unknown_kinds_have_no_coordinator(key_type: int, error: ErrorCode) -> None:
    async def scenario(client: Client) -> None:
        for version in (1, 4):
            response = await client.ask(
                ApiKey.FIND_COORDINATOR, version, key="x", key_type=key_type, coordinator_keys=["x"]
            )
            found = response.coordinators[0] if version >= 4 else response
            assert found.error_code == error
            assert found.error_message
        assert not client.groups.are_created

    run(scenario)


# ---- members -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(ApiKey.JOIN_GROUP))
def test_a_member_joins_syncs_beats_and_leaves_in_every_version(version: int) -> None:
    async def scenario(client: Client) -> None:
        joined = await client.join("g", version)
        assert (joined.error_code, joined.generation_id, joined.protocol_name) == (0, 1, "range")
        assert joined.leader == joined.member_id
        assert joined.member_id.startswith("test-")
        assert [(m.member_id, m.metadata) for m in joined.members] == [(joined.member_id, subscription("t"))]
        assert joined.protocol_type == ("consumer" if version >= 7 else None)
        synced = await client.sync("g", joined, min(version, 5))
        assert (synced.error_code, synced.assignment) == (0, b"everything")
        who: Any = {"group_id": "g", "generation_id": 1, "member_id": joined.member_id}
        assert (await client.ask(ApiKey.HEARTBEAT, min(version, 4), **who)).error_code == 0
        member = message("LeaveGroupRequest").structure("MemberIdentity")
        left = await client.ask(
            ApiKey.LEAVE_GROUP,
            min(version, 5),
            group_id="g",
            member_id=joined.member_id,
            members=[member(member_id=joined.member_id), member(member_id="nobody")],
        )
        assert left.error_code == 0
        if version >= 3:
            assert [(m.member_id, m.error_code) for m in left.members] == [
                (joined.member_id, 0),
                ("nobody", E.UNKNOWN_MEMBER_ID),
            ]
        assert (await client.ask(ApiKey.HEARTBEAT, min(version, 4), **who)).error_code == E.UNKNOWN_MEMBER_ID

    run(scenario)


async def every_refusal(client: Client, group: str) -> dict[str, int]:
    """What each request for something in the group is refused with, by name."""

    async def error(answer: Coroutine[Any, Any, Any], of: Callable[[Any], int] = lambda r: r.error_code) -> int:
        return of(await answer)

    member = message("LeaveGroupRequest").structure("MemberIdentity")(member_id="m")
    ask, who = client.ask, {"group_id": group, "generation_id": 1, "member_id": "m"}
    requests = {
        "join": error(client.join(group, member="m")),
        "join 0": error(client.join(group, 0, member="m")),
        "sync": error(ask(ApiKey.SYNC_GROUP, **who)),
        "heartbeat": error(ask(ApiKey.HEARTBEAT, **who)),
        "leave": error(ask(ApiKey.LEAVE_GROUP, group_id=group, members=[member])),
        "leave 0": error(ask(ApiKey.LEAVE_GROUP, 0, group_id=group, member_id="m")),
        "commit": error(client.commit(group, {("t", 0): 1}), lambda errors: errors["t", 0]),
        "fetch": error(client.fetch(group), lambda found: found),
        "fetch 5": error(client.fetch(group, 5), lambda found: found),
        "fetch 1": error(client.fetch(group, 1), lambda errors: next(iter(errors))),
        "offset delete": error(ask(ApiKey.OFFSET_DELETE, group_id=group)),
        "describe": error(ask(ApiKey.DESCRIBE_GROUPS, groups=[group]), lambda r: r.groups[0].error_code),
        "delete": error(ask(ApiKey.DELETE_GROUPS, groups_names=[group]), lambda r: r.results[0].error_code),
    }
    return {name: await request for name, request in requests.items()}


@pytest.mark.parametrize(
    "refusal", [E.NOT_COORDINATOR, pytest.param(E.COORDINATOR_LOAD_IN_PROGRESS, marks=pytest.mark.slow)]
)
def test_a_node_that_does_not_coordinate_a_group_says_so_to_every_request(refusal: ErrorCode) -> None:
    async def scenario(client: Client) -> None:
        client.groups.refuse_with = {0: refusal, 1: refusal}
        refusals = await every_refusal(client, "g")
        if refusal == E.COORDINATOR_LOAD_IN_PROGRESS:
            # As Kafka: clients do not expect that error of these two.
            told = (refusals.pop("heartbeat"), refusals.pop("sync"))
            assert told == (E.NONE, E.REBALANCE_IN_PROGRESS)
        assert set(refusals.values()) == {refusal}
        assert (await client.ask(ApiKey.LIST_GROUPS)).error_code == refusal

    run(scenario)


def test_a_coordinator_that_is_ready_in_a_moment_is_waited_for() -> None:
    async def scenario(client: Client) -> None:
        await client.commit("g", {("t", 0): 7})
        client.groups.refuse_with = {0: E.COORDINATOR_LOAD_IN_PROGRESS, 1: E.COORDINATOR_LOAD_IN_PROGRESS}
        asyncio.get_running_loop().call_later(0.02, client.groups.refuse_with.clear)
        assert (await client.fetch("g"))["t", 0] == (7, "note")

    run(scenario)


def test_a_group_of_members_must_have_a_name() -> None:
    async def scenario(client: Client) -> None:
        client.groups.refuse_with = {0: E.NOT_COORDINATOR}
        refusals = await every_refusal(client, "")
        nameless = {name for name, error in refusals.items() if error == E.NOT_COORDINATOR}
        assert nameless == {"commit", "fetch", "fetch 5", "fetch 1", "offset delete"}  # as Kafka lets them through
        assert set(refusals.values()) == {E.NOT_COORDINATOR, E.INVALID_GROUP_ID}

    run(scenario)


def test_a_join_that_waits_ends_when_the_coordinator_loses_its_lead() -> None:
    async def scenario(client: Client) -> None:
        joined = await client.join("g")
        await client.sync("g", joined)
        waiting = asyncio.ensure_future(client.join("g", 3))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        shard = client.groups.shard("g")
        shard.coordinator.close()
        assert (await waiting).error_code == E.NOT_COORDINATOR
        shard.elected()
        who: Any = {"group_id": "g", "generation_id": 1, "member_id": joined.member_id}
        assert (await client.ask(ApiKey.HEARTBEAT, **who)).error_code == 0

    run(scenario)


# ---- offsets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_COMMIT))
def test_what_is_committed_is_fetched_in_every_version(version: int) -> None:
    async def scenario(client: Client) -> None:
        assert await client.commit("g", {("t", 0): 7, ("t", 2): 9}, version) == {("t", 0): 0, ("t", 2): 0}
        for fetch in versions(ApiKey.OFFSET_FETCH):
            assert await client.fetch("g", fetch) == {("t", 0): (7, "note"), ("t", 1): (-1, "")}
            if fetch >= 2:
                everything = await client.fetch("g", fetch, None)
                assert everything == {("t", 0): (7, "note"), ("t", 2): (9, "note")}
            assert await client.fetch("nobody", fetch) == {("t", 0): (-1, ""), ("t", 1): (-1, "")}

    run(scenario)


def test_a_partition_that_cannot_be_committed_does_not_keep_the_others_from_it() -> None:
    async def scenario(client: Client) -> None:
        errors = await client.commit("g", {("t", 0): 1, ("t", 3): 1, ("t", -1): 1, ("none", 0): 1})
        unknown = E.UNKNOWN_TOPIC_OR_PARTITION
        assert errors == {("t", 0): 0, ("t", 3): unknown, ("t", -1): unknown, ("none", 0): unknown}
        assert client.groups.asked_for_metadata == 1
        errors = await client.commit("g", {("t", 1): 1}, text="x" * 4097)
        assert errors == {("t", 1): E.OFFSET_METADATA_TOO_LARGE}
        assert await client.commit("g", {("t", 1): 1}, text="x" * 4096) == {("t", 1): 0}
        assert await client.fetch("g", names=None) == {("t", 0): (1, "note"), ("t", 1): (1, "x" * 4096)}

    run(scenario)


def test_a_topic_that_is_only_new_here_makes_the_client_try_again() -> None:
    async def scenario(client: Client) -> None:
        client.groups.metadata_is_current_now = False
        assert await client.commit("g", {("new", 0): 1}) == {("new", 0): E.COORDINATOR_LOAD_IN_PROGRESS}

    run(scenario)


def test_offsets_of_a_topic_that_is_gone_are_not_shown_for_the_next_one_of_its_name() -> None:
    async def scenario(client: Client) -> None:
        await client.commit("g", {("t", 0): 7})
        client.broker.apply(DeleteTopic(client.broker.metadata.topics["t"].topic_id))
        client.groups.metadata_is_current_now = False
        assert await client.fetch("g") == E.COORDINATOR_LOAD_IN_PROGRESS  # this node may only be behind
        client.groups.metadata_is_current_now = True
        assert await client.fetch("g", names=None) == {}
        client.broker.create("t")
        assert await client.fetch("g") == {("t", 0): (-1, ""), ("t", 1): (-1, "")}
        await client.commit("g", {("t", 0): 1})
        assert await client.fetch("g", names=None) == {("t", 0): (1, "note")}

    run(scenario)


@pytest.mark.parametrize("version", [2, 3, 7])
def test_a_refused_fetch_has_its_error_at_each_partition_because_aiokafka_looks_nowhere_else(version: int) -> None:
    """Found by `--workload groups` in simulation: it took the answer for "nothing was ever committed"."""

    async def scenario(client: Client) -> None:
        client.groups.refuse_with = {0: E.NOT_COORDINATOR, 1: E.NOT_COORDINATOR}
        topic = message("OffsetFetchRequest").structure("OffsetFetchRequestTopic")
        topics = [topic(name="t", partition_indexes=[0, 2])]
        response = await client.ask(ApiKey.OFFSET_FETCH, version, group_id="g", topics=topics)
        assert response.error_code == E.NOT_COORDINATOR
        found = [(p.partition_index, p.error_code) for p in response.topics[0].partitions]
        assert found == [(0, E.NOT_COORDINATOR), (2, E.NOT_COORDINATOR)]

    run(scenario)


def test_a_read_that_no_leader_vouches_for_is_no_answer() -> None:
    async def scenario(client: Client) -> None:
        await client.commit("g", {("t", 0): 7})
        client.groups.shard("g").log.is_readable = False
        assert await client.fetch("g") == E.NOT_COORDINATOR

    run(scenario)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(NotLeader(None), E.NOT_COORDINATOR), (ProposalDropped("full"), E.COORDINATOR_LOAD_IN_PROGRESS)],
)
def test_a_commit_that_raft_does_not_take_is_refused(refusal: Exception, error: ErrorCode) -> None:
    async def scenario(client: Client) -> None:
        client.groups.shard("g").log.refuse_with = refusal
        assert await client.commit("g", {("t", 0): 7}) == {("t", 0): error}

    run(scenario)


@pytest.mark.parametrize("lost", [ProposalLost("x"), OutcomeUnknown("x")])
def test_a_commit_whose_fate_is_not_known_is_never_acknowledged(lost: Exception) -> None:
    async def scenario(client: Client) -> None:
        log = client.groups.shard("g").log
        log.held = True
        waiting = asyncio.ensure_future(client.commit("g", {("t", 0): 7}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        log.lose(lost)
        assert await waiting == {("t", 0): E.NOT_COORDINATOR}

    run(scenario)


def test_a_member_commits_for_its_generation_only() -> None:
    async def scenario(client: Client) -> None:
        joined = await client.join("g")
        who: Any = {"member_id": joined.member_id, "generation_id_or_member_epoch": 1}
        assert await client.commit("g", {("t", 0): 1}, **who) == {("t", 0): E.REBALANCE_IN_PROGRESS}
        await client.sync("g", joined)
        assert await client.commit("g", {("t", 0): 1}, **who) == {("t", 0): 0}
        who["generation_id_or_member_epoch"] = 0
        assert await client.commit("g", {("t", 0): 2}, **who) == {("t", 0): E.ILLEGAL_GENERATION}
        assert await client.commit("g", {("t", 0): 2}) == {("t", 0): E.UNKNOWN_MEMBER_ID}
        assert await client.commit("nobody", {("t", 0): 2}, **who) == {("t", 0): E.ILLEGAL_GENERATION}
        assert (await client.fetch("g"))["t", 0] == (1, "note")

    run(scenario)


def test_offsets_are_deleted_but_not_those_of_topics_that_are_being_read() -> None:
    async def delete(client: Client, group: str, *wanted: tuple[str, int]) -> Any:
        codec = message("OffsetDeleteRequest")
        topic, partition = codec.structure("OffsetDeleteRequestTopic"), codec.structure("OffsetDeleteRequestPartition")
        topics = [topic(name=name, partitions=[partition(partition_index=number)]) for name, number in wanted]
        response = await client.ask(ApiKey.OFFSET_DELETE, group_id=group, topics=topics)
        if response.error_code:
            return response.error_code
        return [p.error_code for t in response.topics for p in t.partitions]

    async def scenario(client: Client) -> None:
        client.broker.create("u")
        await client.commit("g", {("t", 0): 7, ("u", 0): 8, ("t", 1): 9})
        assert await delete(client, "nobody", ("t", 0)) == E.GROUP_ID_NOT_FOUND
        assert await delete(client, "g", ("t", 1), ("none", 0)) == [0, E.UNKNOWN_TOPIC_OR_PARTITION]
        joined = await client.join("g")
        await client.sync("g", joined)
        assert await delete(client, "g", ("t", 0), ("u", 0)) == [E.GROUP_SUBSCRIBED_TO_TOPIC, 0]
        assert await client.fetch("g", names=None) == {("t", 0): (7, "note")}
        joined = await client.join("connect", protocol_type="connect")
        await client.sync("connect", joined)
        assert await delete(client, "connect", ("t", 0)) == E.NON_EMPTY_GROUP

    run(scenario)


@pytest.mark.parametrize(
    ("metadata", "topics"),
    [
        (subscription("a", "b"), {"a", "b"}),
        (subscription(), set()),
        (b"", None),
        (struct.pack(">hi", 0, 5), None),
        (struct.pack(">hi", 0, -1), None),
        (struct.pack(">hih", 0, 1, -2), None),
        (struct.pack(">hih", 0, 1, 9) + b"short", None),
        (struct.pack(">hih", 0, 1, 2) + b"\xff\xfe", None),
        (struct.pack(">hi", 0, 1 << 30), None),
    ],
)
def test_what_a_consumer_reads_is_told_by_its_metadata_or_not_at_all(metadata: bytes, topics: set[str] | None) -> None:
    assert subscribed_topics([MemberView("m", None, "", "", metadata, b"")]) == topics


# ---- administration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(ApiKey.DESCRIBE_GROUPS))
def test_a_group_is_described_in_every_version(version: int) -> None:
    async def scenario(client: Client) -> None:
        joined = await client.join("g", group_instance_id="static")
        early = (await client.ask(ApiKey.DESCRIBE_GROUPS, version, groups=["g"])).groups[0]
        assert (early.group_state, early.protocol_data) == ("CompletingRebalance", "")
        await client.sync("g", joined)
        found, unknown = (await client.ask(ApiKey.DESCRIBE_GROUPS, version, groups=["g", "nobody"])).groups
        state = (found.error_code, found.group_id, found.group_state, found.protocol_type, found.protocol_data)
        assert state == (0, "g", "Stable", "consumer", "range")
        (member,) = found.members
        assert (member.member_id, member.client_id, member.client_host) == (joined.member_id, "test", "/")
        assert (member.member_metadata, member.member_assignment) == (subscription("t"), b"everything")
        assert member.group_instance_id == ("static" if version >= 4 else None)
        assert unknown.group_state == "Dead"
        assert unknown.error_code == (E.GROUP_ID_NOT_FOUND if version >= 6 else 0)

    run(scenario)


@pytest.mark.parametrize("version", versions(ApiKey.LIST_GROUPS))
def test_groups_are_listed_by_state_and_type(version: int) -> None:
    async def listed(client: Client, **fields: Any) -> list[str]:
        response = await client.ask(ApiKey.LIST_GROUPS, version, **fields)
        assert response.error_code == 0
        if version >= 5:
            assert {group.group_type for group in response.groups} <= {"classic"}
        return sorted(group.group_id for group in response.groups)

    async def scenario(client: Client) -> None:
        for group in ("a", "b"):
            await client.sync(group, await client.join(group))
        await client.commit("offsets only", {("t", 0): 1})
        assert await listed(client) == ["a", "b", "offsets only"]
        if version >= 4:
            assert await listed(client, states_filter=["stable"]) == ["a", "b"]
            assert await listed(client, states_filter=["Empty", "Dead"]) == ["offsets only"]
        if version >= 5:
            assert await listed(client, types_filter=["Classic"]) == ["a", "b", "offsets only"]
            assert await listed(client, types_filter=["consumer"]) == []

    run(scenario)


@pytest.mark.parametrize("version", versions(ApiKey.DELETE_GROUPS))
def test_only_groups_without_members_are_deleted(version: int) -> None:
    async def scenario(client: Client) -> None:
        await client.sync("used", await client.join("used"))
        await client.commit("free", {("t", 0): 1})
        names = ["used", "free", "nobody"]
        response = await client.ask(ApiKey.DELETE_GROUPS, version, groups_names=names)
        errors = {result.group_id: result.error_code for result in response.results}
        assert errors == {"used": E.NON_EMPTY_GROUP, "free": 0, "nobody": E.GROUP_ID_NOT_FOUND}
        assert await client.fetch("free", names=None) == {}
        assert (await client.ask(ApiKey.DESCRIBE_GROUPS, groups=["free"])).groups[0].error_code == E.GROUP_ID_NOT_FOUND

    run(scenario)

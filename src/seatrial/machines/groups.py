"""Consumer groups as a state machine: who is in a group, what each was assigned, and how far the group has read.

Rule: what is decided is decided by the coordinator that leads this Raft group, and arrives here as its outcome; entries
stand in the order of those decisions, so applying them only has to repeat them.  Times are the coordinator's, carried
in the commands.
Knows nothing of requests, of waiting members and of timers: those live and die with a coordinator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, TypeAlias, TypeVar

import msgspec

from seatrial.machines.commands import MalformedCommand
from seatrial.machines.digest import AppliedDigest, Fingerprinted
from seatrial.raft.messages import COMMAND, Entry

FORMAT_VERSION: Final = 1
NEVER: Final = -1  # in the place of a time

TopicPartition: TypeAlias = tuple[str, int]
_T = TypeVar("_T")


class GroupPhase(IntEnum):
    """How far the group's last rebalance got."""

    EMPTY = 0
    AWAITING_ASSIGNMENT = 1  # the members of this generation are known, their assignment is not
    STABLE = 2


class MemberRecord(msgspec.Struct, frozen=True, array_like=True):
    """One member.  `protocols`: (name, metadata) as it offered them, its favourite first; times in milliseconds."""

    member_id: str
    instance_id: str | None  # of a static member (KIP-345)
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""


class GroupRecord(msgspec.Struct, frozen=True, array_like=True):
    """A group as its members would find it after the loss of the coordinator.  `leader`: of the members, by id."""

    phase: GroupPhase = GroupPhase.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: tuple[MemberRecord, ...] = ()


class OffsetRecord(msgspec.Struct, frozen=True, array_like=True):
    """How far a group has read one partition.

    `topic_id`: of the topic that had the name then, so that a later topic of the same name is not begun in its middle.
    `committed_ms`: wall clock.  `expires_ms`: when the client itself wanted it to be forgotten; else NEVER.
    """

    offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    topic_id: bytes
    expires_ms: int = NEVER


class SaveGroup(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The group is now as `record` says; its offsets stay."""

    group_id: str
    record: GroupRecord
    wall_ms: int


class CommitOffsets(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Each of `offsets` takes the place of what was there, also of a higher one: a group may be set back."""

    group_id: str
    offsets: tuple[tuple[str, int, OffsetRecord], ...]


class ForgetOffsets(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Offsets that were deleted, or have expired; unless `committed_ms` (where not NEVER) shows a later commit.

    `and_group`: the group too, if it is empty and this was all that was left of it.
    """

    group_id: str
    partitions: tuple[tuple[str, int, int], ...]  # topic, partition, committed_ms
    and_group: bool = False


class DeleteGroup(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The group and its offsets."""

    group_id: str


Command: TypeAlias = SaveGroup | CommitOffsets | ForgetOffsets | DeleteGroup


class StoredGroup:
    """What is kept of one group.  `changed_ms`: when `record` was saved (wall clock); NEVER: only offsets were."""

    __slots__ = ("changed_ms", "offsets", "record")

    def __init__(self, record: GroupRecord, changed_ms: int, offsets: dict[TopicPartition, OffsetRecord]) -> None:
        self.record = record
        self.changed_ms = changed_ms
        self.offsets = offsets


class _PackedGroup(msgspec.Struct, frozen=True, array_like=True):
    group_id: str
    record: GroupRecord
    changed_ms: int
    offsets: list[tuple[str, int, OffsetRecord]]


class _State(msgspec.Struct, frozen=True, array_like=True):
    """The snapshot, in order of its keys: equal states give equal bytes."""

    index: int
    chain: bytes
    groups: list[_PackedGroup]


_encoder = msgspec.msgpack.Encoder()
_command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_state_decoder = msgspec.msgpack.Decoder(_State)


def encode_command(command: Command) -> bytes:
    """The bytes to propose."""
    return bytes([FORMAT_VERSION]) + _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Raises MalformedCommand."""
    return _decode(_command_decoder, data, "command")


def _decode(decoder: msgspec.msgpack.Decoder[_T], data: bytes, what: str) -> _T:
    if data[:1] != bytes([FORMAT_VERSION]):
        raise MalformedCommand(f"a {what} of consumer groups in format {data[:1].hex()}, not {FORMAT_VERSION}")
    try:
        return decoder.decode(memoryview(data)[1:])
    except msgspec.DecodeError as error:
        raise MalformedCommand(f"a {what} of consumer groups that cannot be read: {error}") from error


class GroupsMachine(Fingerprinted):
    """The state machine (a `StateMachine`)."""

    def __init__(self) -> None:
        super().__init__()
        self._groups: dict[str, StoredGroup] = {}

    @property
    def groups(self) -> Mapping[str, StoredGroup]:
        """By id; to read only."""
        return self._groups

    def apply(self, entry: Entry) -> None:
        """Apply the next committed entry; there is nothing to tell but that it is done."""
        self._digest.absorb(entry)
        if entry.kind != COMMAND:
            return
        match decode_command(entry.data):
            case SaveGroup(group_id, record, wall_ms):
                group = self._group(group_id)
                group.record, group.changed_ms = record, wall_ms
            case CommitOffsets(group_id, offsets):
                kept = self._group(group_id).offsets
                for topic, partition, offset in offsets:
                    kept[topic, partition] = offset
            case ForgetOffsets(group_id, partitions, and_group):
                self._forget(group_id, partitions, and_group=and_group)
            case DeleteGroup(group_id):
                self._groups.pop(group_id, None)

    def _group(self, group_id: str) -> StoredGroup:
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = StoredGroup(GroupRecord(), NEVER, {})
        return group

    def _forget(self, group_id: str, partitions: Sequence[tuple[str, int, int]], *, and_group: bool) -> None:
        group = self._groups.get(group_id)
        if group is None:
            return
        for topic, partition, committed_ms in partitions:
            offset = group.offsets.get((topic, partition))
            if offset is not None and committed_ms in (NEVER, offset.committed_ms):
                del group.offsets[topic, partition]
        if and_group and not group.offsets and group.record.phase == GroupPhase.EMPTY:
            del self._groups[group_id]

    def snapshot(self) -> bytes:
        groups = []
        for group_id in sorted(self._groups):
            group = self._groups[group_id]
            offsets = [(*key, group.offsets[key]) for key in sorted(group.offsets)]
            groups.append(_PackedGroup(group_id, group.record, group.changed_ms, offsets))
        state = _State(self._digest.index, self._digest.chain, groups)
        return bytes([FORMAT_VERSION]) + _encoder.encode(state)

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's.  Raises MalformedCommand on bytes that are none."""
        state = _decode(_state_decoder, data, "snapshot")
        self._digest = AppliedDigest(state.index, state.chain)
        self._groups = {
            packed.group_id: StoredGroup(
                packed.record, packed.changed_ms, {(topic, number): kept for topic, number, kept in packed.offsets}
            )
            for packed in state.groups
        }

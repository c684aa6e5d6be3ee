"""Consumer groups as replicated state: what is stored, what takes whose place, and equal bytes for equal states."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.machines.commands import MalformedCommand
from seatrial.machines.groups import (
    NEVER,
    Command,
    CommitOffsets,
    DeleteGroup,
    ForgetOffsets,
    GroupPhase,
    GroupRecord,
    GroupsMachine,
    MemberRecord,
    OffsetRecord,
    SaveGroup,
    decode_command,
    encode_command,
)
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, NOOP, Entry

MEMBER = MemberRecord("m", "i", "client", "/host", 10, 20, (("range", b"topics"),), b"mine")
STABLE = GroupRecord(GroupPhase.STABLE, 3, "consumer", "range", "m", (MEMBER,))


def offset(value: int, committed_ms: int = 5) -> OffsetRecord:
    return OffsetRecord(value, 1, "note", committed_ms, b"t" * 16)


class Log:
    def __init__(self) -> None:
        self.machine = GroupsMachine()
        self.entries: list[Entry] = []

    def do(self, command: Command, kind: int = COMMAND) -> None:
        data = encode_command(command) if kind == COMMAND else b""
        self.entries.append(Entry(Term(1), Index(len(self.entries) + 1), kind, data))
        self.machine.apply(self.entries[-1])

    def offsets(self, group_id: str = "g") -> dict[tuple[str, int], int]:
        return {key: kept.offset for key, kept in self.machine.groups[group_id].offsets.items()}


def test_a_commit_takes_the_place_of_the_one_before_also_of_a_higher_one() -> None:
    log = Log()
    log.do(CommitOffsets("g", (("t", 0, offset(7)), ("t", 1, offset(8)))))
    log.do(CommitOffsets("g", (("t", 0, offset(3)),)))
    assert log.offsets() == {("t", 0): 3, ("t", 1): 8}
    assert log.machine.groups["g"].record == GroupRecord()
    assert log.machine.groups["g"].changed_ms == NEVER


def test_a_saved_group_keeps_its_offsets_and_a_commit_keeps_its_members() -> None:
    log = Log()
    log.do(CommitOffsets("g", (("t", 0, offset(7)),)))
    log.do(SaveGroup("g", STABLE, 100))
    log.do(CommitOffsets("g", (("t", 1, offset(1)),)))
    group = log.machine.groups["g"]
    assert (group.record, group.changed_ms, log.offsets()) == (STABLE, 100, {("t", 0): 7, ("t", 1): 1})


def test_forgetting_spares_what_was_committed_since() -> None:
    log = Log()
    log.do(CommitOffsets("g", (("t", 0, offset(7, 1)), ("t", 1, offset(7, 2)), ("t", 2, offset(7, 3)))))
    log.do(ForgetOffsets("g", (("t", 0, 1), ("t", 1, 1), ("t", 2, NEVER), ("gone", 0, 1)), and_group=True))
    assert log.offsets() == {("t", 1): 7}


@pytest.mark.parametrize(
    ("record", "and_group", "stays"), [(GroupRecord(), True, False), (GroupRecord(), False, True), (STABLE, True, True)]
)
def test_a_group_goes_with_its_last_offset_only_if_it_is_empty_and_that_was_meant(
    record: GroupRecord, and_group: bool, stays: bool
) -> None:
    log = Log()
    log.do(CommitOffsets("g", (("t", 0, offset(7)),)))
    log.do(SaveGroup("g", record, 1))
    log.do(ForgetOffsets("g", (("t", 0, NEVER),), and_group=and_group))
    assert ("g" in log.machine.groups) == stays
    log.do(ForgetOffsets("nobody", (("t", 0, NEVER),), and_group=True))


def test_a_deleted_group_leaves_nothing() -> None:
    log = Log()
    log.do(CommitOffsets("g", (("t", 0, offset(7)),)))
    log.do(DeleteGroup("g"))
    log.do(DeleteGroup("g"))
    assert log.machine.groups == {}
    log.do(CommitOffsets("g", (("t", 1, offset(1)),)))
    assert log.offsets() == {("t", 1): 1}


@pytest.mark.parametrize("data", [b"", b"\x02\x93", b"\x01", b"\x01\xc1", b"\x01" + b"\x91\x63"])
def test_bytes_that_are_no_command_or_snapshot_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedCommand):
        decode_command(data)
    with pytest.raises(MalformedCommand):
        GroupsMachine().restore(data)


NAMES = st.sampled_from(["g", "h"])
OFFSETS = st.tuples(st.sampled_from(["t", "u"]), st.integers(0, 2), st.builds(offset, st.integers(0, 9)))
COMMANDS = st.one_of(
    st.builds(SaveGroup, NAMES, st.sampled_from([STABLE, GroupRecord()]), st.integers(0, 9)),
    st.builds(CommitOffsets, NAMES, st.lists(OFFSETS, max_size=3).map(tuple)),
    st.builds(
        ForgetOffsets,
        NAMES,
        st.lists(st.tuples(st.sampled_from(["t", "u"]), st.integers(0, 2), st.just(NEVER)), max_size=3).map(tuple),
        st.booleans(),
    ),
    st.builds(DeleteGroup, NAMES),
)


@settings(max_examples=60, deadline=None)
@given(commands=st.lists(COMMANDS | st.none(), max_size=25), cut=st.integers(0, 25))
def test_a_snapshot_in_the_middle_changes_nothing(commands: list[Command | None], cut: int) -> None:
    whole, resumed = Log(), Log()
    for number, command in enumerate(commands):
        if number == cut:
            taken = resumed.machine.snapshot()
            resumed.machine = GroupsMachine()
            resumed.machine.restore(taken)
        for log in (whole, resumed):
            log.do(command or DeleteGroup("x"), NOOP if command is None else COMMAND)
    assert whole.machine.snapshot() == resumed.machine.snapshot()
    assert whole.machine.digest == resumed.machine.digest
    assert whole.machine.applied_index == len(commands)

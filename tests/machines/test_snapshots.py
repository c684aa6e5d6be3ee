"""Every machine: equal prefixes give equal states, through a snapshot or not; retries happen once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.machines.kv import KeyValueMachine, KvError, Session, encode_delete, encode_put
from seatrial.machines.metadata import (
    AllocateProducerIds,
    CreateTopic,
    DeleteTopic,
    MetadataMachine,
    RegisterNode,
    SetBrokerConfigs,
    SetClusterId,
    encode_command,
)
from seatrial.machines.partition_log import AppendOutcome, PartitionLog, encode_append, encode_trim
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, CONFIGURATION, NOOP, Entry

ID = bytes(16)
SMALL = st.integers(0, 3)
SESSIONS = st.none() | st.builds(Session, st.sampled_from([b"a", b"b"]), st.integers(1, 25))

APPENDS = st.builds(
    lambda size, count, producer, epoch, sequence, time: encode_append(
        b"x" * size,
        record_count=count,
        producer_id=producer - 1,
        producer_epoch=epoch,
        base_sequence=sequence,
        max_timestamp=time,
    ),
    st.sampled_from([1, 100, 150_000]),
    st.integers(1, 3),
    SMALL,
    SMALL,
    st.integers(0, 8),
    st.integers(-1, 100),
)
TRIMS = st.integers(0, 60).map(encode_trim)
WRITES = st.builds(
    lambda key, value, expected, session: encode_put(
        key, value, request_id=ID, expected_version=expected, session=session
    ),
    st.sampled_from([b"x", b"y", b""]),
    st.binary(max_size=4),
    st.none() | st.integers(0, 6),
    SESSIONS,
)
DELETES = st.builds(
    lambda key, session: encode_delete(key, request_id=ID, session=session), st.sampled_from([b"x", b"y"]), SESSIONS
)
CHANGES = st.one_of(
    st.builds(SetClusterId, st.sampled_from(["one", "two"])),
    st.builds(RegisterNode, st.integers(1, 3), st.just("r:1"), st.just("k"), st.just(1), st.just("h:1")),
    st.builds(
        CreateTopic,
        st.sampled_from(["a", "b", "c"]),
        st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["p", "q"]), st.text(max_size=2)),
    ),
    st.builds(DeleteTopic, st.binary(min_size=16, max_size=16)),
    st.builds(AllocateProducerIds, SMALL),
    st.builds(SetBrokerConfigs, st.sampled_from(["", "1"]), st.dictionaries(st.just("p"), st.none() | st.just("1"))),
).map(lambda command: encode_command(command, request_id=ID))

MACHINES: dict[str, tuple[Callable[[], Any], st.SearchStrategy[bytes]]] = {
    "partition-log": (PartitionLog, st.one_of(APPENDS, APPENDS, APPENDS, TRIMS)),
    "key-value": (KeyValueMachine, st.one_of(WRITES, WRITES, DELETES)),
    "metadata": (MetadataMachine, CHANGES),
}


def as_entries(steps: list[tuple[bool, bytes]]) -> list[Entry]:
    """A term begins at each step that says so, with its no-op."""
    entries: list[Entry] = []
    term = 1
    for new_term, command in steps:
        if new_term:
            term += 1
            entries.append(Entry(Term(term), Index(len(entries) + 1), NOOP, b""))
        entries.append(Entry(Term(term), Index(len(entries) + 1), COMMAND, command))
    return entries


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_snapshot_in_between_makes_no_difference(name: str, data: st.DataObject) -> None:
    make, commands = MACHINES[name]
    steps = data.draw(st.lists(st.tuples(st.booleans(), commands), max_size=40))
    entries = as_entries(steps)
    cut = data.draw(st.integers(0, len(entries)))
    straight, restored = make(), make()
    results = [straight.apply(entry) for entry in entries]
    before = make()
    for entry in entries[:cut]:
        before.apply(entry)
    for entry in data.draw(st.sampled_from([[], entries[:3]])):
        restored.apply(entry)  # what a machine held before is gone after restore
    restored.restore(before.snapshot())
    assert restored.snapshot() == before.snapshot()
    assert [restored.apply(entry) for entry in entries[cut:]] == results[cut:]
    assert restored.snapshot() == straight.snapshot()
    assert restored.digest == straight.digest
    assert restored.applied_index == straight.applied_index == len(entries)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_partition_that_gets_the_kept_entries_alone_comes_to_the_same_state_at_every_one_of_them(
    data: st.DataObject,
) -> None:
    """What a replica is sent stands before the first entry that is kept: no record may be lost or told twice."""
    commands = st.one_of(APPENDS, APPENDS, APPENDS, APPENDS, TRIMS)
    entries = as_entries(data.draw(st.lists(st.tuples(st.booleans(), commands), min_size=1, max_size=60)))
    entries = [
        Entry(e.term, e.index, CONFIGURATION, b"%d" % e.index) if e.kind == NOOP and e.index % 2 else e for e in entries
    ]
    cut = data.draw(st.integers(0, len(entries)))
    straight, sender, receiver = PartitionLog(), PartitionLog(), PartitionLog()
    for entry in entries[:cut]:
        sender.apply(entry)
    base = sender.base()
    again = data.draw(st.integers(base.entry_index, max(cut, base.entry_index)))
    receiver.restore(sender.snapshot_at_base())
    assert (receiver.applied_index, receiver.base()) == (base.entry_index, base)
    for entry in entries:
        straight.apply(entry)
        if entry.index > base.entry_index:
            receiver.apply(entry)
            if entry.index == again:  # it is restarted, or sends on what it was sent
                receiver, snapshot = PartitionLog(), receiver.snapshot()
                receiver.restore(snapshot)
        if entry.index >= base.entry_index:
            assert (receiver.digest, receiver.high_watermark) == (straight.digest, straight.high_watermark)
            assert receiver.last_epoch == straight.last_epoch
        if entry.index > base.entry_index:
            assert (
                receiver.records_of(entry) == straight.records_of(entry) or entry.index <= straight.base().entry_index
            )
        if entry.index >= cut:
            assert receiver.snapshot() == straight.snapshot()
            assert receiver.snapshot_at_base() == straight.snapshot_at_base()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from([b"x", b"y"])), min_size=1, max_size=30))
def test_a_session_s_commands_happen_once_however_often_they_are_sent(sent: list[tuple[int, bytes]]) -> None:
    """Any command may come again at any later place: the machine is as if each had come the first time alone."""
    machine, once = KeyValueMachine(), KeyValueMachine()
    answers: dict[int, Any] = {}
    for index, (sequence, key) in enumerate(sent, 1):
        command = encode_put(key, b"%d" % index, request_id=ID, session=Session(b"c", sequence))
        result = machine.apply(Entry(Term(1), Index(index), COMMAND, command))
        if sequence in answers:
            assert result == answers[sequence]
            once.apply(Entry(Term(1), Index(index), NOOP, b""))
        else:
            assert result is not None
            assert (result.applied, result.error, result.version) == (True, KvError.NONE, index)
            answers[sequence] = result
            once.apply(Entry(Term(1), Index(index), COMMAND, command))
    for key in (b"x", b"y"):
        assert machine.get(key) == once.get(key)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=60))
def test_an_idempotent_producer_s_batches_are_in_the_log_once_and_in_order(attempts: list[tuple[int, int]]) -> None:
    """A producer sends batches with up to five in flight; any attempt may be lost or doubled on the way."""
    machine = PartitionLog()
    stored: list[int] = []
    acknowledged = 0
    index = 0
    for ahead, copies in attempts:
        sequence = acknowledged + ahead % 5
        for _ in range(copies):
            index += 1
            command = encode_append(b"x", record_count=1, producer_id=1, producer_epoch=0, base_sequence=sequence)
            outcome = machine.apply(Entry(Term(1), Index(index), COMMAND, command))
            assert isinstance(outcome, AppendOutcome)
            if outcome.error:
                continue
            if not outcome.duplicate:
                stored.append(sequence)
            assert stored[outcome.base_offset] == sequence
            acknowledged += sequence == acknowledged
    assert stored == list(range(len(stored)))
    assert machine.high_watermark == len(stored)

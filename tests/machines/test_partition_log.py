"""The partition log: offsets from the log's prefix alone, retries without effect, and the maps that find batches."""

from __future__ import annotations

import pytest

from seatrial.machines.commands import MalformedCommand
from seatrial.machines.partition_log import (
    POINT_BYTES,
    POINT_ENTRIES,
    AppendError,
    AppendOutcome,
    PartitionLog,
    TrimOutcome,
    batch_view,
    encode_append,
    encode_trim,
)
from seatrial.machines.producers import MAX_PRODUCERS, ProducerTable
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, CONFIGURATION, NOOP, Entry


class Log:
    """A partition log and the entries that it was fed."""

    def __init__(self) -> None:
        self.machine = PartitionLog()
        self.entries: list[Entry] = []

    def feed(self, data: bytes, *, term: int = 0, kind: int = COMMAND) -> AppendOutcome | TrimOutcome | None:
        """In the term of the entry before it, or in 1, where none is named."""
        named = term or (self.entries[-1].term if self.entries else 1)
        entry = Entry(Term(named), Index(len(self.entries) + 1), kind, data)
        self.entries.append(entry)
        return self.machine.apply(entry)

    def append(self, count: int = 1, *, term: int = 0, size: int = 10, time: int = -1) -> int:
        outcome = self.feed(encode_append(b"b" * size, record_count=count, max_timestamp=time), term=term)
        assert isinstance(outcome, AppendOutcome)
        return outcome.base_offset

    def trim(self, offset: int) -> int:
        outcome = self.feed(encode_trim(offset))
        assert isinstance(outcome, TrimOutcome)
        return outcome.log_start_offset

    def produce(
        self, sequence: int, count: int = 1, *, producer: int = 7, epoch: int = 0, term: int = 0
    ) -> AppendOutcome:
        command = encode_append(
            b"batch", record_count=count, producer_id=producer, producer_epoch=epoch, base_sequence=sequence
        )
        outcome = self.feed(command, term=term)
        assert isinstance(outcome, AppendOutcome)
        return outcome

    def walk(self) -> list[tuple[int, int]]:
        """(base offset, index) of every entry with records, by `records_of` alone."""
        found, offset = [], 0
        for entry in self.entries:
            count = self.machine.records_of(entry)
            if count:
                found.append((offset, int(entry.index)))
            offset += count
        return found


def appended(offset: int) -> AppendOutcome:
    return AppendOutcome(offset, AppendError.NONE, False)


def duplicate(offset: int) -> AppendOutcome:
    return AppendOutcome(offset, AppendError.NONE, True)


def refused(error: AppendError) -> AppendOutcome:
    return AppendOutcome(-1, error, False)


def test_offsets_follow_the_records_and_nothing_else() -> None:
    log = Log()
    assert log.feed(b"", kind=NOOP) is None
    assert log.append(3) == 0
    assert log.feed(b"voters", kind=CONFIGURATION) is None
    assert log.append(2) == 3
    assert log.machine.high_watermark == 5
    assert log.walk() == [(0, 2), (3, 4)]


def test_the_batch_is_the_very_bytes_that_were_appended() -> None:
    command = encode_append(b"opaque", record_count=1)
    assert batch_view(Entry(Term(1), Index(1), COMMAND, command)) == b"opaque"


def test_a_repeated_batch_gets_its_first_offset_and_no_new_ones() -> None:
    log = Log()
    assert log.produce(0, 2) == appended(0)
    assert log.produce(2, 3) == appended(2)
    assert log.produce(0, 2) == duplicate(0)
    assert log.produce(2, 3) == duplicate(2)
    assert log.machine.high_watermark == 5
    assert [log.machine.records_of(entry) for entry in log.entries] == [2, 3, 0, 0]


def test_a_gap_is_out_of_order_and_the_missing_batch_still_fits_after_it() -> None:
    log = Log()
    assert log.produce(0) == appended(0)
    assert log.produce(2) == refused(AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert log.produce(1) == appended(1)
    assert log.produce(2) == appended(2)


def test_a_first_batch_that_was_overtaken_is_not_shut_out() -> None:
    """Kafka takes any first sequence of a producer that it does not know, and then refuses the batches before it."""
    log = Log()
    assert log.produce(1) == refused(AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert log.produce(0) == appended(0)


def test_a_stale_epoch_is_fenced_and_a_new_one_starts_at_zero() -> None:
    log = Log()
    assert log.produce(0, epoch=3) == appended(0)
    assert log.produce(1, epoch=2) == refused(AppendError.INVALID_PRODUCER_EPOCH)
    assert log.produce(1, epoch=4) == refused(AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert log.produce(0, epoch=4) == appended(1)
    assert log.produce(1, epoch=3) == refused(AppendError.INVALID_PRODUCER_EPOCH)


def test_the_last_five_batches_are_remembered_and_no_more() -> None:
    log = Log()
    for sequence in range(6):
        assert log.produce(sequence) == appended(sequence)
    assert log.produce(1) == duplicate(1)
    assert log.produce(0) == refused(AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER)


def test_a_batch_that_only_begins_like_another_is_no_duplicate() -> None:
    log = Log()
    log.produce(0, 3)
    assert log.produce(0, 2) == refused(AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER)


def test_sequences_wrap_to_zero() -> None:
    log = Log()
    last = 0x7FFFFFFF
    assert log.produce(0, last) == appended(0)  # sequences 0 to 2³¹-2
    assert log.produce(last, 2) == appended(last)  # 2³¹-1, and 0 again
    assert log.produce(1) == appended(last + 2)
    assert log.produce(last, 2) == duplicate(last)


def test_duplicates_are_found_after_a_change_of_leader() -> None:
    log = Log()
    log.produce(0, term=1)
    log.feed(b"", kind=NOOP, term=2)
    assert log.produce(0, term=2) == duplicate(0)


def test_producers_do_not_disturb_each_other() -> None:
    log = Log()
    assert log.produce(0, producer=1) == appended(0)
    assert log.produce(0, producer=2) == appended(1)
    assert log.produce(1, producer=1) == appended(2)
    assert log.produce(0, producer=2) == duplicate(1)


def test_the_least_recently_written_producer_is_forgotten_first() -> None:
    table = ProducerTable(limit=2)
    for producer in (1, 2):
        table.remember(producer, 0, 0, 1, producer)
    table.remember(1, 0, 1, 1, 10)
    table.remember(3, 0, 0, 1, 11)
    assert table.check(1, 0, 2, 1) == (AppendError.NONE, -1)
    assert table.check(2, 0, 1, 1) == (AppendError.UNKNOWN_PRODUCER_ID, -1)
    assert table.check(2, 0, 0, 1) == (AppendError.NONE, -1)  # it may begin anew
    assert len(table) == 2 < MAX_PRODUCERS


@pytest.mark.parametrize("size", [10, POINT_BYTES // 3])
def test_every_offset_is_found_within_a_few_entries_of_its_point(size: int) -> None:
    log = Log()
    for number in range(100):
        if number % 7 == 0:
            log.feed(b"", kind=NOOP)
        log.append(number % 4 + 1, size=size)
    by_offset = dict(log.walk())
    for offset in range(log.machine.high_watermark):
        point = log.machine.locate(offset)
        assert by_offset[point.base_offset] == point.entry_index
        assert point.base_offset <= offset
        holder = max(index for base, index in by_offset.items() if base <= offset)
        between = [e for e in log.entries[point.entry_index - 1 : holder - 1] if log.machine.records_of(e)]
        assert len(between) < POINT_ENTRIES
        assert sum(len(entry.data) for entry in between) <= POINT_BYTES + size + 100


def test_an_empty_log_is_located_at_its_next_entry() -> None:
    log = Log()
    log.feed(b"", kind=NOOP)
    assert log.machine.locate(0) == (2, 0)
    assert log.machine.locate_time(0) is None
    assert log.machine.locate_max_timestamp() is None


def test_a_time_is_located_at_or_before_the_first_batch_that_reaches_it() -> None:
    log = Log()
    times = [100, 50, 300, 200] * 20
    offsets = [log.append(2, time=time) for time in times]
    for wanted in (0, 100, 101, 250, 300):
        first = next(offset for offset, time in zip(offsets, times, strict=True) if time >= wanted)
        point = log.machine.locate_time(wanted)
        assert point is not None
        assert point.base_offset <= first
        assert log.machine.locate(first) == point
    assert log.machine.locate_time(301) is None
    assert log.machine.locate_max_timestamp() == (log.machine.locate(0), 300)


def test_the_end_of_an_epoch_is_the_start_of_the_next_that_was_led() -> None:
    log = Log()
    assert log.machine.end_offset_for_epoch(1) == (-1, -1)
    log.feed(b"", kind=NOOP, term=2)
    log.append(3, term=2)
    log.feed(b"", kind=NOOP, term=5)
    log.append(4, term=5)
    assert log.machine.end_offset_for_epoch(5) == (5, 7)
    assert log.machine.end_offset_for_epoch(6) == (-1, -1)
    assert [log.machine.end_offset_for_epoch(epoch) for epoch in (2, 3, 4)] == [(2, 3)] * 3
    assert log.machine.end_offset_for_epoch(1) == (1, 0)
    assert log.machine.end_offset_for_epoch(-1) == (-1, -1)
    assert log.machine.last_epoch == 5


def test_the_start_moves_to_an_offset_and_nothing_else_does() -> None:
    log = Log()
    for _ in range(5 * POINT_ENTRIES):
        log.append(2)
    assert log.trim(70) == 70
    assert (log.machine.log_start_offset, log.machine.high_watermark) == (70, 10 * POINT_ENTRIES)
    assert log.machine.locate(70).base_offset == log.machine.locate(0).base_offset == 64  # of the point that holds it
    assert log.machine.locate(150).base_offset == 128
    assert log.trim(10) == 70, "never back"
    assert log.trim(10_000) == log.machine.high_watermark, "never beyond the end"
    base = log.append(3)
    assert (base, log.machine.locate(base)) == (10 * POINT_ENTRIES, (len(log.entries), base))
    assert [log.machine.records_of(entry) for entry in log.entries[-4:]] == [0, 0, 0, 3]


def test_the_base_is_before_the_first_entry_that_holds_a_kept_record() -> None:
    log = Log()
    log.feed(b"one", kind=CONFIGURATION, term=2)
    for _ in range(POINT_ENTRIES):
        log.append(1, term=2)
    log.feed(b"two", kind=CONFIGURATION, term=3)
    for _ in range(POINT_ENTRIES):
        log.append(1, term=3)
    assert log.machine.base() == (1, 2, b"one")
    log.trim(POINT_ENTRIES - 1)
    assert log.machine.base() == (1, 2, b"one")
    log.trim(POINT_ENTRIES)
    assert log.machine.base() == (2 + POINT_ENTRIES, 3, b"two")
    log.trim(2 * POINT_ENTRIES)
    assert log.machine.base() == (len(log.entries), 3, b"two"), "nothing is kept"


@pytest.mark.parametrize(
    ("before_ms", "bytes_max", "points"),
    [
        (None, None, 0),
        (100, None, 0),
        (101, None, 1),
        (301, None, 4),
        (None, 0, 4),
        (None, 1, 3),
        (None, 10**9, 0),
        (101, 1, 3),
    ],
)
def test_what_is_old_or_too_much_is_due_in_steps_of_the_map(
    before_ms: int | None, bytes_max: int | None, points: int
) -> None:
    log = Log()
    for time in (100, 300, 200, 250):
        for _ in range(POINT_ENTRIES):
            log.append(1, time=time, size=1000)
    assert log.machine.due(before_ms=before_ms, bytes_max=bytes_max) == points * POINT_ENTRIES
    assert log.machine.kept_bytes == sum(len(entry.data) for entry in log.entries)
    log.trim(POINT_ENTRIES)
    assert log.machine.due(before_ms=before_ms, bytes_max=bytes_max) == max(points, 1) * POINT_ENTRIES
    assert log.machine.kept_bytes == sum(len(entry.data) for entry in log.entries[POINT_ENTRIES:-1])


def test_records_without_a_time_do_not_grow_old() -> None:
    log = Log()
    log.append(1, time=-1)
    assert log.machine.due(before_ms=10**15, bytes_max=None) == 0


def test_a_trim_of_another_form_is_refused_loudly() -> None:
    with pytest.raises(MalformedCommand):
        Log().feed(encode_trim(1) + b"x")


def test_entries_out_of_order_are_a_bug() -> None:
    log = Log()
    with pytest.raises(AssertionError, match="entry 3 applied after 0"):
        log.machine.apply(Entry(Term(1), Index(3), NOOP, b""))


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x09" * 40, b"\x01\x09" + bytes(40)])
def test_bytes_that_are_no_command_are_refused_loudly(data: bytes) -> None:
    with pytest.raises(MalformedCommand):
        Log().feed(data)


def test_a_snapshot_of_another_version_is_refused() -> None:
    with pytest.raises(MalformedCommand):
        PartitionLog().restore(b"\x63" + PartitionLog().snapshot()[1:])


def test_the_digest_tells_every_difference() -> None:
    def digest(*entries: tuple[int, int, bytes]) -> str:
        machine = PartitionLog()
        for index, (term, kind, data) in enumerate(entries, 1):
            machine.apply(Entry(Term(term), Index(index), kind, data))
        return machine.digest

    one, other = encode_append(b"one", record_count=1), encode_append(b"two", record_count=1)
    variants = [
        digest(),
        digest((1, NOOP, b"")),
        digest((1, COMMAND, one)),
        digest((2, COMMAND, one)),
        digest((1, COMMAND, other)),
        digest((1, COMMAND, one), (1, COMMAND, other)),
        digest((1, COMMAND, other), (1, COMMAND, one)),
        digest((1, COMMAND, one), (1, COMMAND, one)),
    ]
    assert len(set(variants)) == len(variants)
    assert digest((1, COMMAND, one)) == digest((1, COMMAND, one))

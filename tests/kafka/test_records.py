"""Record batches: what is refused and why, and what is changed on the way out."""

from __future__ import annotations

import struct

import pytest
from kafka_records import batch

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.records import InvalidRecords, batches, check_batch, patched_batch, record_times

LIMIT = 1 << 20


def refusal(records: bytes, limit: int = LIMIT) -> ErrorCode:
    with pytest.raises(InvalidRecords) as caught:
        check_batch(memoryview(records), limit)
    assert caught.value.message
    return caught.value.error


def test_a_good_batch_is_described() -> None:
    data = batch([b"a", b"bb"], times=[1000, 1005], producer_id=7, epoch=1, sequence=40)
    info = check_batch(memoryview(data), LIMIT)
    assert info == (len(data), 2, 0, 1000, 1005, 7, 1, 40)


def test_a_batch_cut_at_any_byte_is_refused() -> None:
    data = batch([b"abc", b"def"])
    for length in range(len(data)):
        expected = ErrorCode.INVALID_RECORD if length == 0 else ErrorCode.CORRUPT_MESSAGE
        assert refusal(data[:length]) == expected, length


def test_a_flipped_bit_anywhere_under_the_crc_is_corrupt() -> None:
    data = batch([b"abc"])
    for position in range(17, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        assert refusal(bytes(damaged)) == ErrorCode.CORRUPT_MESSAGE, position


@pytest.mark.parametrize("magic", [0, 1, 3])
def test_other_record_formats_are_unsupported(magic: int) -> None:
    assert refusal(batch(magic=magic)) == ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT


def test_a_short_message_of_an_old_format_is_called_unsupported_and_not_corrupt() -> None:
    old = struct.pack(">qiIbbii", 0, 14, 0, 0, 0, -1, 0)  # magic 0, as KafkaClient 0.9 would send it
    assert refusal(old) == ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT


def test_a_batch_over_the_limit_is_too_large() -> None:
    data = batch([b"x" * 500])
    assert check_batch(data, len(data)).size == len(data)
    assert refusal(data, len(data) - 1) == ErrorCode.MESSAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("records", "error"),
    [
        (batch() + batch(), ErrorCode.INVALID_RECORD),
        (batch(count=2), ErrorCode.INVALID_RECORD),
        (batch(count=0, last_delta=-1), ErrorCode.INVALID_RECORD),
        (batch(last_delta=5), ErrorCode.INVALID_RECORD),
        (batch(attributes=0x20), ErrorCode.INVALID_RECORD),
        (batch(attributes=0x10, producer_id=1, epoch=0, sequence=0), ErrorCode.INVALID_TXN_STATE),
        (batch(producer_id=1, epoch=-1, sequence=0), ErrorCode.INVALID_RECORD),
        (batch(producer_id=1, epoch=0, sequence=-1), ErrorCode.INVALID_RECORD),
    ],
    ids=["two-batches", "count", "empty", "last-delta", "control", "transactional", "no-epoch", "no-sequence"],
)
def test_what_kafka_refuses_is_refused(records: bytes, error: ErrorCode) -> None:
    assert refusal(records) == error


def test_a_batch_goes_out_with_a_new_head_and_nothing_else_changed() -> None:
    data = batch([b"a", b"b"])
    head, rest = patched_batch(memoryview(data), base_offset=77, leader_epoch=5)
    out = head + rest
    assert struct.unpack_from(">qii", out) == (77, len(data) - 12, 5)
    assert out[16:] == data[16:]
    assert check_batch(out, LIMIT).record_count == 2  # the CRC still holds
    assert rest.obj is data  # and nothing was copied


def test_several_batches_of_a_fetch_response_are_told_apart() -> None:
    first, second = batch([b"1"]), batch([b"2", b"3"])
    found = list(batches(first + second))
    assert [bytes(view) for _, view in found] == [first, second]
    assert [info.record_count for info, _ in found] == [1, 2]
    with pytest.raises(InvalidRecords):
        list(batches(first + second[:-1]))


def test_record_times_are_read_where_they_can_be_seen() -> None:
    times = [5_000_000_000, 4_999_999_000, 5_000_123_456]
    assert record_times(memoryview(batch([b"a", b"b" * 300, b"c"], times=times))) == times
    assert record_times(memoryview(batch(attributes=1))) is None  # gzip
    assert record_times(memoryview(batch([b"a", b"b"], times=[1, 9], attributes=0x08))) == [9, 9]

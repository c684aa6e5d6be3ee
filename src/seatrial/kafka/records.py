"""Record batches: what a broker must read of them, and the 16 bytes that it writes.

Rule: a batch is opaque.  It is checked when it comes in (sizes, magic, CRC32C, attributes), and goes out with only its
base offset and leader epoch changed, both outside the CRC.  Format: Kafka protocol guide, "Record Batch", magic 2.
Knows nothing of requests and of offsets already given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import google_crc32c

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.wire import MalformedMessage, Readable, read_varlong, taken

# base offset, batch length, leader epoch, magic, crc, attributes, last offset delta, base timestamp, max timestamp,
# producer id, producer epoch, base sequence, record count
HEADER: Final = struct.Struct(">qiibIhiqqqhii")
HEAD: Final = struct.Struct(">qii")  # what is written when a batch goes out
LENGTH_END: Final = 12  # `batch length` counts the bytes from here on
CRC_START: Final = 21  # the CRC covers the bytes from here on
MAGIC_AT: Final = 16
MAGIC: Final = 2

COMPRESSION_MASK: Final = 0x07
LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20


class InvalidRecords(Exception):
    """Records that cannot be appended: the answer's error code and message."""

    def __init__(self, error: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message


class BatchInfo(NamedTuple):
    """What the broker wants to know of one batch.  Times in milliseconds since 1970; ids -1 where not idempotent."""

    size: int  # in bytes, with its head
    record_count: int
    attributes: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int


def check_batch(records: Readable, max_message_bytes: int) -> BatchInfo:
    """Check the one batch that a Produce request carries for a partition.  Raises InvalidRecords.

    As Kafka since Produce version 3, exactly one batch of magic 2.
    """
    if len(records) == 0:
        raise InvalidRecords(ErrorCode.INVALID_RECORD, "the request holds no record batch for this partition")
    info = _check(records, max_message_bytes)
    if info.size != len(records):
        raise InvalidRecords(
            ErrorCode.INVALID_RECORD,
            f"a Produce request may hold one record batch a partition: {len(records) - info.size} bytes follow it",
        )
    if info.attributes & TRANSACTIONAL:
        raise InvalidRecords(ErrorCode.INVALID_TXN_STATE, "transactions are not supported by this broker")
    if info.attributes & CONTROL:
        raise InvalidRecords(ErrorCode.INVALID_RECORD, "clients may not write control batches")
    return info


def batches(records: Readable) -> Iterator[tuple[BatchInfo, memoryview]]:
    """Each batch of a records field, as in a Fetch response, checked.  Raises InvalidRecords."""
    rest = memoryview(records)
    while rest:
        info = _check(rest, len(rest))
        yield info, rest[: info.size]
        rest = rest[info.size :]


def _check(records: Readable, max_message_bytes: int) -> BatchInfo:
    """The first batch of `records`: sizes, magic, CRC and counts agree."""
    length = len(records)
    if length > MAGIC_AT and records[MAGIC_AT] != MAGIC:
        raise InvalidRecords(
            ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT,
            f"record format {records[MAGIC_AT]} is not supported, only format 2 (Kafka 0.11 and later)",
        )
    if length < HEADER.size:
        raise InvalidRecords(ErrorCode.CORRUPT_MESSAGE, f"{length} bytes are too few for a record batch")
    (_, batch_length, _, _, crc, attributes, last_delta, base_time, max_time, producer_id, epoch, sequence, count) = (
        HEADER.unpack_from(records)
    )
    size = batch_length + LENGTH_END
    if size < HEADER.size or size > length:
        raise InvalidRecords(ErrorCode.CORRUPT_MESSAGE, f"a record batch claims {size} bytes, but {length} are there")
    if size > max_message_bytes:
        raise InvalidRecords(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a record batch of {size} bytes is larger than max.message.bytes ({max_message_bytes})",
        )
    # google-crc32c takes bytes alone; the copy costs less than a slower CRC would.
    if google_crc32c.value(bytes(records[CRC_START:size])) != crc:
        raise InvalidRecords(ErrorCode.CORRUPT_MESSAGE, "the record batch does not match its CRC32C")
    if count < 1 or last_delta != count - 1:
        raise InvalidRecords(
            ErrorCode.INVALID_RECORD, f"a record batch of {count} records ends at offset delta {last_delta}"
        )
    if producer_id >= 0 and (epoch < 0 or sequence < 0):
        raise InvalidRecords(
            ErrorCode.INVALID_RECORD, f"an idempotent batch has producer epoch {epoch} and sequence {sequence}"
        )
    return BatchInfo(size, count, attributes, base_time, max_time, producer_id, epoch, sequence)


def patched_batch(batch: memoryview, *, base_offset: int, leader_epoch: int) -> tuple[bytes, memoryview]:
    """A stored batch as it goes out: 16 new bytes, then the rest without a copy."""
    (batch_length,) = struct.unpack_from(">i", batch, 8)
    return HEAD.pack(base_offset, batch_length, leader_epoch), batch[HEAD.size :]


def record_times(batch: memoryview) -> list[int] | None:
    """Timestamp (ms) of each record of a batch, in order; None where it is compressed, and so not to be seen.

    Raises MalformedMessage where the records are not what the header says.
    """
    header = HEADER.unpack_from(batch)
    attributes, base_timestamp, max_timestamp, count = header[5], header[7], header[8], header[12]
    if attributes & LOG_APPEND_TIME:
        return [max_timestamp] * count
    if attributes & COMPRESSION_MASK:
        return None
    times: list[int] = []
    position = HEADER.size
    for _ in range(count):
        length, position = read_varlong(batch, position)
        end = taken(batch, position, length)
        if length < 2:
            raise MalformedMessage(f"a record of {length} bytes")
        delta, _ = read_varlong(batch, position + 1)  # after the record's attributes
        times.append(base_timestamp + delta)
        position = end
    return times

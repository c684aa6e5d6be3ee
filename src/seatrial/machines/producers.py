"""Idempotent producers of one partition: what each wrote last, so that a retry is recognised.

Rule: the decision depends on the log's prefix alone, so it is the same on every replica and survives leader changes.
As in Kafka the last five batches of a producer are remembered; unlike Kafka a producer is forgotten by log position
(least recently written first, above a fixed number), never by time.
Knows nothing of offsets' meaning and of batches' contents.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

REMEMBERED_BATCHES: Final = 5  # Kafka's limit on in-flight requests of an idempotent producer
MAX_PRODUCERS: Final = 10_000
SEQUENCE_MASK: Final = 0x7FFFFFFF  # sequences are 31 bits and wrap to 0


class AppendError(IntEnum):
    """Why a batch was refused, by Kafka's names and numbers."""

    NONE = 0
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    UNKNOWN_PRODUCER_ID = 59


class RememberedBatch(NamedTuple):
    """Sequences of its first and last record, and its first offset."""

    first_sequence: int
    last_sequence: int
    base_offset: int


class Producer:
    """One producer id: its newest epoch and that epoch's last batches, oldest first."""

    __slots__ = ("batches", "epoch")

    def __init__(self, epoch: int, batches: list[RememberedBatch]) -> None:
        self.epoch = epoch
        self.batches = batches


class ProducerTable:
    """All producers of one partition, least recently written first."""

    __slots__ = ("_forgotten", "_limit", "_producers")

    _HEAD = struct.Struct(">IB")
    _PRODUCER = struct.Struct(">qhB")
    _BATCH = struct.Struct(">iiq")

    def __init__(self, limit: int = MAX_PRODUCERS) -> None:
        self._limit = limit
        self._producers: dict[int, Producer] = {}
        self._forgotten = False

    def __len__(self) -> int:
        return len(self._producers)

    def check(self, producer_id: int, epoch: int, sequence: int, count: int) -> tuple[AppendError, int]:
        """(NONE, -1): append it.  (NONE, offset): a duplicate of the batch at `offset`.  Otherwise refused."""
        producer = self._producers.get(producer_id)
        if producer is None:
            # Kafka takes any first sequence; then a batch that overtakes the first one would have it refused for
            # ever.  Sequences start at 0, so anything else is a gap, unless this table forgot the producer.
            if sequence == 0:
                return AppendError.NONE, -1
            if self._forgotten:
                return AppendError.UNKNOWN_PRODUCER_ID, -1
            return AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        if epoch < producer.epoch:
            return AppendError.INVALID_PRODUCER_EPOCH, -1
        if epoch > producer.epoch:
            return (AppendError.NONE if sequence == 0 else AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER), -1
        last_sequence = (sequence + count - 1) & SEQUENCE_MASK
        for batch in producer.batches:
            if batch.first_sequence == sequence and batch.last_sequence == last_sequence:
                return AppendError.NONE, batch.base_offset
        if sequence == (producer.batches[-1].last_sequence + 1) & SEQUENCE_MASK:
            return AppendError.NONE, -1
        return AppendError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1

    def remember(self, producer_id: int, epoch: int, sequence: int, count: int, base_offset: int) -> None:
        """Record a batch that `check` let pass and that was appended at `base_offset`."""
        batch = RememberedBatch(sequence, (sequence + count - 1) & SEQUENCE_MASK, base_offset)
        producer = self._producers.pop(producer_id, None)
        if producer is None or producer.epoch != epoch:
            producer = Producer(epoch, [batch])
        else:
            producer.batches.append(batch)
            if len(producer.batches) > REMEMBERED_BATCHES:
                del producer.batches[0]
        self._producers[producer_id] = producer  # last in the order of the dict: the most recently written
        if len(self._producers) > self._limit:
            del self._producers[next(iter(self._producers))]
            self._forgotten = True

    def pack(self) -> bytes:
        """The table in its order, which is part of the state."""
        parts = [self._HEAD.pack(len(self._producers), self._forgotten)]
        for producer_id, producer in self._producers.items():
            parts.append(self._PRODUCER.pack(producer_id, producer.epoch, len(producer.batches)))
            parts.extend(self._BATCH.pack(*batch) for batch in producer.batches)
        return b"".join(parts)

    def unpack(self, data: bytes, position: int) -> int:
        """Replace the table by a packed one that begins at `position`; returns the position after it."""
        count, forgotten = self._HEAD.unpack_from(data, position)
        position += self._HEAD.size
        self._producers, self._forgotten = {}, bool(forgotten)
        for _ in range(count):
            producer_id, epoch, batches = self._PRODUCER.unpack_from(data, position)
            position += self._PRODUCER.size
            end = position + batches * self._BATCH.size
            remembered = [RememberedBatch(*item) for item in self._BATCH.iter_unpack(data[position:end])]
            self._producers[producer_id] = Producer(epoch, remembered)
            position = end
        return position

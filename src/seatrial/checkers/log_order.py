"""The order of one partition's records, as acknowledgements and reads together tell it.

Rule: it takes in contradictions (two values at an offset, two offsets of a value) and leaves the judgement to the
rules.
Knows nothing of anomalies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from seatrial.checkers.log_records import Append, Offset, PartitionRecords, Value
from seatrial.history import OpType


@dataclass(slots=True)
class VersionOrder:
    """Where each value stands; the numbers in the mappings are operations that first said so."""

    by_offset: dict[Offset, dict[Value, int]] = field(default_factory=dict)
    by_value: dict[Value, dict[Offset, int]] = field(default_factory=dict)
    rank: dict[Offset, int] = field(default_factory=dict)  # offsets without the gaps

    @classmethod
    def of(cls, records: PartitionRecords) -> Self:
        """All that is known: appends that were acknowledged with an offset, and every read."""
        order = cls()
        for append in records.appends.values():
            if append.outcome is OpType.OK and append.offset is not None:
                order._enter(append.offset, append.value, append.end)
        for read in records.reads:
            for offset, value in read.pairs:
                order._enter(offset, value, read.end)
        order.rank = {offset: index for index, offset in enumerate(sorted(order.by_offset))}
        return order

    def _enter(self, offset: Offset, value: Value, op: int) -> None:
        self.by_offset.setdefault(offset, {}).setdefault(value, op)
        self.by_value.setdefault(value, {}).setdefault(offset, op)

    def delta(self, before: Offset | None, after: Offset | None) -> int:
        """How many known records further `after` is: 1 is the next one.  Both must be known offsets."""
        assert before is not None and after is not None, "an offset that was never told has no place in the order"
        return self.rank[after] - self.rank[before]

    def first_index(self, value: Value) -> int | None:
        """The lowest index at which the value stands, or None where that is not known."""
        offsets = self.by_value.get(value)
        return None if not offsets else self.rank[min(offsets)]

    def last_index(self, value: Value) -> int | None:
        """The highest index at which the value stands, or None where that is not known."""
        offsets = self.by_value.get(value)
        return None if not offsets else self.rank[max(offsets)]

    def in_offset_order(self, records: PartitionRecords) -> list[Append]:
        """The appends whose place is known, by their lowest offset; of failed ones there should be none."""
        placed = [(min(offsets), value) for value, offsets in self.by_value.items() if value in records.appends]
        appends = (records.appends[value] for _, value in sorted(placed, key=lambda pair: pair[0]))
        return [append for append in appends if append.outcome is not OpType.FAIL]

"""The checker of partition logs, such as Kafka's: did the log keep what it acknowledged, in one order, for everybody?

Anomalies have the names of jepsen.tests.kafka.  Per partition the version order comes from acknowledged offsets and
all reads; an index is an offset's rank among the known offsets, because logs may legally have gaps.

Rule: INVALID only for what no correct log could show whatever its clients met with; records that nobody came to read
make the verdict UNKNOWN.  Linear in what was sent and read, but for sorting offsets.
Knows nothing of Kafka's protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.checkers.columns import MalformedHistory
from seatrial.checkers.log_order import VersionOrder
from seatrial.checkers.log_records import Append, PartitionRecords, Read, Value, partitions
from seatrial.history import History, OpType

_SHOWN_MAX: Final = 5  # anomalies of one name in one partition; the rest are only counted


@dataclass(frozen=True, slots=True)
class PartitionLog:
    """Kafka-log anomalies over all partitions of a history.

    asked_only: records are deleted where clients ask for it, and nowhere else; not so with a retention time or size.
    What was deleted is not asked after, and nothing else is forgiven.
    """

    asked_only: bool = True

    @property
    def name(self) -> str:
        return "partition-log"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        try:
            found = partitions(evidence.history)
        except MalformedHistory as error:
            return verdict(validity=Validity.UNKNOWN, reason=str(error))
        judged = [_Partition(records, evidence.history, asked_only=self.asked_only) for records in found.values()]
        counts: Counter[str] = Counter()
        shown: list[Anomaly] = []
        for partition in judged:
            here: Counter[str] = Counter()
            for anomaly in partition.anomalies():
                here[anomaly.name] += 1
                if here[anomaly.name] <= _SHOWN_MAX:
                    shown.append(anomaly)
            counts += here
        acknowledged = sum(partition.acknowledged for partition in judged)
        stats = {
            "partitions": len(judged),
            "appends": sum(len(records.appends) for records in found.values()),
            "acknowledged": acknowledged,
            "reads": sum(len(records.reads) for records in found.values()),
            "anomalies": dict(counts),
        }
        if shown:
            return verdict(validity=Validity.INVALID, anomalies=tuple(shown), stats=stats)
        if not acknowledged:
            return verdict(
                validity=Validity.UNKNOWN, reason="nothing to check: no append was acknowledged", stats=stats
            )
        unseen = [anomaly for partition in judged for anomaly in partition.unseen()]
        unread = [anomaly for partition in judged for anomaly in partition.unread_nodes()]
        if unseen or unread:
            unchecked = (*unseen[:_SHOWN_MAX], *unread[:_SHOWN_MAX])
            reason = "; ".join(anomaly.message for anomaly in unchecked)
            return verdict(validity=Validity.UNKNOWN, anomalies=unchecked, reason=reason, stats=stats)
        return verdict(validity=Validity.VALID, stats=stats)


class _Partition:
    """The rules, applied to one partition."""

    def __init__(self, records: PartitionRecords, history: History, *, asked_only: bool) -> None:
        self.records, self.history = records, history
        self.asked_only = asked_only
        self.key = records.key
        self.order = VersionOrder.of(records)
        self.read_values = {value for read in records.reads for _, value in read.pairs}
        self.acknowledged = sum(append.outcome is OpType.OK for append in records.appends.values())

    def anomalies(self) -> Iterator[Anomaly]:
        yield from self._deleted_unasked()
        yield from self._lost_writes()
        yield from self._inconsistent_offsets()
        yield from self._duplicates()
        yield from self._unsent_values()
        yield from self._order_of_sends()
        yield from self._order_across_clients()
        yield from self._order_of_reads()

    def _anomaly(self, name: str, message: str, *ops: int, node: int | None = None) -> Anomaly:
        shown = tuple(sorted(set(ops)))
        time_ns = self.history[shown[-1]].time_ns if shown else None
        return Anomaly(name=name, message=message, ops=shown, key=self.key, node=node, time_ns=time_ns)

    def _is_deleted(self, append: Append) -> bool:
        return append.offset is not None and append.offset < self.records.log_start

    def _deleted_unasked(self) -> Iterator[Anomaly]:
        records = self.records
        if self.asked_only and records.log_start > records.asked_start and records.log_start_op is not None:
            yield self._anomaly(
                "deleted-unasked",
                f"the log of {self.key} was told to start at {records.log_start}, and nobody had asked for more than "
                f"the records before {records.asked_start} to be deleted",
                records.log_start_op,
            )

    def _lost_writes(self) -> Iterator[Anomaly]:
        final = [(read, {value for _, value in read.pairs}) for read in self.records.reads if read.complete]
        bound, witness = self._furthest_read()
        for append in self.records.appends.values():
            if append.outcome is not OpType.OK or self._is_deleted(append):
                continue
            missing = [read for read, values in final if append.end < read.start and append.value not in values]
            if missing:
                yield self._missing_on_nodes(append, missing)
            elif append.value not in self.read_values and witness is not None:
                index = self.order.last_index(append.value)
                if index is not None and index <= bound:
                    yield self._anomaly(
                        "lost-write",
                        f"{append.value!r} was acknowledged at offset {append.offset} of {self.key}, and nobody was "
                        "ever given it, although consumers read beyond that offset",
                        append.start,
                        append.end,
                        witness.end,
                        node=witness.node,
                    )

    def _missing_on_nodes(self, append: Append, missing: list[Read]) -> Anomaly:
        nodes = sorted({read.node for read in missing if read.node is not None})
        where = f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(map(str, nodes))}"
        at = "" if append.offset is None else f" at offset {append.offset}"
        return self._anomaly(
            "lost-write",
            f"{append.value!r} was acknowledged{at} of {self.key}, and is missing from the final read of {where}",
            append.start,
            append.end,
            missing[0].end,
            node=missing[0].node,
        )

    def _furthest_read(self) -> tuple[int, Read | None]:
        """The highest index whose record anybody was given (at its first place), and who was."""
        best, witness = -1, None
        for read in self.records.reads:
            for _, value in read.pairs:
                index = self.order.first_index(value)
                if index is not None and index > best:
                    best, witness = index, read
        return best, witness

    def _inconsistent_offsets(self) -> Iterator[Anomaly]:
        for offset, sightings in sorted(self.order.by_offset.items()):
            if len(sightings) > 1:
                said = " and ".join(f"{value!r} ({self._who(op)})" for value, op in list(sightings.items())[:3])
                yield self._anomaly(
                    "inconsistent-offsets",
                    f"offset {offset} of {self.key} held different records: {said}",
                    *sightings.values(),
                    node=self.history[list(sightings.values())[-1]].node,
                )

    def _duplicates(self) -> Iterator[Anomaly]:
        for value, offsets in self.order.by_value.items():
            if len(offsets) > 1:
                places = sorted(offsets)
                yield self._anomaly(
                    "duplicate",
                    f"{value!r} was sent once and stands at {len(places)} offsets of {self.key}: "
                    f"{', '.join(map(str, places[:5]))}",
                    *offsets.values(),
                )

    def _unsent_values(self) -> Iterator[Anomaly]:
        judged: set[Value] = set()
        for read in self.records.reads:
            for offset, value in read.pairs:
                if value in judged:
                    continue
                judged.add(value)
                append = self.records.appends.get(value)
                if append is None or append.start > read.end:
                    yield self._anomaly(
                        "phantom",
                        f"a read of {self.key} returned {value!r} at offset {offset}, which nobody had sent",
                        read.start,
                        read.end,
                        node=read.node,
                    )
                elif append.outcome is OpType.FAIL:
                    yield self._anomaly(
                        "G1a",
                        f"a read of {self.key} returned {value!r} at offset {offset}; its append had surely failed",
                        append.start,
                        append.end,
                        read.end,
                        node=read.node,
                    )

    def _order_of_sends(self) -> Iterator[Anomaly]:
        last: dict[int, Append] = {}
        acknowledged = (a for a in self.records.appends.values() if a.outcome is OpType.OK and a.offset is not None)
        for append in sorted(acknowledged, key=lambda append: append.start):
            before = last.get(append.client)
            if before is not None and self.order.delta(before.offset, append.offset) < 1:
                yield self._anomaly(
                    "nonmonotonic-send",
                    f"client {append.client} appended {before.value!r} and then {append.value!r} to {self.key}, "
                    f"and they were given the offsets {before.offset} and {append.offset}",
                    before.start,
                    before.end,
                    append.start,
                    append.end,
                )
            last[append.client] = append

    def _order_across_clients(self) -> Iterator[Anomaly]:
        """Offsets are the order of the log: walking up, nothing may have ended before something lower began."""
        latest: Append | None = None
        for append in self.order.in_offset_order(self.records):
            if latest is not None and append.end < latest.start and append.client != latest.client:
                yield self._anomaly(
                    "G0-realtime",
                    f"the append of {append.value!r} to {self.key} was over before that of {latest.value!r} began, "
                    f"and yet it stands behind it",
                    append.start,
                    append.end,
                    latest.start,
                )
            if latest is None or append.start > latest.start:
                latest = append

    def _order_of_reads(self) -> Iterator[Anomaly]:
        position: dict[int, tuple[int, Read]] = {}
        for read in self.records.reads:
            before = position.get(read.client) if read.continues else None
            previous = None if before is None else before[0]
            for number, (offset, _) in enumerate(read.pairs):
                delta = 1 if previous is None else self.order.delta(previous, offset)
                if delta < 1 or (delta > 1 and self._skips_what_is_kept(previous, offset)):
                    within = "" if number == 0 else "int-"
                    ops = (read.end,) if number or before is None else (before[1].end, read.end)
                    yield self._misread(
                        f"{within}{'poll-skip' if delta > 1 else 'nonmonotonic-poll'}", read, ops, previous, offset
                    )
                previous = offset
            if read.pairs and not read.final:
                position[read.client] = (read.pairs[-1][0], read)

    def _skips_what_is_kept(self, previous: int | None, offset: int) -> bool:
        first = max(self.records.log_start, -1 if previous is None else previous + 1)
        return any(first <= known < offset for known in self.order.rank)

    def _misread(self, name: str, read: Read, ops: tuple[int, ...], previous: int | None, offset: int) -> Anomaly:
        what = f"node {read.node}'s final read" if read.final else f"consumer {read.client}"
        how = "jumped over records" if name.endswith("skip") else "went back"
        return self._anomaly(
            name, f"{what} of {self.key} {how}: from offset {previous} to {offset}", *ops, node=read.node
        )

    def _who(self, op: int) -> str:
        record = self.history[op]
        teller = "acknowledged" if record.f == "append" else "read"
        return f"{teller} by client {record.client}" if record.node is None else f"{teller} at node {record.node}"

    def unseen(self) -> Iterator[Anomaly]:
        """Acknowledged records that nobody came to read; not wrong, but not checked either."""
        missed = [
            a
            for a in self.records.appends.values()
            if a.outcome is OpType.OK and a.value not in self.read_values and not self._is_deleted(a)
        ]
        if missed:
            yield self._anomaly(
                "unseen",
                f"acknowledged records of {self.key} were never read: {len(missed)}, the first is {missed[0].value!r}",
                missed[0].start,
                missed[0].end,
            )

    def unread_nodes(self) -> Iterator[Anomaly]:
        """Nodes that were asked for all that they have, and never gave it."""
        for node, op in sorted(self.records.unread_nodes.items()):
            message = f"no final read of {self.key} on node {node} was complete"
            yield self._anomaly("unread-node", message, op, node=node)

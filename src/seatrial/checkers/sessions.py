"""The checker of session guarantees: what one client may rely on even where reads are allowed to be stale.

Monotonic reads: what a client has read never makes way for something older.  Read your writes: a client never reads
what is older than its own acknowledged write.  (Terry et al., PDIS 1994.)  One value is older than another when its
write was over before the other's began, or when the other was swapped in for it.

Rule: needs written values that are all different per key; otherwise the verdict is UNKNOWN.
Knows nothing of consistency across clients: that is linearizability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.checkers.columns import (
    CAS,
    FAIL,
    INITIAL,
    NEVER,
    OK,
    READ,
    Columns,
    MalformedHistory,
    Row,
    columns_by_key,
)
from seatrial.checkers.sentences import show
from seatrial.history import History


@dataclass(frozen=True, slots=True)
class Sessions:
    """Monotonic reads and read-your-writes, per client and key."""

    @property
    def name(self) -> str:
        return "sessions"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        try:
            by_key = columns_by_key(evidence.history)
        except MalformedHistory as error:
            return verdict(validity=Validity.UNKNOWN, reason=str(error))
        anomalies: list[Anomaly] = []
        reads = 0
        for columns in by_key.values():
            writers = _writers(columns)
            if writers is None:
                reason = f"a value was written twice to key {columns.key!r}: which of two reads is older cannot be told"
                return verdict(validity=Validity.UNKNOWN, reason=reason)
            reads += columns.kind.count(READ)
            anomalies += _regressions(columns, writers, evidence.history)
        stats = {"keys": len(by_key), "reads": reads, "anomalies": len(anomalies)}
        if anomalies:
            return verdict(validity=Validity.INVALID, anomalies=tuple(anomalies[:10]), stats=stats)
        if not reads:
            return verdict(validity=Validity.UNKNOWN, reason="nothing to check: no read was answered", stats=stats)
        return verdict(validity=Validity.VALID, stats=stats)


def _writers(columns: Columns) -> dict[int, Row] | None:
    """Who wrote each value; None where some value was written twice."""
    writers: dict[int, Row] = {}
    for row in columns.rows():
        if row.new >= 0 and row.status != FAIL:
            if row.new in writers or row.new == INITIAL:
                return None
            writers[row.new] = row
    return writers


def _older(value: int, than: int, writers: dict[int, Row]) -> bool:
    """Whether `value` had surely been overwritten by the time `than` was there."""
    newer = writers.get(than)
    if newer is None or value == than:
        return False
    if value == INITIAL or (newer.kind == CAS and newer.old == value):
        return True
    older = writers.get(value)
    return older is not None and older.end != NEVER and older.end < newer.start


def _regressions(columns: Columns, writers: dict[int, Row], history: History) -> Iterator[Anomaly]:
    seen: dict[int, Row] = {}  # by client: its last operation with a value that it can rely on
    for row in sorted((row for row in columns.rows() if row.status == OK), key=lambda row: row.end):
        client = history[row.start].client
        before = seen.get(client)
        if row.kind == READ and before is not None:
            known = before.old if before.kind == READ else before.new
            if _older(row.old, known, writers):
                yield _anomaly(columns, history, before, row)
                continue
        if row.kind == READ or row.new >= 0:
            seen[client] = row


def _anomaly(columns: Columns, history: History, before: Row, row: Row) -> Anomaly:
    client, node = history[row.start].client, history[row.end].node
    own = before.kind != READ
    known = show(columns.values[before.new if own else before.old])
    by = "" if node is None else f" from node {node}"
    where = "" if columns.key is None else f" of key {columns.key}"
    return Anomaly(
        name="read-your-writes" if own else "monotonic-reads",
        message=f"client {client} {'wrote' if own else 'read'} {known}, and its later read{where}{by} returned the "
        f"older {show(columns.values[row.old])}",
        ops=(before.start, before.end, row.start, row.end),
        key=columns.key,
        node=node,
        time_ns=history[row.end].time_ns,
    )

"""Writes down what clients do: every operation of every workload into one history, on one clock.

Rule: each invocation is recorded before it is sent and each completion after it is known, in the order of one
monotonic clock; a client number that ended as `info` is never used again.
Knows nothing of what the operations mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from seatrial.env import Clock
from seatrial.history import History, Json, Op, OpType
from seatrial.workloads.base import Completion, Request


class Recorder:
    """The one writer of a run's history; used from one event loop, never from a thread.

    `sink` gets each event as it is recorded (rundir.RecordWriter.write).  Times are nanoseconds since this object was
    made, or since `begin_us` of the same clock.
    """

    def __init__(self, clock: Clock, sink: Callable[[Op], None] | None = None, *, begin_us: int | None = None) -> None:
        self.history = History()
        self.counts: Counter[tuple[str, OpType]] = Counter()  # events so far by (f, type)
        self._clock = clock
        self._sink = sink
        self._begin_us = clock.now_us() if begin_us is None else begin_us
        self._clients = 0
        self._open: dict[int, Request] = {}

    def now_ns(self) -> int:
        """Nanoseconds since the run began."""
        return (self._clock.now_us() - self._begin_us) * 1000

    def new_client(self) -> int:
        """A client number that was never used."""
        self._clients += 1
        return self._clients - 1

    def invoke(self, client: int, request: Request) -> None:
        """Record that `client` is about to try `request`."""
        assert client not in self._open, f"client {client} already has an operation open"
        self._open[client] = request
        self._append(client, OpType.INVOKE, request, value=request.value, error=None, node=request.node)

    def complete(self, client: int, completion: Completion) -> None:
        """Record how the client's open operation ended."""
        request = self._open.pop(client)
        node = completion.node if completion.node is not None else request.node
        self._append(client, completion.type, request, value=completion.value, error=completion.error, node=node)

    def total(self, kind: OpType) -> int:
        """How many events of this type were recorded."""
        return sum(count for (_, counted), count in self.counts.items() if counted is kind)

    def _append(
        self, client: int, kind: OpType, request: Request, *, value: Json, error: str | None, node: int | None
    ) -> None:
        op = Op(
            index=len(self.history),
            time_ns=self.now_ns(),
            client=client,
            type=kind,
            f=request.f,
            key=request.key,
            value=value,
            error=error,
            node=node,
        )
        self.history.append(op)
        self.counts[op.f, kind] += 1
        if self._sink is not None:
            self._sink(op)

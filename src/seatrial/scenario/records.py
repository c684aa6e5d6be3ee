"""What a scenario leaves behind: operations, faults and statuses, on one clock, for checkers and reports.

Rule: as in `history`: only appended, and enough to judge the scenario again.  An operation that was begun is always
completed, as `info` when nobody knows.
Knows nothing of how operations are carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from seatrial.checkers.base import Verdict
from seatrial.env import Clock
from seatrial.history import FaultEvent, History, Json, OpType, StatusSample
from seatrial.scenario.errors import NotDone
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.recorder import Recorder

TEXT_MAX = 80  # of a value in the history; more is told by its digest
CUT_OFF = Completion(type=OpType.INFO, error="cut off: the scenario ended, or the client failed")


def recorded(value: Json | bytes) -> Json:
    """A value as the history has it: itself, or for bytes and long text a short text that is its own alone."""
    if isinstance(value, str) and len(value) <= TEXT_MAX:
        return value
    if isinstance(value, bytes | str):
        data = value if isinstance(value, bytes) else value.encode()
        if isinstance(value, bytes) and len(data) <= TEXT_MAX // 2:
            return f"bytes:{data.hex()}"
        return f"{len(data)} bytes:{hashlib.blake2b(data, digest_size=12).hexdigest()}"
    return value


class Operation:
    """One operation of a test's own, while it is under way: say how it ended, or nobody knows (`info`)."""

    def __init__(self) -> None:
        self.completion = CUT_OFF

    def ok(self, value: Json = None, *, node: int | None = None) -> None:
        """It took effect, and this is the answer (by default: what was asked for)."""
        self.completion = Completion(type=OpType.OK, value=value, node=node)

    def fail(self, error: object, *, node: int | None = None) -> None:
        """It surely did not take effect, and never will."""
        self.completion = Completion(type=OpType.FAIL, error=str(error), node=node)

    def info(self, error: object, *, node: int | None = None) -> None:
        """It may take effect at any time, or never."""
        self.completion = Completion(type=OpType.INFO, error=str(error), node=node)


class RecordedOperation(Operation):
    """An operation of one of the cluster's own clients, from its making to the end of its `with` block.

    NotDone says itself whether it surely did not happen; whatever else cuts it off leaves it unknown.
    """

    def __init__(self, recorder: Recorder, number: int, request: Request) -> None:
        super().__init__()
        self._recorder = recorder
        self._number = number
        recorder.invoke(number, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, NotDone):
            (self.fail if error.definite else self.info)(error)
        self._recorder.complete(self._number, self.completion)


@dataclass(slots=True)
class Records:
    """Everything that was recorded.  verdicts: of every check that was made."""

    clock: Clock
    recorder: Recorder = field(init=False)
    faults: list[FaultEvent] = field(default_factory=list)
    statuses: list[StatusSample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.clock)

    @property
    def history(self) -> History:
        return self.recorder.history

    def now_ns(self) -> int:
        """Nanoseconds since the records began."""
        return self.recorder.now_ns()

    def operation(self, number: int, request: Request) -> RecordedOperation:
        """Write down that the client of this number begins to try the request; `with` it, say how it ended."""
        return RecordedOperation(self.recorder, number, request)


class HistoryHandle:
    """A history that a test writes itself, beside what the cluster's own clients write into it."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._clients: dict[str, int] = {}

    @property
    def ops(self) -> History:
        """All that was recorded so far; what a checker takes."""
        return self._records.history

    @contextlib.contextmanager
    def record(
        self, f: str, *, key: str | None = None, value: Any = None, node: int | None = None, client: str = "test"
    ) -> Iterator[Operation]:
        """Record an operation, from here to the end of the block.

        client: whose it is; each does one at a time.  An exception leaves it unknown (`info`), unless `fail` was said.
        `f`, `key` and `value` are what the checkers know: read, write and cas of registers, append and poll of logs.
        """
        recorder = self._records.recorder
        number = self._clients.get(client)
        if number is None:
            number = self._clients[client] = recorder.new_client()
        recorder.invoke(number, Request(f=f, key=key, value=recorded(value), node=node))
        operation = Operation()
        try:
            yield operation
        except (Exception, asyncio.CancelledError) as error:
            if operation.completion is CUT_OFF:
                operation.info(f"{type(error).__name__}: {error}")
            raise
        finally:
            completion = operation.completion
            if completion.type is OpType.OK and completion.value is None and f != "read":
                completion = Completion(type=OpType.OK, value=recorded(value), node=completion.node)
            recorder.complete(number, completion)
            if completion.type is OpType.INFO:
                del self._clients[client]  # it never continues under the same number

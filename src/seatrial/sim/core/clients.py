"""Clients: each runs one operation at a time, retries under a session, and records what it asked and was told.

Rule: an operation is `ok` when a node answered it, `fail` when it surely never took effect, and otherwise `info`; a
write that was sent under a session is sent again until its deadline, one without a session never is.  Each client
draws from its own stream.  Knows nothing of Raft or of faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from seatrial.history import History, Op, OpType
from seatrial.sim.case import Load
from seatrial.sim.core.host import Host
from seatrial.sim.core.machine import Command
from seatrial.sim.core.service import Request
from seatrial.sim.world import World

RETRY_US: Final = 100_000  # an operation that was not answered by then is sent again, to another node
DEADLINE_US: Final = 1_000_000  # by then it ends without an answer
BACK_OFF_US: Final = 20_000  # after a node that knows no leader
ANYWHERE: Final = 0.15  # share of operations that go to any node, and not to where the last one succeeded
SESSIONLESS: Final = 0.1  # share of writes without a session
VALUES_A_CLIENT: Final = 10_000_000  # so that every value is written once


# (time in µs, client, type, f, key, value, error, node): one line of the history, kept small until the end of the run.
Event: TypeAlias = tuple[int, int, OpType, str, int, int | None, str | None, int | None]


class Recorder:
    """What all clients did; an operation that ended as `info` retires its client's number."""

    __slots__ = ("_next_number", "acknowledged", "counts", "events", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[Event] = []
        self.counts = {"ok": 0, "fail": 0, "info": 0}
        self.acknowledged: list[tuple[int, int, int]] = []  # (index of the entry, key, value) of each write
        self._next_number = 1

    def number(self) -> int:
        """A client number that was never used."""
        number = self._next_number
        self._next_number += 1
        return number

    def add(
        self, client: int, type_: OpType, f: str, key: int, value: int | None, error: str | None, node: int | None
    ) -> None:
        self.events.append((self.world.now_us, client, type_, f, key, value or None, error, node))

    def history(self) -> History:
        return History(
            Op(
                index=index,
                time_ns=time_us * 1000,
                client=client,
                type=type_,
                f=f,
                key=str(key),
                value=value,
                error=error,
                node=node,
            )
            for index, (time_us, client, type_, f, key, value, error, node) in enumerate(self.events)
        )


class Operation:
    """One under way."""

    __slots__ = ("ended", "key", "reads", "repeatable", "request", "resend_us", "sent", "until_us", "value")

    def __init__(self, key: int, value: int, until_us: int) -> None:
        self.key = key
        self.value = value  # 0: a read
        self.reads = value == 0
        self.until_us = until_us
        self.resend_us = 0
        self.repeatable = False
        self.sent = False
        self.ended = False
        self.request: Request | None = None


class Client:
    """Draws operations at its rate, one after the other, until it is stopped."""

    __slots__ = (
        "_asks",
        "_every_us",
        "_hosts",
        "_ids",
        "_load",
        "_next_us",
        "_number",
        "_operation",
        "_random",
        "_recorder",
        "_sequence",
        "_session",
        "_take",
        "_turns",
        "_values",
        "_world",
        "stopped",
    )

    def __init__(
        self,
        world: World,
        name: int,
        hosts: Mapping[int, Host],
        load: Load,
        recorder: Recorder,
        take: Callable[[], bool],
    ) -> None:
        self._world = world
        self._random = world.stream(f"client {name}").random
        self._hosts = hosts
        self._ids = sorted(hosts)
        self._load = load
        self._recorder = recorder
        self._take = take
        self._every_us = load.clients * 1e6 / load.rate if load.rate > 0 else 0.0
        self._number = recorder.number()
        self._session = name
        self._sequence = 0
        self._values = 0
        self._turns = 0
        self._asks = self._ids[name % len(self._ids)]
        self._operation: Operation | None = None
        self._next_us = 0.0
        self.stopped = self._every_us == 0
        if not self.stopped:
            self._next_us = self._random() * 2 * self._every_us
            self._come_back(int(self._next_us))

    def _turn(self, number: int) -> None:
        """Begin the next operation, or see to the one under way; then come back when something is to be done."""
        if number != self._turns:
            return
        now = self._world.now_us
        operation = self._operation
        if operation is None:
            if self.stopped:
                return
            self._begin(now)
            operation = self._operation
            self._next_us = max(self._next_us, now - self._every_us) + self._random() * 2 * self._every_us
        elif now >= operation.until_us:
            self._end(operation, OpType.INFO if operation.sent and not operation.reads else OpType.FAIL, None, None)
            operation = None
        elif now >= operation.resend_us and (operation.repeatable or not operation.sent):
            self._send(operation)
            operation = self._operation
        due = int(self._next_us)
        if operation is not None and due <= now:
            due = operation.until_us if operation.sent and not operation.repeatable else operation.resend_us
            due = min(due, operation.until_us)
        self._come_back(due)

    def _come_back(self, time_us: int) -> None:
        """Have the one turn that counts at that time."""
        self._turns += 1
        self._world.at(time_us, self._turn, self._turns)

    def _begin(self, now: int) -> None:
        if not self._take():
            self.stopped = True
            return
        self._values += 1
        value = self._session * VALUES_A_CLIENT + self._values
        random, load = self._random, self._load
        key = int(random() * load.keys)
        reads = random() < load.reads
        operation = self._operation = Operation(key, 0 if reads else value, now + DEADLINE_US)
        self._recorder.add(
            self._number, OpType.INVOKE, "read" if reads else "write", key, operation.value or None, None, None
        )
        data = b""
        if reads:
            operation.repeatable = True
        else:
            operation.repeatable = random() >= SESSIONLESS
            self._sequence += 1
            sequence = self._sequence if operation.repeatable else 0
            data = Command(self._session, sequence, key, value).encode(load.payload_bytes)
        if random() < ANYWHERE:
            self._asks = self._any_node()
        operation.request = Request(key, data, self._answered, not operation.repeatable)
        self._send(operation)

    def _any_node(self) -> int:
        return self._ids[int(self._random() * len(self._ids))]

    def _send(self, operation: Operation) -> None:
        request = operation.request
        assert request is not None
        if operation.resend_us:
            self._asks = self._any_node()
        operation.resend_us = self._world.now_us + RETRY_US
        host = self._hosts[self._asks]
        if not host.up:
            return  # nobody listens: that is known at once, and nothing was sent
        operation.sent = True
        if operation.reads:
            host.read(request)
        else:
            host.submit(request)

    def _answered(self, request: Request, node_id: int, result: int | None) -> None:
        operation = self._operation
        if operation is None or operation.request is not request:
            return  # an earlier operation, answered too late
        if result is None:
            # Refused: nothing happened by this attempt, but an earlier one may be under way still.
            operation.resend_us = self._world.now_us + BACK_OFF_US
            self._asks = self._any_node()
            if not operation.reads and not operation.repeatable:
                operation.sent = False
            return
        self._asks = self._hosts[node_id].core.leader or node_id
        self._end(operation, OpType.OK, result, node_id)

    def _end(self, operation: Operation, type_: OpType, result: int | None, node: int | None) -> None:
        self._operation = None
        operation.ended = True
        recorder = self._recorder
        recorder.counts[type_._value_] += 1  # `value` is a call
        value = operation.value
        if result is not None:
            if operation.reads:
                value = result
            else:
                recorder.acknowledged.append((result, operation.key, operation.value))
        f = "read" if operation.reads else "write"
        recorder.add(self._number, type_, f, operation.key, value or None, None, node)
        if type_ is OpType.INFO:
            self._number = recorder.number()
        if self._next_us <= self._world.now_us:
            self._come_back(self._world.now_us)

    def stop(self) -> None:
        """Begin nothing more; what is under way ends by its deadline."""
        self.stopped = True

    @property
    def is_idle(self) -> bool:
        return self._operation is None

"""A broker's connections in memory: bytes go in as from sockets, and what must hold afterwards is looked at.

Whatever comes, each connection is answered or closed with a reason in the log; nothing is raised, nothing is called
an internal error, no answer breaks the framing, none takes long, and a bystander is served as if nothing had been.
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fake_broker import FakeBroker, as_backend, request_frame

from seatrial.env import RealClock
from seatrial.kafka.apis import ApiKey
from seatrial.kafka.backend import BrokerSettings
from seatrial.kafka.dispatch import Dispatcher
from seatrial.server.listener import KafkaConnection, KafkaListener, ListenerLimits
from seatrial.server.logs import Logger

LONGEST_S: Final = 5.0  # for a batch of inputs: more is a hang
TURNS: Final = 6  # of the loop, after which whatever waits waits for a deadline of its own


class Hang(BaseException):
    """It took longer than LONGEST_S; not an Exception, for what is attacked handles those."""


class Socket(asyncio.Transport):
    """A client's end: keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.received = bytearray()
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("memory", 1) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return 0  # it takes all at once

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.received += data

    def write(self, data: Any) -> None:
        self.received += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Victim:
    """One broker; `loop` is run in short turns, never for ever."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, dispatcher: Any = None, longest_s: float = LONGEST_S
    ) -> None:
        self.loop = loop
        self.longest_s = longest_s
        self.complaints: list[str] = []
        broker = FakeBroker()
        broker.create("cap", 2)
        broker.create("other")
        self.listener = KafkaListener(
            dispatcher or Dispatcher(as_backend(broker), BrokerSettings()),
            ListenerLimits(frame_bytes=1 << 20),
            Logger(self._logged, RealClock(), "error"),
            loop,
        )
        loop.set_exception_handler(lambda _, context: self.complaints.append(_complaint(context)))
        self._asked = 0
        self._bystander = self._connect()

    def _logged(self, line: str) -> None:
        said = json.loads(line)
        self.complaints.append(f"{said['event']}: {said['error']}")

    def _connect(self) -> tuple[KafkaConnection, Socket]:
        connection, socket = KafkaConnection(self.listener), Socket()
        connection.connection_made(socket)
        return connection, socket

    def suffer(self, inputs: Sequence[bytes]) -> list[str]:
        """Each input over a connection of its own; what is wrong afterwards, in sentences."""
        found: list[str] = []
        try:
            with _alarm(self.longest_s):
                found = self.loop.run_until_complete(self._suffer(inputs))
        except Hang:
            found.append(f"it took longer than {self.longest_s} s")
        except Exception as error:
            found.append(f"raised {error!r}")
        found += self.complaints
        self.complaints = []
        return found

    async def _suffer(self, inputs: Sequence[bytes]) -> list[str]:
        ends = []
        for data in inputs:
            connection, socket = self._connect()
            ends.append((connection, socket))
            push(connection, data)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        found = [problem for _, socket in ends for problem in framing_of(socket.received)]
        found += await self._served()
        for connection, _ in ends:
            connection.connection_lost(None)
        await asyncio.sleep(0)
        return found

    async def _served(self) -> list[str]:
        """Is the bystander?"""
        connection, socket = self._bystander
        self._asked += 1
        socket.received.clear()
        push(connection, framed(request_frame(ApiKey.API_VERSIONS, 0, b"", correlation_id=self._asked)))
        await asyncio.sleep(0)
        head = struct.pack(">ih", self._asked, 0)
        if socket.closed or socket.received[4:10] != head:
            return [f"a bystander was not served: {bytes(socket.received[:20])!r}"]
        return []

    def close(self) -> None:
        for connection in list(self.listener.clients.open):
            connection.connection_lost(None)


def framed(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame


def push(connection: KafkaConnection, data: bytes) -> None:
    """As the loop does it, in as large pieces as are taken, until it is closed."""
    rest = memoryview(data)
    while rest and not connection._closing:
        buffer = connection.get_buffer(-1)
        taken = min(len(buffer), len(rest))
        buffer[:taken] = rest[:taken]
        del buffer
        connection.buffer_updated(taken)
        rest = rest[taken:]


def framing_of(received: bytes | bytearray) -> list[str]:
    at = 0
    while at < len(received):
        size = int.from_bytes(received[at : at + 4], "big", signed=True)
        if size < 4 or at + 4 + size > len(received):
            return [f"an answer of {len(received)} bytes with a frame of {size} at {at}"]
        at += 4 + size
    return []


def _complaint(context: dict[str, Any]) -> str:
    """The same words for the same defect, whichever task it was in: where it was raised, and what."""
    error = context.get("exception")
    if error is None:
        return str(context["message"])
    places = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    return f"{context['message']}: {error!r}{place}"


@contextmanager
def _alarm(longest_s: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, longest_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""An asyncio event loop on the world's time: one for each life of a simulated host.

Rule: inside a loop everything is in asyncio's own order (ready callbacks first in, first out; timers looked at once a
turn), for libraries rely on it; chance comes only from when things arrive.  Each callback takes a microsecond of the
world's time: an exact clock, on which computing takes no time, makes loops spin that wait "for what is left of it"
(aiokafka's linger).  A host runs ahead of the world by at most LOOKAHEAD_US, less than any delay between hosts, so that
what it does can be known to no other before its time.
Knows nothing of how bytes travel (`tcp`) or of crashes (`hosts`).
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, TypeVarTuple

from seatrial.sim.escape import current, escape
from seatrial.sim.shim import WORLD_US
from seatrial.sim.trace import name_of

if TYPE_CHECKING:
    from seatrial.sim.hosts import SimHost

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CALLBACK_US: Final = 1
LOOKAHEAD_US: Final = 50
RESOLUTION_S: Final = 1e-9
NEVER_US: Final = 1 << 62
_CANCELLED_MIN: Final = 100  # as in asyncio: so many cancelled timers, and half of all, are swept away


class SimFuture(asyncio.Future[Any]):
    """A future whose hash is a counter's number: the order of a set of futures must not depend on addresses."""

    def __init__(self, *, loop: SimLoop) -> None:
        super().__init__(loop=loop)
        self._number: int = next(loop.numbers)

    def __hash__(self) -> int:
        return self._number


class SimTask(asyncio.Task[Any]):
    """A task, alike."""

    def __init__(self, coroutine: Any, *, loop: SimLoop, **named: Any) -> None:
        self._number: int = next(loop.numbers)
        super().__init__(coroutine, loop=loop, **named)
        self._log_destroy_pending = False  # a run ends when it ends, whatever still waits

    def __hash__(self) -> int:
        return self._number


def _refused(name: str, instead: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **named: Any) -> NoReturn:
        raise escape(f"loop.{name} is not simulated; {instead}")

    method.__name__ = name
    return method


_DESCRIPTORS: Final = "there are no real descriptors here; use streams, create_connection or create_server"
_DATAGRAMS: Final = "there are no real descriptors here; use create_datagram_endpoint"
_PROCESSES: Final = "make what the process does a host of its own"


class SimLoop(asyncio.BaseEventLoop):
    """The event loop of one simulated host; what it cannot do raises SimEscape.

    numbers: of its tasks and futures, in the order of their making over all hosts.
    """

    add_reader = _refused("add_reader", _DESCRIPTORS)  # type: ignore[assignment]
    add_writer = _refused("add_writer", _DESCRIPTORS)  # type: ignore[assignment]
    remove_reader = _refused("remove_reader", _DESCRIPTORS)
    remove_writer = _refused("remove_writer", _DESCRIPTORS)
    sock_recv = _refused("sock_recv", _DESCRIPTORS)
    sock_recv_into = _refused("sock_recv_into", _DESCRIPTORS)
    sock_sendall = _refused("sock_sendall", _DESCRIPTORS)
    sock_accept = _refused("sock_accept", _DESCRIPTORS)
    sock_recvfrom = _refused("sock_recvfrom", _DATAGRAMS)
    sock_recvfrom_into = _refused("sock_recvfrom_into", _DATAGRAMS)
    sock_sendto = _refused("sock_sendto", _DATAGRAMS)
    sock_sendfile = _refused("sock_sendfile", _DESCRIPTORS)
    sendfile = _refused("sendfile", "read from the simulated disk and write")
    connect_accepted_socket = _refused("connect_accepted_socket", _DESCRIPTORS)
    connect_read_pipe = _refused("connect_read_pipe", _DESCRIPTORS)
    connect_write_pipe = _refused("connect_write_pipe", _DESCRIPTORS)
    create_unix_connection = _refused("create_unix_connection", "use create_connection with host and port")
    create_unix_server = _refused("create_unix_server", "use create_server with host and port")
    start_tls = _refused("start_tls", "OpenSSL's randomness cannot be steered; test without TLS")
    subprocess_exec = _refused("subprocess_exec", _PROCESSES)
    subprocess_shell = _refused("subprocess_shell", _PROCESSES)

    # Asked for each handle and each future, so it is a function in C that says False: there is no debug mode here.
    get_debug = bool

    def __init__(self, host: SimHost) -> None:
        self.host = host
        super().__init__()
        self.world = host.world
        self.numbers: Iterator[int] = host.network.numbers
        self._clock = host.clock
        self._clock_resolution = RESOLUTION_S
        self._ready: deque[events.Handle] = deque()
        self._timers: list[tuple[int, int, events.TimerHandle]] = []
        self._timer_number = 0
        self._timer_cancelled_count = 0
        self._left_of_turn = 0
        self._first: tuple[int, int, events.TimerHandle] | None = None  # of the timers, and when that is by the world's
        self._first_us = 0  # time, while the clock keeps this rate
        self._first_rate = self._clock.rate

    def __del__(self) -> None:  # a crashed host's loop was never closed, and says nothing about it
        return

    # What runs, and when

    def time(self) -> float:
        return self._clock.now_us() / 1e6

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        if current.host is not self.host:
            self.host.wake()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> events.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        return self.call_at(self._clock.now_us() / 1e6 + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        due_us = NEVER_US if math.isinf(when) else math.ceil(when * 1e6 - 1e-3)
        self._timer_number += 1
        heappush(self._timers, (due_us, self._timer_number, handle))
        handle._scheduled = True  # type: ignore[attr-defined]
        if current.host is not self.host:
            self.host.arm()
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        if not handle._scheduled:  # type: ignore[attr-defined]
            return
        self._timer_cancelled_count += 1
        if self._timer_cancelled_count > _CANCELLED_MIN and self._timer_cancelled_count * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer[2]._cancelled]
            heapify(self._timers)
            self._timer_cancelled_count = 0

    def next_us(self) -> int | None:
        """The world's time at which there is something to do; None if there is nothing."""
        if self._ready:
            return self.world.now_us
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            self._timer_cancelled_count -= 1
            heappop(timers)[2]._scheduled = False  # type: ignore[attr-defined]
        if not timers or timers[0][0] >= NEVER_US:
            return None
        return self._first_due_us()

    def _first_due_us(self) -> int:
        """The world's time at which the first timer is due."""
        first, clock = self._timers[0], self._clock
        if first is not self._first or clock.rate is not self._first_rate:
            self._first, self._first_rate = first, clock.rate
            self._first_us = clock.world_time(first[0])
        return self._first_us

    def _take_due_timers(self) -> None:
        """Move the timers that are due to the ready callbacks."""
        timers = self._timers
        now_us = self._clock.now_us()
        while timers and timers[0][0] <= now_us:
            handle = heappop(timers)[2]
            handle._scheduled = False  # type: ignore[attr-defined]
            if handle._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(handle)

    def run_some(self) -> int:
        """Run turns until there is nothing to do, another event of the world is due, or it is far enough ahead.

        Returns how many callbacks ran; the world's time is then when the last of them ended.
        """
        world, ready, host = self.world, self._ready, self.host
        queue, callback_line, numbers, name = world.queue, host.network.trace.callback, current.numbers, host.name
        now_us = world.now_us
        limit_us = now_us + LOOKAHEAD_US
        ran = 0
        left = self._left_of_turn
        while now_us < limit_us:
            if left == 0:
                if queue and queue[0][0] < now_us:
                    break
                if self._timers and self._first_due_us() <= now_us:
                    self._take_due_timers()
                left = len(ready)
                if left == 0:
                    break
            left -= 1
            handle = ready.popleft()
            if handle._cancelled:
                continue
            world.now_us = numbers[WORLD_US] = now_us = now_us + CALLBACK_US
            callback_line(now_us, name, handle._callback)  # type: ignore[attr-defined]
            try:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # a callback's error ends nothing but the callback
                self._callback_failed(handle, error)
            ran += 1
            now_us = world.now_us  # it may have been charged for more (`SimHost.charge`)
            if world.halted or host.loop is not self or not host.is_up:
                break
        self._left_of_turn = left
        world.events += ran
        return ran

    def _callback_failed(self, handle: events.Handle, error: BaseException) -> None:
        """As `Handle._run` says it."""
        told = f"Exception in callback {name_of(handle._callback)}"  # type: ignore[attr-defined]
        self.call_exception_handler({"message": told, "exception": error, "handle": handle})

    def run_forever(self) -> None:
        raise escape("a simulated loop is run by its world; spawn the coroutine on its host and run the world")

    def run_until_complete(self, future: Any) -> NoReturn:
        raise escape("a simulated loop is run by its world; await the coroutine, or spawn it on its host")

    def is_running(self) -> bool:
        return current.host is self.host

    # Tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self)

    def create_task(self, coro: Any, *, name: object = None, **named: Any) -> asyncio.Task[Any]:
        if self._task_factory is not None:  # type: ignore[attr-defined]
            return super().create_task(coro, name=name, **named)
        return SimTask(coro, loop=self, name=name or self.host.next_task_name(), **named)

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """`func` runs on the loop after a while; no thread is ever started, whatever the executor."""
        future: asyncio.Future[T] = self.create_future()
        self.world.after(self.host.executor_delay_us(), self._executor_done, (future, func, args))
        return future

    def _executor_done(self, job: tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]) -> None:
        if self.host.runs(self):
            self.call_soon(run_job, *job)

    def sleep_us(self, duration_us: int) -> asyncio.Future[None]:
        """Done after so much of the world's time, whatever the host's clock does: the kernel's and the network's."""
        future: asyncio.Future[None] = self.create_future()
        self.world.after(duration_us, self._slept, future)
        return future

    def _slept(self, future: asyncio.Future[None]) -> None:
        if self.host.runs(self) and not future.done():
            future.set_result(None)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        return

    def _write_to_self(self) -> None:
        return

    def _process_events(self, event_list: Any) -> None:
        return

    # The network

    async def getaddrinfo(self, host: Any, port: Any, **named: Any) -> Any:
        return await self.host.stack.getaddrinfo(host, port, **named)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return str(sockaddr[0]), str(sockaddr[1])

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **named: Any) -> Any:
        return await self.host.stack.create_connection(protocol_factory, host, port, **named)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **named: Any) -> Any:
        return await self.host.stack.create_server(protocol_factory, host, port, **named)

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **named: Any
    ) -> Any:
        return await self.host.stack.create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **named)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.host.stack.sock_connect(sock, address)

    # What processes have

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        self.host.signals.on_loop(sig, lambda: self.call_soon(callback, *args))

    def remove_signal_handler(self, sig: int) -> bool:
        return self.host.signals.remove(sig)


def run_job(future: asyncio.Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What a thread of an executor would have done."""
    if future.done():
        return
    try:
        result = function(*arguments)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # it is the caller's, who awaits it
        future.set_exception(error)
    else:
        future.set_result(result)

"""Who runs now, and what keeps its code inside the simulation.

While a simulated host's code runs, time, entropy, process ids and signal handlers are the host's own, and whatever
would leave the simulation (a thread, a process, a real socket, a sleep, a file written) raises SimEscape where it is
called, and says what to use instead.  Between callbacks, and for the simulator itself, everything is real.

Rule: Python's modules are patched while a world runs, or for good in a process that does nothing else (`install`), and
dispatch on `current.host`; what cannot be patched is caught by an audit hook.  With the C shim preloaded, time and
entropy are the shim's, and only the rest is patched here.
This is about the real process: it may import what the simulation may not.
"""

from __future__ import annotations

import datetime
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from seatrial.sim import shim
from seatrial.sim.shim import ACTIVE, DRIFT_PPM, HOST, LOCAL_US, SINCE_US, WALL_US, WORLD_US

if TYPE_CHECKING:
    from seatrial.sim.clocks import Rate
    from seatrial.sim.hosts import SimHost
    from seatrial.sim.world import World

_INSTEAD: Final = {
    "subprocess.Popen": "a process was started; make what it does a host of its own",
    "os.system": "a process was started; make what it does a host of its own",
    "os.exec": "the process was to be replaced; make what it does a host of its own",
    "os.fork": "the process was forked; make what it does a host of its own",
    "os.forkpty": "the process was forked; make what it does a host of its own",
    "os.posix_spawn": "a process was started; make what it does a host of its own",
    "socket.connect": "a real socket was connected; use asyncio.open_connection or loop.create_connection",
    "socket.bind": "a real socket was bound; use asyncio.start_server or loop.create_datagram_endpoint, with a host",
    "socket.sendto": "a real datagram was sent; use loop.create_datagram_endpoint",
    "socket.getaddrinfo": "a real name was looked up; use loop.getaddrinfo",
    "socket.gethostbyname": "a real name was looked up; use loop.getaddrinfo",
    "time.sleep": "the thread would sleep; use asyncio.sleep",
}
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FIRST_PID: Final = 1000


class SimEscape(RuntimeError):
    """Simulated code tried to leave the simulation; the message names what to use instead."""


class Current:
    """The host whose code runs now, and what the shim is told about it.

    numbers: the shim's, or as many of our own that nobody reads, so that there is one way to write them.
    escapes: every SimEscape that was raised since the last run, also those that a library caught.
    """

    __slots__ = ("_rate", "escapes", "host", "numbers", "shimmed")

    def __init__(self) -> None:
        self.host: SimHost | None = None
        self._rate: Rate | None = None  # of the clock that the numbers are of; no two clocks share one
        self.escapes: list[SimEscape] = []
        numbers = shim.loaded()
        self.shimmed = numbers is not None
        self.numbers: shim.Numbers = [0] * (shim.FIELDS + shim.HOSTS) if numbers is None else numbers

    def enter(self, host: SimHost, now_us: int) -> None:
        """From here on it is `host`'s code that runs."""
        self.host = host
        numbers, rate = self.numbers, host.clock.rate
        if rate is not self._rate:
            self._rate = rate
            numbers[SINCE_US], numbers[LOCAL_US], numbers[DRIFT_PPM], numbers[WALL_US] = rate
            numbers[HOST] = host.number
        numbers[WORLD_US] = now_us
        numbers[ACTIVE] = 1

    def leave(self) -> None:
        self.numbers[ACTIVE] = 0
        self.host = None


current: Final = Current()


def escape(what: str) -> SimEscape:
    """The error to raise; it is remembered, for a library may catch it."""
    host = current.host
    found = SimEscape(what if host is None else f"on {host.name}: {what}")
    current.escapes.append(found)
    return found


class Patches:
    """What stands in the place of Python's own functions, in the order in which it was put there.

    depth: how often it was put there and not yet taken away.
    """

    def __init__(self) -> None:
        self._replacements: list[tuple[Any, str, Any]] = []
        self._originals: list[tuple[Any, str, Any]] = []
        self.depth = 0

    def replace(self, module: Any, name: str, replacement: Any) -> None:
        self._replacements.append((module, name, replacement))

    def apply(self) -> None:
        if not self._replacements:
            _make_patches()
            sys.addaudithook(_audit)  # it cannot be taken away, and does nothing while no host's code runs
        if self.depth == 0:
            self._originals = [(module, name, getattr(module, name)) for module, name, _ in self._replacements]
            for module, name, replacement in self._replacements:
                setattr(module, name, replacement)
        self.depth += 1

    def take_away(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            for module, name, original in self._originals:
                setattr(module, name, original)


_patches: Final = Patches()


def install() -> None:
    """Patch this process for good.  Do it before third-party modules are imported: they may keep what they import."""
    _patches.apply()


@contextmanager
def inside(world: World) -> Iterator[None]:
    """While the world runs; afterwards the process is as it was, unless it was patched for good."""
    if _patches.depth:
        if world.shared_chance is not None:
            _shared.setstate(world.shared_chance)
            world.shared_chance = None
        yield
        return
    own = _shared.getstate()
    if world.shared_chance is not None:
        _shared.setstate(world.shared_chance)
    _patches.apply()
    try:
        yield
    finally:
        _patches.take_away()
        world.shared_chance = _shared.getstate()
        _shared.setstate(own)


def _make_patches() -> None:
    _patch_sleep_and_threads()
    _patch_random()
    _patch_process()
    if not current.shimmed:
        _patch_clocks()
        _patch_entropy()


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if current.host is None:
        return
    instead = _INSTEAD.get(event)
    if instead is not None:
        raise escape(instead)
    if event == "open":
        path, _, flags = arguments
        # A descriptor was opened before; an import leaves what it compiled.
        harmless = isinstance(path, int) or path == os.devnull or "__pycache__" in str(path)
        harmless = harmless or str(path).startswith(tuple(_writable))
        if isinstance(flags, int) and flags & _WRITES and not harmless:
            raise escape(f"{path!r} was opened for writing; take seatrial.env.Files, and give it a simulated disk")


def allow_writing(prefix: str) -> None:
    """Let simulated code write files whose path begins so: what a test keeps for itself, of which no node knows."""
    _writable.append(prefix)


_writable: Final[list[str]] = []


def _patched(module: Any, name: str, simulated: Callable[..., Any]) -> None:
    """Replace a module's function by one that is simulated while a host's code runs."""
    real = getattr(module, name)

    def dispatch(*arguments: Any, **named: Any) -> Any:
        host = current.host
        return real(*arguments, **named) if host is None else simulated(host, *arguments, **named)

    dispatch.__name__ = dispatch.__qualname__ = name
    dispatch.__doc__ = real.__doc__
    _patches.replace(module, name, dispatch)


def _patch_sleep_and_threads() -> None:
    def sleep(_: SimHost, seconds: float) -> None:
        raise escape(f"the thread would sleep for {seconds} s; use asyncio.sleep")

    def start(_: SimHost, thread: threading.Thread) -> None:
        raise escape(f"{thread.name} was started; use tasks, or loop.run_in_executor, which is simulated")

    _patched(time, "sleep", sleep)
    _patched(threading.Thread, "start", start)


def _patch_clocks() -> None:
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        _patched(time, name, lambda host: host.clock.now_us() / 1e6)
        _patched(time, name + "_ns", lambda host: host.clock.now_us() * 1000)
    _patched(time, "time", lambda host: host.clock.wall_us() / 1e6)
    _patched(time, "time_ns", lambda host: host.clock.wall_us() * 1000)
    for name in ("localtime", "gmtime"):
        _patch_broken_down(name)

    real = datetime.datetime

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:  # also of those that C code makes
            return isinstance(instance, real)

    class SimDatetime(datetime.datetime, metaclass=Kind):
        def __new__(cls, *fields: Any, **named: Any) -> Any:  # what outlives the run is of the real type
            return real.__new__(real if cls is SimDatetime else cls, *fields, **named)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            host = current.host
            return real.now(tz) if host is None else real.fromtimestamp(host.clock.wall_us() / 1e6, tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    SimDatetime.__name__ = SimDatetime.__qualname__ = "datetime"
    _patches.replace(datetime, "datetime", SimDatetime)


def _patch_broken_down(name: str) -> None:
    real = getattr(time, name)

    def simulated(host: SimHost, seconds: float | None = None) -> time.struct_time:
        broken_down: time.struct_time = real(host.clock.wall_us() / 1e6 if seconds is None else seconds)
        return broken_down

    _patched(time, name, simulated)


def _patch_entropy() -> None:
    for module, name in ((os, "urandom"), (random, "_urandom")):
        _patched(module, name, lambda host, count: host.entropy.bytes(count))

    class SimRandom(random.Random):
        """Without a seed, one of the host's own: CPython would ask the kernel, in C."""

        def __init__(self, seed: Any = None) -> None:
            host = current.host
            super().__init__(host.entropy.integer(0, 1 << 52) if seed is None and host is not None else seed)

    SimRandom.__name__ = SimRandom.__qualname__ = "Random"
    _patches.replace(random, "Random", SimRandom)


def _patch_random() -> None:
    """The module's functions share one hidden generator; each host gets one of its own."""
    for name in [name for name in vars(random) if getattr(getattr(random, name), "__self__", None) is _shared]:
        _patched(random, name, _of_own_generator(name))
    _patched(uuid, "uuid1", lambda host, *_: uuid.UUID(bytes=host.entropy.bytes(16), version=1))


def _of_own_generator(name: str) -> Callable[..., Any]:
    def simulated(host: SimHost, *arguments: Any, **named: Any) -> Any:
        return getattr(host.random, name)(*arguments, **named)

    return simulated


def _kill(host: SimHost, pid: int, number: int) -> None:
    if pid != _FIRST_PID + host.number:
        raise escape("a process was sent a signal; crash, pause or send the host a signal instead (`SimHost`)")
    host.signals.send(number)


def shared_chance(seed: int) -> Any:
    """A state of the generator that the module `random` shares: some took its functions before they were patched."""
    return random.Random(seed).getstate()


_shared: Final[random.Random] = random.random.__self__  # type: ignore[attr-defined]


def _patch_process() -> None:
    _patched(os, "getpid", lambda host: _FIRST_PID + host.number)
    _patched(signal, "signal", lambda host, number, handler: host.signals.install(number, handler))
    _patched(signal, "raise_signal", lambda host, number: host.signals.send(number))
    _patched(os, "kill", _kill)
    _patched(signal, "getsignal", lambda host, number: host.signals.installed(number))

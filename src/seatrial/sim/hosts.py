"""One simulated machine with one process: its clock, its event loop, its lives and deaths.

A crash drops the loop with all that it would have run: no `finally`, no `__del__`, no goodbye.  Starting again gives a
new loop, and a program that has to be spawned anew.  A paused host stands still while its clock and the network go on.

Rule: at any time a host has at most one event in the world that counts, so that an idle host costs nothing; those that
no longer count stay where they are, and count again when their time is wanted again.
Knows nothing of what programs do.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from seatrial.sim.clocks import HostClock
from seatrial.sim.escape import current
from seatrial.sim.loop import SimLoop
from seatrial.sim.shim import FIELDS, HOSTS, WORLD_US
from seatrial.sim.signals import Signals
from seatrial.sim.stack import Stack
from seatrial.sim.tcp import RST

if TYPE_CHECKING:
    from seatrial.sim.network import SimNetwork

T = TypeVar("T")

UPTIME_US: Final = 1_000_000_000  # of the machine, when the world begins
EXECUTOR_DELAY_US: Final = (50, 2_000)


class SimHost:
    """Made by `SimNetwork.add_host`, and started.

    incarnation: how often it was started.  is_up: its process runs (paused or not).  powered: its kernel answers.
    exit_code: what the program passed to `sys.exit`, if that is how it ended.
    """

    def __init__(
        self, network: SimNetwork, name: str, number: int, *, drift_ppm: int = 0, wall_offset_us: int = 0
    ) -> None:
        self.network, self.world = network, network.world
        self.name, self.number = name, number
        self.address = f"10.0.{number // 250}.{number % 250 + 1}"
        self.clock = HostClock(self.world, drift_ppm=drift_ppm, wall_offset_us=wall_offset_us, uptime_us=UPTIME_US)
        self.entropy = self.world.stream(f"entropy {name}")
        self._executor = self.world.stream(f"executor {name}")
        self.random = random.Random(self.entropy.integer(0, 1 << 52))
        self.incarnation = 0
        self.is_up = False
        self.is_paused = False
        self.powered = False
        self.exit_code: object = None
        self._wake_us: int | None = None
        self._planned: set[int] = set()  # the times at which the world will wake it, wanted or not
        self._busy_us = 0
        self._task_names = 0
        self.boot()

    def __repr__(self) -> str:
        return f"<SimHost {self.name} {self.address}>"

    # Lives and deaths

    def boot(self) -> None:
        """Start, after a crash: a new loop, empty memory.  What to run on it is up to the caller (`spawn`)."""
        assert not self.is_up, f"{self.name} runs already"
        self.incarnation += 1
        self.is_up, self.is_paused = True, False
        self.exit_code = None
        self.loop = SimLoop(self)
        self.stack = Stack(self)
        self.signals = Signals(self)
        self._task_names = 0
        self._wake_us = None
        current.numbers[FIELDS + self.number % HOSTS] = self.entropy.integer(0, (1 << 62) - 1)
        if not self.powered:
            self.powered = True
            self.network.target_is_back(self)

    def crash(self, *, power: bool) -> None:
        """Stop now.  power: of the whole machine, whose peers hear nothing; else of the process, and they are reset."""
        if not self.is_up:
            self.powered = self.powered and not power
            return
        self.is_up = self.is_paused = False
        self.powered = not power
        self._bury()
        for direction in self.network.directions_to(self):
            direction.close()
            direction.opposite.sender = None
            if not power:
                direction.opposite.send(RST)

    def pause(self) -> None:
        """Stand still (SIGSTOP): the clock, the kernel and the connections do not."""
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        if self.is_up:
            self.arm()

    def _bury(self) -> None:
        """Keep what it was doing: were it freed, `finally` blocks would run that a crash does not run."""
        ends = [direction.receiver for direction in self.network.directions_to(self)]
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            program = task.get_coro()
            # What never began has nothing to undo, and Python would complain of it when the world is freed.
            if inspect.iscoroutine(program) and inspect.getcoroutinestate(program) == inspect.CORO_CREATED:
                program.close()
        self.network.graveyard.append((self.loop, tasks, ends, self.stack))

    # Programs

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Start a program's coroutine in this host's loop; if it fails, that is noted in `SimNetwork.failures`."""
        assert self.is_up, f"{self.name} does not run; boot it first"
        task = self.loop.create_task(coroutine, name=name)
        task.add_done_callback(self.network.program_ended)
        return task

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this host and wait for its result on another, which learns of it at once: for the one who
        directs the simulation, not for programs in it.  If this host crashes there is no result, and no end."""
        waiting: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(task: asyncio.Task[T]) -> None:
            if waiting.done():
                return
            error = None if task.cancelled() else task.exception()
            if error is not None:
                waiting.set_exception(error)
            elif task.cancelled():
                waiting.cancel()
            else:
                waiting.set_result(task.result())

        self.loop.create_task(coroutine).add_done_callback(done)
        return await waiting

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a function as this host's code, in its next turn."""
        self.loop.call_soon(function, *arguments)

    def charge(self, duration_us: int) -> None:
        """What this host's code does now takes so much longer: a blocking call, a slow computation."""
        assert current.host is self, f"{self.name} does not run now"
        self.world.now_us += duration_us
        current.numbers[WORLD_US] = self.world.now_us

    def runs(self, loop: SimLoop) -> bool:
        """Whether this loop is the living one."""
        return self.is_up and loop is self.loop

    def next_task_name(self) -> str:
        self._task_names += 1
        return f"Task-{self._task_names}"

    def executor_delay_us(self) -> int:
        return self._executor.integer(*EXECUTOR_DELAY_US)

    # The world's events

    def wake(self) -> None:
        """There is something to do now."""
        self._plan(self.world.now_us)

    def arm(self) -> None:
        """See to it that the world wakes this host when its loop has something to do."""
        due_us = self.loop.next_us()
        if due_us is not None:
            self._plan(due_us)

    def _plan(self, due_us: int) -> None:
        if due_us < self._busy_us:
            due_us = self._busy_us
        if self._wake_us is None or due_us < self._wake_us:
            self._wake_us = due_us
            if due_us not in self._planned:  # a timer's time is often planned already, from before something else came
                self._planned.add(due_us)
                self.world.at(due_us, self._woken, due_us)

    def _woken(self, planned_us: int) -> None:
        self._planned.discard(planned_us)
        if planned_us != self._wake_us:
            return  # it was woken earlier, for something else
        self._wake_us = None
        if not self.is_up or self.is_paused:
            return
        world, loop, network = self.world, self.loop, self.network
        start_us = world.now_us
        ran = 0
        current.enter(self, start_us)
        events._set_running_loop(loop)
        try:
            ran = loop.run_some()
        except SystemExit as stop:
            self.exit_code = stop.code
            self.crash(power=False)
        finally:
            events._set_running_loop(None)
            current.leave()
            self._busy_us, world.now_us = world.now_us, start_us
        network.callbacks += ran
        if network.callbacks >= network.collect_at:
            network.collect()
        if self.is_up and (due_us := loop.next_us()) is not None:
            self._plan(due_us)

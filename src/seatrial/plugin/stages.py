"""Where one test's coroutines run, and its cluster: on a simulated host, or on an event loop beside real processes.

    stage = open_stage(wanted, seed=7, directory=run_directory)
    stage.run(lambda: test(cluster=stage.cluster), timeout_s=60)
    stage.close()

A test's coroutine, and those of its asynchronous fixtures, run one after the other on the same loop.

Rule: what is run has a deadline, and what does not meet it is told with where it was waiting.  Whatever happens,
`close` leaves no process behind.
Knows nothing of pytest.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seatrial import scenario
from seatrial.cluster.errors import DeadlineExceeded
from seatrial.plugin.measuring import is_measured

if TYPE_CHECKING:
    from seatrial.plugin.settings import Wanted
    from seatrial.scenario import ScenarioCluster

FRAMES_SHOWN = 6
CLOSE_TIMEOUT_S = 30.0
LOOK_TIMEOUT_S = 5.0

Start = Callable[[], Coroutine[Any, Any, Any]]


class TestDeadlineExceeded(AssertionError):
    """A test, or a fixture of its, took longer than it may; the message says where it was waiting."""

    __test__ = False


class Stage(Protocol):
    """One test's surroundings."""

    cluster: ScenarioCluster

    def run(self, start: Start, *, timeout_s: float) -> Any:
        """Run a coroutine to its end; its result, or what it raised.  Raises TestDeadlineExceeded."""

    def look(self) -> str | None:
        """Ask every node for its status once more; what it says is in `cluster.last_state()`.  If not: why not."""

    def digest(self) -> str | None:
        """What two equal simulations have in common; None where there is nothing of the kind."""

    def close(self) -> None:
        """End everything."""


def open_stage(wanted: Wanted, *, seed: int, directory: Path) -> Stage:
    """Make the cluster: simulated ones are made to start with the first coroutine, real ones have started.

    Raises ValueError, cluster.errors.ClusterError.
    """
    return SimulatedStage(wanted, seed) if wanted.environment == "sim" else LocalStage(wanted, seed, directory)


class SimulatedStage:
    """A world, in a process that was forked for it."""

    def __init__(self, wanted: Wanted, seed: int) -> None:
        self._simulation = scenario.Simulation(seed=seed, nodes=wanted.nodes, options=wanted.options, boot=wanted.boot)
        self.cluster = self._simulation.cluster
        self._overdue = False

    def run(self, start: Start, *, timeout_s: float) -> Any:
        begun: list[Coroutine[Any, Any, Any]] = []

        def body(_: ScenarioCluster) -> Coroutine[Any, Any, Any]:
            begun.append(start())
            return begun[0]

        try:
            return self._simulation.run(body, virtual_s=timeout_s)
        except DeadlineExceeded as error:
            if not begun or inspect.getcoroutinestate(begun[0]) != inspect.CORO_SUSPENDED:
                raise  # it is the test's own, or the nodes did not start
            self._overdue = True
            raise TestDeadlineExceeded(_overdue(begun[0], timeout_s)) from error

    def look(self) -> str | None:
        if not self._overdue:  # a simulated run that fails has looked already, and told if it could not
            return None
        return _why_not(lambda: self._simulation.run(lambda cluster: cluster.look(), virtual_s=LOOK_TIMEOUT_S))

    def digest(self) -> str | None:
        return self._simulation.hosts.network.trace.digest()

    def close(self) -> None:
        """The process ends with the test, and takes the world with it."""


class LocalStage:
    """Processes, and one event loop for the whole test, which stands still between two coroutines."""

    def __init__(self, wanted: Wanted, seed: int, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._life: AbstractAsyncContextManager[ScenarioCluster] = scenario.local(
            nodes=wanted.nodes,
            system=wanted.system,
            version=wanted.version,
            options=wanted.options,
            seed=seed,
            boot=wanted.boot,
            directory=directory,
        )
        try:
            self.cluster = self._runner.run(_entered(self._life))
        except BaseException:
            self._runner.close()
            raise

    def run(self, start: Start, *, timeout_s: float) -> Any:
        return self._runner.run(_until(start, timeout_s))

    def look(self) -> str | None:
        return _why_not(lambda: self._runner.run(self.cluster.look()))

    def digest(self) -> str | None:
        return None

    def close(self) -> None:
        try:
            if is_measured():  # what is killed does not say what it ran
                self._runner.run(self.cluster.terminate_all())
            self._runner.run(_left(self._life))
        finally:
            self._runner.close()


def _why_not(look: Callable[[], object]) -> str | None:
    """What the look raised: the test has failed already, and this is told beside it."""
    try:
        look()
    except Exception as error:
        return f"the nodes could not be asked once more: {type(error).__name__}: {error}"
    return None


async def _entered(life: AbstractAsyncContextManager[ScenarioCluster]) -> ScenarioCluster:
    return await life.__aenter__()


async def _left(life: AbstractAsyncContextManager[ScenarioCluster]) -> None:
    await life.__aexit__(None, None, None)


async def _until(start: Start, timeout_s: float) -> Any:
    """As `asyncio.wait_for`, but it says where the coroutine was, and cannot be held up by one that goes on."""
    coroutine = start()
    task = asyncio.ensure_future(coroutine)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            overdue = _overdue(coroutine, timeout_s)
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
            raise TestDeadlineExceeded(overdue)
    finally:
        if not task.done():  # interrupted: let it undo what it did
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
    return task.result()


def _overdue(coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> str:
    """What to say, with the coroutines that wait for each other, the innermost last."""
    lines: list[str] = []
    waiting: Any = coroutine
    while (frame := getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)) is not None:
        lines += traceback.format_list(traceback.extract_stack(frame, limit=1))
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return f"it was not done within {timeout_s:g} s; it was waiting at\n{''.join(lines[-FRAMES_SHOWN:])}"

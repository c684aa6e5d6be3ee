"""One run of one test: its fixtures, its coroutine on the stage, and what a failure leaves behind.

The same in the pytest that was started (real processes) and in the fork of a simulated test.

Rule: only tests that use the fixture `cluster` are touched; of these the test and its asynchronous fixtures run on the
stage's loop, whatever other plugins for coroutines are installed and however they are set.
Knows nothing of repetitions and other tests.
"""

from __future__ import annotations

import functools
import inspect
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from _pytest.runner import runtestprotocol

from seatrial.cluster.errors import Unavailable
from seatrial.plugin.evidence import leave_behind
from seatrial.plugin.settings import Wanted
from seatrial.plugin.stages import Stage, TestDeadlineExceeded, open_stage
from seatrial.scenario import NotHere

FIXTURE_TIMEOUT_S: Final = 60.0


@dataclass(slots=True, kw_only=True)
class Running:
    """A test that is being run.  stage: from the set-up of `cluster` to its tear-down."""

    wanted: Wanted
    seed: int
    directory: Path
    keep: bool
    stage: Stage | None = None
    failed: bool = False


RUNNING: Final = pytest.StashKey[Running]()


def run_protocol(
    item: pytest.Item, nextitem: pytest.Item | None, *, wanted: Wanted, seed: int, directory: Path, keep: bool
) -> list[pytest.TestReport]:
    """Set-up, call and tear-down; the reports, which nobody has been told of."""
    running = item.stash[RUNNING] = Running(wanted=wanted, seed=seed, directory=directory, keep=keep)
    shutil.rmtree(directory, ignore_errors=True)  # an earlier run of this seed that failed: its nodes' data is in it
    properties = list(item.user_properties)
    item.runtest = functools.partial(_run_test, item, running)  # type: ignore[method-assign,arg-type]
    try:
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    finally:
        del item.stash[RUNNING]
        item.user_properties[:] = properties
    if not running.failed and not keep:
        shutil.rmtree(directory, ignore_errors=True)
    return reports


def _run_test(item: pytest.Function, running: Running) -> None:
    """What `item.runtest` is while it runs: the coroutine function is called on the stage, as an ordinary function."""
    function = item.obj
    stage = running.stage
    assert stage is not None, "the fixture `cluster` is not seatrial's: give a fixture of yours another name"
    if inspect.iscoroutinefunction(function):
        item.obj = _on_stage(function, running, running.wanted.timeout_s)
    try:
        item.ihook.pytest_pyfunc_call(pyfuncitem=item)
    except NotHere as refused:
        if running.wanted.system_chosen:
            pytest.skip(str(refused))
        raise
    finally:
        item.obj = function


def _on_stage(function: Callable[..., Any], running: Running, timeout_s: float) -> Callable[..., Any]:
    @functools.wraps(function)
    def on_stage(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        assert running.stage is not None
        try:
            return running.stage.run(lambda: function(*arguments, **named), timeout_s=timeout_s)
        except TestDeadlineExceeded as overdue:
            told = str(overdue)
        pytest.fail(told, pytrace=False)  # where it waited is in the text; where we waited for it is of no interest

    # Other plugins must take it for what it is, and not for what it wraps.
    del on_stage.__wrapped__
    return on_stage


def staged(item: pytest.Item) -> Iterator[Stage]:
    """The fixture `cluster`: the stage, until the test's end."""
    running = item.stash[RUNNING]
    try:
        stage = running.stage = open_stage(running.wanted, seed=running.seed, directory=running.directory)
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        yield stage
    finally:
        stage.close()


def make_fixture_synchronous(fixturedef: Any, request: Any) -> Callable[[], None]:
    """Have an asynchronous fixture of a test that uses `cluster` run on its stage; returns what undoes it."""
    original = fixturedef.func
    if RUNNING not in request.node.stash or fixturedef.scope != "function":
        return lambda: None
    if inspect.iscoroutinefunction(original):
        fixturedef.func = _coroutine_fixture(original, request)
    elif inspect.isasyncgenfunction(original):
        fixturedef.func = _generator_fixture(original, request)

    def undo() -> None:
        fixturedef.func = original

    return undo


def _coroutine_fixture(function: Callable[..., Any], request: Any) -> Callable[..., Any]:
    def fixture(*arguments: Any, **named: Any) -> Any:
        request.getfixturevalue("cluster")  # it makes the stage
        return _on_stage(function, request.node.stash[RUNNING], FIXTURE_TIMEOUT_S)(*arguments, **named)

    return fixture


def _generator_fixture(function: Callable[..., Any], request: Any) -> Callable[..., Any]:
    def fixture(*arguments: Any, **named: Any) -> Generator[Any, None, None]:
        request.getfixturevalue("cluster")
        running = request.node.stash[RUNNING]
        generator = function(*arguments, **named)

        async def first() -> Any:
            return await anext(generator)

        yield _on_stage(first, running, FIXTURE_TIMEOUT_S)()

        async def rest() -> None:
            async for _ in generator:
                raise RuntimeError(f"the fixture {request.fixturename} yields more than once")

        _on_stage(rest, running, FIXTURE_TIMEOUT_S)()

    return fixture


def complete(report: pytest.TestReport, item: pytest.Item) -> None:
    """Put into a report of a run what a reader needs; of a failure leave everything behind."""
    running = item.stash[RUNNING]
    if report.when == "call" and running.stage is not None and (digest := running.stage.digest()) is not None:
        _tell(report, item, "trace", digest)
    if not report.failed and not (running.keep and report.when == "call" and report.passed):
        return
    running.failed = running.failed or report.failed
    section, page = leave_behind(
        running.directory,
        stage=running.stage,
        wanted=running.wanted,
        seed=running.seed,
        nodeid=item.nodeid,
        failure=report.longreprtext,
    )
    report.sections.append(("seatrial", section))
    if page is not None:
        _tell(report, item, "report", str(page))


def _tell(report: pytest.TestReport, item: pytest.Item, name: str, value: str) -> None:
    """A property of this report and of those that follow: JUnit's XML takes them from the last."""
    report.user_properties = [*report.user_properties, (name, value)]
    item.user_properties.append((name, value))

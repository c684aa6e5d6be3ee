"""Runs functions in processes forked from one warmed, pinned process: a run depends on nothing but its argument.

    with Zygote(run_case) as zygote:
        outcome = zygote.run(run_case, case, timeout_s=60)

    for case, outcome in run_many(cases, run_case, jobs=2):
        ...

Functions are those of a module, given by name; arguments and results are pickled.  One process a run costs some
milliseconds, and buys that the hundredth seed of a hunt gives the same trace as that seed alone.
Rule: nothing is left behind: not on Ctrl-C, not when a run hangs, not when this process is killed.
This is about real processes: it uses the real clock for time-outs.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Self, TypeVar

from seatrial.sim.case import Case, Outcome, Violation
from seatrial.sim.forked import MAIN, MESSAGE_BYTES_MAX, Reference, is_zygote, read_message, write_message
from seatrial.sim.launch import Pinning, pinned_command, pinned_environment

A = TypeVar("A")
R = TypeVar("R")

START_TIMEOUT_S: Final = 60.0
STARTS_MAX: Final = 4
RUN_TIMEOUT_S: Final = 300.0
_STATUS_WAIT_S: Final = 2.0


class ZygoteFailed(Exception):
    """The zygote could not be started; the message says what it said, or what to do."""


@dataclass(frozen=True, slots=True)
class Died:
    """A run that gave no result: it raised, crashed, was killed or took too long."""

    reason: str


@dataclass(slots=True)
class Job:
    """One run that is under way."""

    argument: Any
    channel: socket.socket
    deadline: float
    timeout_s: float
    pid: int = 0
    ended: list[int] = field(default_factory=list)  # the exit code, or minus the signal


class Zygote:
    """A warmed process.  warm: functions whose modules it imports before anything is run; give all that will be run.

    prepare: a function and its argument, called there once before anything is run; it is also given how to go on, which
    it has to call when it is done (`forked.serve`).  paths: the module search path there; None: as here, where that is
    needed.  environment: what to add to the fixed one.
    """

    def __init__(
        self,
        *warm: Callable[..., Any],
        prepare: tuple[Callable[[Any, Callable[[], NoReturn]], NoReturn], Any] | None = None,
        paths: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if is_zygote():  # or each would start the next, without end
            raise ZygoteFailed(
                "a process that was made to run simulations was about to start another, because it imports your "
                "program: put what the program does when it is started under `if __name__ == '__main__':`"
            )
        self._starting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        references = [reference_to(function) for function in warm]
        if paths is None:
            # Our own functions need no path but the usual: then a zygote is the same whoever starts it.
            paths = sys.path if any(reference.file for reference in references) else []
        prepared = None if prepare is None else (reference_to(prepare[0]), prepare[1])
        self._environment = pinned_environment() | dict(environment or {})
        said = None
        for _ in range(STARTS_MAX):
            began = time.time()
            self._spawn()
            try:
                said = self._warmed((list(paths), os.getcwd(), references, began, prepared))  # noqa: PTH109
            except BaseException:
                self.close()
                raise
            if said is not None:
                break
            self.close()
        if said is None:
            raise ZygoteFailed("the sources change while they are imported; try again when they do not")
        self.pinning = said

    def _spawn(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told, self._go = os.pipe()
        # The command is the same for every zygote: what it is called with moves what lies behind it in its memory.
        package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
        bootstrap = f"import sys; sys.path.insert(0, {package_root!r}); from seatrial.sim.forked import serve; serve()"
        self._process = subprocess.Popen(
            pinned_command(["-P", "-c", bootstrap]),
            env=self._environment,
            stdin=theirs.fileno(),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        theirs.close()
        socket.send_fds(self._control, [b"g"], [told])
        os.close(told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every run that is under way, and the zygote."""
        for job in [*self._starting, *self._running.values()]:
            job.channel.close()
        self._control.close()
        if self._go >= 0:
            os.close(self._go)
            self._go = -1
        self._process.kill()
        self._process.wait()

    def run(self, function: Callable[[A], R], argument: A, *, timeout_s: float = RUN_TIMEOUT_S) -> R | Died:
        """The function's result in a process of its own, or why there is none."""
        job = self.start(function, argument, timeout_s=timeout_s)
        while not (finished := self.finished([job])):
            continue
        result: R | Died = finished[0][1]
        return result

    def start(self, function: Callable[[A], R], argument: A, *, timeout_s: float = RUN_TIMEOUT_S) -> Job:
        """Begin a run; `finished` gives its result."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        message = pickle.dumps((reference_to(function), pickle.dumps(argument)))
        try:
            os.write(self._go, b"f")
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ZygoteFailed(f"the zygote has gone: {error}") from error
        finally:
            theirs.close()
        job = Job(argument, ours, time.monotonic() + timeout_s, timeout_s)
        self._starting.append(job)
        while job.pid == 0:
            self._hear(START_TIMEOUT_S)
        write_message(ours, message)
        return job

    def finished(self, jobs: list[Job]) -> list[tuple[Job, Any]]:
        """Wait until at least one of the jobs has a result or is overdue; those that have, with it or Died."""
        wait_s = max(0.0, min(job.deadline for job in jobs) - time.monotonic())
        readable, _, _ = select.select([*(job.channel for job in jobs), self._control], [], [], wait_s)
        if self._control in readable:
            self._hear(0)
        done = [(job, self._result(job)) for job in jobs if job.channel in readable]
        overdue = [job for job in jobs if job.channel not in readable and job.deadline <= time.monotonic()]
        for job in overdue:
            self._kill(job)
            done.append((job, Died(f"it took longer than {job.timeout_s:g} s, and was killed")))
        for job, _result in done:
            job.channel.close()
        return done

    def _result(self, job: Job) -> Any:
        try:
            succeeded, value = pickle.loads(read_message(job.channel))
        except (EOFError, ConnectionResetError):
            return Died(self._how_it_ended(job))
        return value if succeeded else Died(value)

    def _how_it_ended(self, job: Job) -> str:
        deadline = time.monotonic() + _STATUS_WAIT_S
        while not job.ended and (left := deadline - time.monotonic()) > 0:
            self._hear(left)
        if not job.ended:
            return "the process ended without a result"
        code = job.ended[0]
        return (
            f"the process was killed by {signal.Signals(-code).name}" if code < 0 else f"the process exited with {code}"
        )

    def _kill(self, job: Job) -> None:
        if not job.ended:
            os.kill(job.pid, signal.SIGKILL)

    def _warmed(self, order: tuple[Any, ...]) -> Pinning | None:
        """What is pinned, once everything is imported; None if something was compiled for that, which next time it is
        not: a compiled module takes other memory than one that is read."""
        self._control.send(pickle.dumps(order))
        self._control.settimeout(START_TIMEOUT_S)
        try:
            answer = self._control.recv(MESSAGE_BYTES_MAX)
        except TimeoutError as error:
            raise ZygoteFailed(f"the zygote was not ready within {START_TIMEOUT_S:g} s") from error
        if not answer:
            raise ZygoteFailed(f"the zygote exited with {self._process.wait()} before it was ready")
        said = pickle.loads(answer)
        if isinstance(said, str):
            raise ZygoteFailed(f"the zygote could not import what is to be run:\n{said}")
        return None if said is None else Pinning(**said)

    def _hear(self, timeout_s: float) -> None:
        """Take what the zygote says of its children, waiting for it so long."""
        readable, _, _ = select.select([self._control], [], [], timeout_s)
        if not readable:
            if timeout_s >= START_TIMEOUT_S:
                raise ZygoteFailed(f"the zygote did not fork within {timeout_s:g} s")
            return
        words = self._control.recv(MESSAGE_BYTES_MAX).split()
        if not words:
            raise ZygoteFailed(f"the zygote exited with {self._process.wait()}")
        if words[0] == b"started":
            job = self._starting.popleft()
            job.pid = int(words[1])
            self._running[job.pid] = job
        else:
            ended = self._running.pop(int(words[1]), None)
            if ended is not None:
                ended.ended.append(int(words[2]))


def reference_to(function: Callable[..., Any]) -> Reference:
    """The function by name, for another process.

    Raises:
        ValueError: it has none there: it was defined inside another function, or is no function.
    """
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "<unnamed>")
    if module is None or "<" in qualname:
        raise ValueError(f"{function!r} cannot be run in another process; define it at the top of a module")
    if module == "__main__":
        sys.modules.setdefault(MAIN, sys.modules[module])  # what comes back is of that name
    ours = module.split(".")[0] == "seatrial"
    file = "" if ours else getattr(sys.modules.get(module), "__file__", None) or ""
    return Reference(module=module, file=os.path.abspath(file) if file else "", qualname=qualname)  # noqa: PTH100


def run_forked(function: Callable[[A], R], argument: A, *, timeout_s: float = RUN_TIMEOUT_S) -> R | Died:
    """One run in a fresh pinned process."""
    with Zygote(function) as zygote:
        return zygote.run(function, argument, timeout_s=timeout_s)


def map_forked(
    function: Callable[[A], R],
    arguments: Iterable[A],
    *,
    jobs: int = 1,
    timeout_s: float = RUN_TIMEOUT_S,
    warm: Iterable[Callable[..., Any]] = (),
) -> Iterator[tuple[A, R | Died]]:
    """Every argument with its result, in the order in which they are done; up to `jobs` at a time.

    warm: other functions that the first one calls, whose modules it imports only then.
    """
    waiting = iter(arguments)
    with Zygote(function, *warm) as zygote:
        running: list[Job] = []
        while True:
            while len(running) < jobs and (argument := next(waiting, _END)) is not _END:
                running.append(zygote.start(function, argument, timeout_s=timeout_s))
            if not running:
                return
            for job, result in zygote.finished(running):
                running.remove(job)
                yield job.argument, result


_END: Final[Any] = object()


def run_many(
    cases: Iterable[Case],
    run: Callable[[Case], Outcome],
    jobs: int = 1,
    *,
    timeout_s: float = RUN_TIMEOUT_S,
    warm: Iterable[Callable[..., Any]] = (),
) -> Iterator[tuple[Case, Outcome]]:
    """Every case with its outcome, as they are done; a run that died has the violation "simulator-crash"."""
    for case, outcome in map_forked(run, cases, jobs=jobs, timeout_s=timeout_s, warm=warm):
        yield case, crashed(outcome) if isinstance(outcome, Died) else outcome


def crashed(death: Died) -> Outcome:
    """The outcome of a run that gave none."""
    violation = Violation(name="simulator-crash", message=death.reason, at_us=0)
    return Outcome(violations=(violation,), digest="", events=0, virtual_us=0, operations={}, bit={}, marks={})

"""OS processes that end when we end: spawned in a session of their own, watched, and never left behind.

Three nets, each for what the one before cannot catch: `Processes.close` on every ordinary way out, PR_SET_PDEATHSIG
when this process dies, and the guardian (guardian.py) for the grandchildren and directories that are left then.

Rule: every process started here is ended by `close`; an exit that nobody asked for is told to `on_exit` at once.
Knows nothing of what the processes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from seatrial.cluster import guardian
from seatrial.cluster.errors import ClusterError, NodeExited, Unavailable

PR_SET_PDEATHSIG = 1
EXIT_POLL_S = 0.02
LOG_TAIL_BYTES = 2000
CLOSE_TIMEOUT_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent(parent: int) -> Callable[[], None]:
    """What the child runs between fork and exec.  It must be called from a thread that lives as long as we do."""

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the signal was set
            os._exit(127)

    return prepare


class NodeProcess:
    """One incarnation of a process, in a process group of its own.

    `exit_status` is None while it lives, then its status, or minus the number of the signal that ended it.
    """

    def __init__(
        self,
        name: str,
        popen: subprocess.Popen[bytes],
        log: Path,
        log_start: int,
        on_exit: Callable[[NodeProcess], None],
    ):
        self.name = name
        self.pid = popen.pid
        self.log = log
        self.exit_status: int | None = None
        self.paused = False
        self.end_requested = False
        self._popen = popen
        self._on_exit = on_exit
        self._exited = asyncio.Event()
        self._log_start = log_start  # what was in the file before this incarnation
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    @property
    def alive(self) -> bool:
        return self.exit_status is None

    def state(self) -> str:
        """ "stopped", "running", "sleeping", …: what the operating system says now; "gone" after its end."""
        try:
            return str(psutil.Process(self.pid).status())
        except psutil.NoSuchProcess:
            return "gone"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group.  Raises ClusterError when the process has ended."""
        if not self.alive:
            raise ClusterError(f"{self.name} (pid {self.pid}) is not running: {self.how_it_ended()}")
        with contextlib.suppress(ProcessLookupError):  # it ended this moment; the watch reports it
            os.killpg(self.pid, number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.paused = number == signal.SIGSTOP

    def end(self, number: signal.Signals) -> None:
        """Ask for its end by a signal; the exit that follows is then no surprise."""
        self.end_requested = True
        self.send(number)

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        await self._exited.wait()
        assert self.exit_status is not None
        return self.exit_status

    def how_it_ended(self) -> str:
        if self.exit_status is None:
            return "running"
        if self.exit_status < 0:
            return f"ended by {signal.Signals(-self.exit_status).name}"
        return f"exited with status {self.exit_status}"

    def log_tail(self) -> str:
        """The end of what this incarnation wrote to standard error."""
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace").strip()

    def check_alive(self) -> None:
        """Raises NodeExited, with the end of its log, when it has ended."""
        if self.exit_status is not None:
            raise NodeExited(self.name, self.exit_status, self.log_tail())

    def _watch(self) -> None:
        if hasattr(os, "pidfd_open"):
            self._descriptor = os.pidfd_open(self.pid)
            self._loop.add_reader(self._descriptor, self._reap)
        else:
            self._timer = self._loop.call_later(EXIT_POLL_S, self._poll)

    def _poll(self) -> None:
        self._timer = self._loop.call_later(EXIT_POLL_S, self._poll)
        self._reap()

    def _reap(self) -> None:
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or self.exit_status is not None:
            return
        # What it had started itself stays in its group; it goes too, as if the machine had gone.  Until the exit status
        # is taken below, the number of the group cannot be given to another.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.exit_status = self._popen.wait()
        self.paused = False
        self._stop_watching()
        self._exited.set()
        self._on_exit(self)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


class Processes:
    """Starts processes and sees to it that none outlives us.  `on_exit` is called for each that ends."""

    def __init__(self, on_exit: Callable[[NodeProcess], None]) -> None:
        self._on_exit = on_exit
        self._alive: set[NodeProcess] = set()
        self._directories: set[Path] = set()
        # -I -S: no site-packages, so that it is up in a few milliseconds and nobody's start-up hook runs in it.
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        logs: Path,
    ) -> NodeProcess:
        """Start `argv` with exactly this environment; its output is appended to stdout.log and stderr.log in `logs`.

        Raises Unavailable when there is no such program.
        """
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / "stderr.log"
        with (logs / "stdout.log").open("ab") as stdout, log.open("ab") as stderr:
            log_start = stderr.tell()
            try:
                popen = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=dict(environment),
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=_die_with_parent(os.getpid()),
                )
            except (FileNotFoundError, PermissionError) as error:
                raise Unavailable(f"{name}: cannot start {argv[0]}: {error.strerror}") from error
        self._tell_guardian(f"+ {popen.pid}")
        process = NodeProcess(name, popen, log, log_start, self._ended)
        self._alive.add(process)
        return process

    def remove_at_end(self, directory: Path) -> None:
        """Remove this directory when everything has ended, however we end."""
        self._directories.add(directory)
        self._tell_guardian(f"d {directory}")

    async def close(self) -> None:
        """Kill what is alive, remove the directories, end the guardian.  Never raises for what is already gone."""
        alive = sorted(self._alive, key=lambda process: process.pid)
        for process in alive:
            process.end(signal.SIGKILL)
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            for process in alive:
                await process.wait()
        for directory in sorted(self._directories):
            shutil.rmtree(directory, ignore_errors=True)
            if not directory.exists():
                self._tell_guardian(f"k {directory}")
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        self._guardian.wait(CLOSE_TIMEOUT_S)

    def _ended(self, process: NodeProcess) -> None:
        self._alive.discard(process)
        self._tell_guardian(f"- {process.pid}")
        self._on_exit(process)

    def _tell_guardian(self, line: str) -> None:
        pipe = self._guardian.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # someone killed it; PR_SET_PDEATHSIG is still there
            pipe.write(f"{line}\n".encode())
            pipe.flush()

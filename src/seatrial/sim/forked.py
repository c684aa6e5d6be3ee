"""The zygote's own side: a pinned process that has imported everything, and forks for each run.

The zygote itself does nothing but read a byte and fork, which leaves its memory as it was: where Python puts its
objects, and so how sets of them are ordered, then does not depend on what ran before.  Everything else is done by the
child, the keeper: it takes what is to be run, forks the runner, waits for it and tells how it ended.
Rule: a runner dies with its keeper, a keeper with the zygote (PDEATHSIG), and the zygote when the pipe closes that
tells it to fork.  Knows nothing of who asks (`zygote`).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from types import ModuleType
from typing import Any, Final, NoReturn

from seatrial.sim import escape
from seatrial.sim.launch import pinning
from seatrial.sim.sources import refuse_late_imports, were_edited_since

PR_SET_PDEATHSIG: Final = 1
MAIN: Final = "seatrial_main"  # a program's main module, where it is not the main one
MESSAGE_BYTES_MAX: Final = 1 << 16
CONTROL: Final = 0  # the standard input, whatever Python's `sys.stdin` has become
_REHEARSALS: Final = 3  # the first forks still change what is allocated
_serving = False


def is_zygote() -> bool:
    """Whether this process is a zygote, or was forked from one."""
    return _serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A function of a module, by name; the file is for modules that cannot be imported by theirs."""

    module: str
    file: str
    qualname: str

    def resolve(self) -> Callable[[Any], Any]:
        found: Any = self._imported()
        for name in self.qualname.split("."):
            found = getattr(found, name)
        resolved: Callable[[Any], Any] = found
        return resolved

    def _imported(self) -> ModuleType:
        if self.module != "__main__":
            try:
                return importlib.import_module(self.module)
            except ImportError:
                if not self.file:
                    raise
        name = MAIN if self.module == "__main__" else self.module
        known = sys.modules.get(name)
        if known is not None:
            return known
        spec = importlib.util.spec_from_file_location(name, self.file)
        assert spec is not None, f"{self.file} is no Python file"
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if name == MAIN:
            sys.modules["__main__"] = module  # what was pickled there is of this module here
        return module


def serve() -> NoReturn:
    """Be a zygote: get ready, say so, fork for each byte that comes, until nobody is there any more.

    The control socket is the standard input; the pipe whose bytes mean to fork is the first thing that comes over it.
    What else is to be in memory, a function may make: it is called with its argument and with how to go on, which does
    not return, so that what the function has on its stack is there in every run.
    """
    global _serving
    _serving = True
    control = socket.socket(fileno=CONTROL)
    _, (go,), _, _ = socket.recv_fds(control, 1, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the keepers
    paths, directory, references, began, prepare = pickle.loads(control.recv(MESSAGE_BYTES_MAX))
    os.chdir(directory)
    if paths:
        sys.path[:] = paths
    escape.install()
    try:
        for reference in references:
            reference.resolve()
        if prepare is not None:
            function, argument = prepare
            function.resolve()(argument, partial(_fork_for_each, control, go, began))
            raise RuntimeError(f"{function.qualname} returned, and did not go on")
    except BaseException:  # said to whoever started the zygote, which raises it
        control.send(pickle.dumps(traceback.format_exc()[-MESSAGE_BYTES_MAX // 2 :]))
        os._exit(1)
    _fork_for_each(control, go, began)


def _fork_for_each(control: socket.socket, go: int, began: float) -> NoReturn:
    ready = pickle.dumps(None if was_compiled_since(began) or were_edited_since(began) else asdict(pinning()))
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(_REHEARSALS):
        if os.fork() == 0:
            os._exit(0)
    control.send(ready)
    zygote = os.getpid()
    while os.read(go, 1):
        if os.fork() == 0:
            _be_keeper(control, zygote)
    os._exit(0)


def was_compiled_since(began: float) -> bool:
    """Whether any module that is imported now was compiled after that time (of the wall clock)."""
    for module in list(sys.modules.values()):
        cached = getattr(module, "__cached__", None)
        try:
            if cached and os.stat(cached).st_mtime >= began:  # noqa: PTH116
                return True
        except OSError:
            continue
    return False


def _be_keeper(control: socket.socket, zygote: int) -> NoReturn:
    try:
        die_with_parent(zygote)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        keeper = os.getpid()
        runner = os.fork()
        if runner == 0:
            _be_runner(descriptors[0], keeper)
        os.close(descriptors[0])
        control.send(b"started %d" % runner)
        _, status = os.waitpid(runner, 0)
        control.send(b"ended %d %d" % (runner, os.waitstatus_to_exitcode(status)))
    except OSError:
        pass  # the asker has gone
    finally:
        os._exit(0)


def _be_runner(descriptor: int, keeper: int) -> NoReturn:
    try:
        die_with_parent(keeper)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, CONTROL)
        with socket.socket(fileno=descriptor) as channel:
            reference, argument = pickle.loads(read_message(channel))
            try:
                function = reference.resolve()  # first, for the argument may be of its module
                value, warmed = pickle.loads(argument), frozenset(sys.modules)
                result: tuple[bool, Any] = (True, function(value))
                if reference.module.startswith("seatrial.sim."):
                    refuse_late_imports(warmed)
            except BaseException:  # told to the asker, who raises or reports it
                result = (False, traceback.format_exc())
            sys.stdout.flush()
            write_message(channel, pickle.dumps(result))
    except (EOFError, ConnectionError):
        pass  # the asker has gone: it was interrupted, and closes its runs before it kills them
    except BaseException:  # the result cannot be pickled
        traceback.print_exc()
    finally:
        os._exit(0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, that process, ends; at once where it has ended already.

    Elsewhere than on Linux there is no such thing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(0)


def write_message(channel: socket.socket, message: bytes) -> None:
    channel.sendall(len(message).to_bytes(8, "big") + message)


def read_message(channel: socket.socket) -> bytes:
    """Raises EOFError if the other side ends before its message does."""
    size = int.from_bytes(_read(channel, 8), "big")
    return _read(channel, size)


def _read(channel: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError(f"the message ended after {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)

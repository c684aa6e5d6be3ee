"""The zygote's own side: a pinned process that has imported everything, and forks one child for each run.

Each child begins in the same state, whatever ran before it, because the zygote itself never runs anything: it does not
even read what the child is to do.
Rule: children die with the zygote (PDEATHSIG), and the zygote when its control socket closes.
Knows nothing of who asks (`zygote`).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Final

from seatrial.sim import escape
from seatrial.sim.launch import pinning

PR_SET_PDEATHSIG: Final = 1
MESSAGE_BYTES_MAX: Final = 1 << 16
_REAP_S: Final = 0.02


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
        name = "seatrial_main" if self.module == "__main__" else self.module
        known = sys.modules.get(name)
        if known is not None:
            return known
        spec = importlib.util.spec_from_file_location(name, self.file)
        assert spec is not None, f"{self.file} is no Python file"
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def serve(descriptor: int) -> None:
    """Be a zygote: get ready, say so, fork when told to, until nobody is there any more."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _get_ready(control)
    while True:
        readable, _, _ = select.select([control], [], [], _REAP_S)
        _reap(control)
        if not readable:
            continue
        asked, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not asked:
            os._exit(0)
        child = os.fork()
        if child == 0:
            control.close()
            _be_child(descriptors[0])
        os.close(descriptors[0])
        control.send(b"started %d" % child)


def _get_ready(control: socket.socket) -> None:
    paths, directory, references = pickle.loads(control.recv(MESSAGE_BYTES_MAX))
    os.chdir(directory)
    if paths:
        sys.path[:] = paths
    escape.install()
    try:
        for reference in references:
            reference.resolve()
    except Exception:  # said to whoever started the zygote, which raises it
        control.send(pickle.dumps(traceback.format_exc()[-MESSAGE_BYTES_MAX // 2 :]))
        os._exit(1)
    gc.collect()
    gc.freeze()
    gc.disable()
    control.send(pickle.dumps(asdict(pinning())))


def _reap(control: socket.socket) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        control.send(b"ended %d %d" % (child, os.waitstatus_to_exitcode(status)))


def _be_child(descriptor: int) -> None:
    try:
        die_with_parent()
        with socket.socket(fileno=descriptor) as channel:
            reference, argument = pickle.loads(read_message(channel))
            try:
                result: tuple[bool, Any] = (True, reference.resolve()(argument))
            except BaseException:  # told to the asker, who raises or reports it
                result = (False, traceback.format_exc())
            sys.stdout.flush()
            write_message(channel, pickle.dumps(result))
    except BaseException:  # the asker has gone, or the result cannot be pickled
        traceback.print_exc()
    finally:
        os._exit(0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; elsewhere than on Linux there is no such thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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

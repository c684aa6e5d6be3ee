"""The C shim: virtual clocks and entropy for compiled code, built on first use and preloaded by `launch`.

Rule: it is built once for each version of its source, into the user's cache, and put there atomically; where there is
no compiler or no Linux nothing fails, and the simulation runs on Python's own patches (`escape`), which compiled
clients do not see.  Building belongs to the real process and uses real files.
Knows nothing of hosts; it is told numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final, Protocol

# The layout of `seatrial_shim` in shim.c.
ACTIVE: Final = 0
WORLD_US: Final = 1
SINCE_US: Final = 2
LOCAL_US: Final = 3
DRIFT_PPM: Final = 4
WALL_US: Final = 5
HOST: Final = 6
CLOCK_READS: Final = 7
ENTROPY_READS: Final = 8
SLEEPS: Final = 9
FIELDS: Final = 16
HOSTS: Final = 256

BUILD_TIMEOUT_S: Final = 60


class ShimUnavailable(Exception):
    """The shim cannot be had on this machine; the message says why and what would help."""


def source() -> bytes:
    return files("seatrial.sim").joinpath("shim.c").read_bytes()


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seatrial"


def built(directory: Path | None = None) -> Path:
    """The shared library, built now if this version of it was not built yet.

    Raises:
        ShimUnavailable: not Linux, no C compiler, the compiler failed, or no directory to write to.
    """
    if sys.platform != "linux":
        raise ShimUnavailable(f"preloading a library works on Linux only, and this is {sys.platform}")
    text = source()
    directory = directory or cache_directory()
    library = directory / f"shim-{hashlib.blake2b(text, digest_size=8).hexdigest()}.so"
    if library.exists():
        return library
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise ShimUnavailable("there is no C compiler; install one (cc, gcc or clang)")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            written = Path(scratch) / "shim.c"
            written.write_bytes(text)
            made = Path(scratch) / "shim.so"
            command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(written)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
            if done.returncode != 0:
                raise ShimUnavailable(f"{compiler} failed: {done.stderr.strip()[-500:]}")
            made.replace(library)
    except OSError as error:
        raise ShimUnavailable(f"it cannot be built in {directory}: {error}") from error
    return library


class Numbers(Protocol):
    """A row of integers of 64 bits, of which each can be set."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


def loaded() -> Numbers | None:
    """The preloaded shim's numbers; None where it was not preloaded."""
    try:
        numbers = (ctypes.c_int64 * (FIELDS + HOSTS)).in_dll(ctypes.CDLL(None), "seatrial_shim")
    except (OSError, ValueError, TypeError):
        return None
    return memoryview(numbers).cast("B").cast("q")

"""Starts processes in which a simulation can be replayed: hash seed, addresses, environment and shim are pinned.

What a run must not depend on, and how it is kept from it (each was a real difference between two replays):

- the order of sets of strings: PYTHONHASHSEED=0;
- addresses, which are hashes of plain objects and, before Python 3.12, of None: address randomisation is switched off
  (personality ADDR_NO_RANDOMIZE), and the environment is a fixed one, because its size moves what comes after it;
- the real clocks and entropy, which compiled code reads past any Python patch: the C shim is preloaded.

Rule: what cannot be had here is named, never silently left out; pure-Python programs replay without the shim as well.
This is about the real process: it may use what the simulation may not.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from seatrial.sim.shim import ShimUnavailable, built, loaded

ADDR_NO_RANDOMIZE: Final = 0x0040000
_ASK: Final = 0xFFFFFFFF
_MARK: Final = "SEATRIAL_PINNED"
_KEPT: Final = ("HOME", "PATH", "XDG_CACHE_HOME")  # the same for every run of one user
# Run by a bare interpreter: the setting survives exec, and is made by nobody else.
_STUB: Final = (
    "import ctypes,os,sys\n"
    "libc=ctypes.CDLL(None)\n"
    f"libc.personality(ctypes.c_ulong(libc.personality(ctypes.c_ulong({_ASK}))|{ADDR_NO_RANDOMIZE}))\n"
    "os.execve(sys.argv[1],sys.argv[1:],dict(os.environ))\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinning:
    """What of this process is pinned; `missing` says of the rest why, and what it means."""

    hash_seed: bool
    addresses: bool
    shim: bool
    missing: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return self.hash_seed and self.addresses and self.shim


def pinning() -> Pinning:
    """How this process was started."""
    hash_seed = os.environ.get("PYTHONHASHSEED") == "0"
    addresses = not addresses_are_random()
    shimmed = loaded() is not None
    missing = []
    if not hash_seed:
        missing.append("PYTHONHASHSEED is not 0: sets of strings are ordered differently in each process")
    if not addresses and sys.version_info < (3, 12):
        missing.append("address randomisation is on, and before Python 3.12 hash(None) is an address")
    elif not addresses:
        missing.append("address randomisation is on: sets of plain objects are ordered differently in each process")
    if not shimmed:
        missing.append(f"the C shim is not preloaded ({_why_no_shim()}): compiled clients (aiokafka's) may not replay")
    return Pinning(hash_seed=hash_seed, addresses=addresses, shim=shimmed, missing=tuple(missing))


def addresses_are_random() -> bool:
    """Whether the kernel places this process anew each time."""
    if sys.platform != "linux":
        return True
    return not ctypes.CDLL(None).personality(ctypes.c_ulong(_ASK)) & ADDR_NO_RANDOMIZE


def pinned_environment() -> dict[str, str]:
    """The whole environment of a pinned process."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", _MARK: "1"}
    try:
        environment["LD_PRELOAD"] = str(built())
    except ShimUnavailable:
        environment["LD_PRELOAD"] = ""
    return environment


def pinned_command(arguments: list[str]) -> list[str]:
    """A command that runs this Python with these arguments, with address randomisation off where that can be had."""
    if sys.platform != "linux":
        return [sys.executable, *arguments]
    return [sys.executable, "-I", "-S", "-c", _STUB, sys.executable, *arguments]


def ensure_deterministic_process(*, environment: Mapping[str, str] | None = None) -> Pinning:
    """Replace this process by the same program, pinned; returns at once in the process that is.

    For programs that simulate in their own process; call it before anything else, since the program starts anew.  What
    is run through `zygote` needs none of it.  environment: what to add to the fixed one.
    """
    if os.environ.get(_MARK) != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        command = pinned_command(sys.orig_argv[1:])
        os.execve(command[0], command, pinned_environment() | dict(environment or {}))
    return pinning()


def _why_no_shim() -> str:
    try:
        return f"it is there: {built()}" if os.environ.get(_MARK) != "1" else "the system refused it"
    except ShimUnavailable as reason:
        return str(reason)

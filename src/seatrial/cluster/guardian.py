"""Outlives the harness by a moment to end what it left behind: kills process groups, removes directories.

Run as a process of its own with a pipe as its standard input; the harness writes one line for each thing:
`+ PID` a process group to end, `- PID` it has ended, `d PATH` a directory to remove, `k PATH` keep it after all.
However the harness ends, SIGKILL included, the pipe closes, and whatever is still on the list goes.

Rule: acts only on what it was told of, and only once its harness is gone.  Nothing but the standard library, and no
import of this package: it starts in a few milliseconds with `python -I -S`.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys

PARENT_POLL_S = 0.5


def obey(line: str, groups: set[int], directories: set[str]) -> None:
    """Take one line of the protocol above into the lists."""
    verb, _, argument = line.partition(" ")
    if verb == "+":
        groups.add(int(argument))
    elif verb == "-":
        groups.discard(int(argument))
    elif verb == "d":
        directories.add(argument)
    elif verb == "k":
        directories.discard(argument)


def listen(descriptor: int, parent: int) -> tuple[set[int], set[str]]:
    """Read lines until the pipe closes or the parent is gone; what is left on the lists."""
    groups: set[int] = set()
    directories: set[str] = set()
    pending = b""
    # A child that the harness forked by other means may hold the pipe open, so its parent's death counts too.
    while os.getppid() == parent:
        if not select.select([descriptor], [], [], PARENT_POLL_S)[0]:
            continue
        data = os.read(descriptor, 65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            obey(line.decode(), groups, directories)
    return groups, directories


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups, directories = listen(sys.stdin.fileno(), int(sys.argv[1]))
    for group in sorted(groups):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for directory in sorted(directories):
        # A dying process may still create a file while its directory goes: once more is enough.
        for _ in range(3):
            shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

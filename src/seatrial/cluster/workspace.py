"""Directories of clusters that nobody wants to keep, and the sweeping of those that a dead harness left behind.

A temporary directory holds a marker file that its owner keeps locked: a lock ends with the process, however it ends,
and unlike a process id is never given to another.  The guardian removes the directory of a harness that was killed; the
sweep is for a machine that lost its power, and for a guardian that was killed too.

Rule: a directory is removed only under its marker's lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO

PREFIX = "seatrial-cluster-"
MARKER = ".owner-pid"
# A directory younger than this may not have its lock yet.
SWEEP_AGE_S = 10.0


class TemporaryWorkspace:
    """A fresh directory that carries our lock until `close`, which does not remove it: see Processes.remove_at_end."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._marker: IO[str] = (self.root / MARKER).open("w")
        fcntl.flock(self._marker, fcntl.LOCK_EX)
        self._marker.write(f"{os.getpid()}\n")
        self._marker.flush()

    def close(self) -> None:
        self._marker.close()


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove the directories of owners that are gone; the list of them."""
    swept = []
    now = time.time()
    for root in sorted((parent or Path(tempfile.gettempdir())).glob(f"{PREFIX}*")):
        try:
            if now - root.stat().st_mtime < SWEEP_AGE_S:
                continue
            with (root / MARKER).open("r+") as marker:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(root, ignore_errors=True)
                swept.append(root)
        except OSError:  # it is alive, another user's, gone meanwhile, or not one of ours
            continue
    return swept

"""Whether the program's own sources stayed what they were while runs were made of them.

Everything that runs is of the sources as they were when its process imported them.  An edit while a zygote imports
makes it a mixture of two versions; one between two zygotes makes two runs of a case differ, and one before a late
import in a forked run does so too.
Rule: a difference that an edit may explain is never called a lack of determinism.
This is about the real process: it looks at real files and at what is imported.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent.parent


class SourcesChanged(Exception):
    """The sources are not what they were; what was compared is of two versions."""


class ImportedLate(Exception):
    """A run imported a part of the simulator or the server that its zygote had not: a defect of ours."""


def fingerprint() -> str:
    """Of all sources of this package, as they are on disk now: names, sizes and times of change."""
    seen = hashlib.blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        try:
            found = path.stat()
        except OSError:  # it was there a moment ago: editors replace files
            continue
        seen.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def were_edited_since(began: float) -> bool:
    """Whether any module that is imported now has a source that was changed after that time (of the wall clock)."""
    now = time.time()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        try:
            # A time still to come says nothing: a clock was set, or an archive was unpacked.
            if file and began <= os.stat(file).st_mtime <= now:  # noqa: PTH116
                return True
        except OSError:
            continue
    return False


def refuse_late_imports(before: Collection[str]) -> None:
    """Raises ImportedLate if modules of this package were imported that were not among those."""
    late = sorted(name for name in sys.modules.keys() - set(before) if name.split(".")[0] == "seatrial")
    if late:
        raise ImportedLate(
            f"{', '.join(late)} was imported during the run and not before it, so that the run may differ from its "
            "replays; please report it (the name belongs into sim/full/warm.py)"
        )

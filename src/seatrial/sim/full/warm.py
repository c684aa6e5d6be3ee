"""Imports, before any simulated code runs, what the server and the clients would import while they run.

Rule: an import under simulation would open files, and take what a cached or a fresh compilation allocates into the run.
This is about the real process: it is imported for its effect.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

LATE_IMPORTS: Final = (
    "aiokafka.admin",
    "anyio._backends._asyncio",
    "seatrial.server.admin",
    "seatrial.server.hooks",
    "seatrial.server.members_api",
    "seatrial.server.metrics",
    "seatrial.transport.filters",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.utils",
)


def warm() -> None:
    """Once in a process; cheap afterwards."""
    sys.dont_write_bytecode = True
    for name in LATE_IMPORTS:
        importlib.import_module(name)

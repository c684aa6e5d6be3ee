"""Imports, before any simulated code runs, what the server and the clients would import while they run.

Rule: an import under simulation would open files, and take what a cached or a fresh compilation allocates into the run.
It happens when this module is imported, and so in the zygote: in each case's own process it would take a tenth of a
second.  This is about the real process: it is imported for its effect.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

LATE_IMPORTS: Final = (
    "aiokafka.admin",
    "anyio._backends._asyncio",
    "seatrial.kafka.config_requests",
    "seatrial.kafka.coordinator_requests",
    "seatrial.kafka.description_requests",
    "seatrial.kafka.group_admin_requests",
    "seatrial.kafka.group_offset_requests",
    "seatrial.kafka.group_requests",
    "seatrial.kafka.partition_requests",
    "seatrial.kafka.reassignment_requests",
    "seatrial.server.admin",
    "seatrial.server.groups.coordinator",
    "seatrial.server.groups.expiry",
    "seatrial.server.hooks",
    "seatrial.server.members_api",
    "seatrial.server.metrics",
    "seatrial.transport.filters",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.utils",
)


for _name in LATE_IMPORTS:
    importlib.import_module(_name)


def warm() -> None:
    """Before a run: whatever is imported only now, all the same, leaves no file."""
    sys.dont_write_bytecode = True

"""Imports, before any simulated code runs, what the server and the clients would import while they run.

The same for what the server compiles for the versions of Kafka's messages that those clients speak.
Rule: an import under simulation would open files, and take what a cached or a fresh compilation allocates into the run.
It happens when this module is imported, and so in the zygote: in each case's own process it would take a tenth of a
second.  This is about the real process: it is imported for its effect.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Final

from aiokafka.protocol.api import RequestStruct

from seatrial.kafka.apis import APIS
from seatrial.kafka.codec import message

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


def _spoken() -> Iterator[tuple[int, int]]:
    """(key, version) of every request that the clients may send; which they are is known once they are imported."""
    for request in RequestStruct.__subclasses__():
        yield int(request.API_KEY), int(request.API_VERSION)


def _prepare_codecs() -> None:
    """For each request the newest version that both sides know, which is what they agree upon."""
    newest: dict[int, int] = {}
    for key, version in _spoken():
        if key in APIS and APIS[key].serves(version):
            newest[key] = max(version, newest.get(key, 0))
    for key, version in sorted(newest.items()):
        for suffix in ("Request", "Response"):
            message(f"{APIS[key].message}{suffix}").prepare(version)


for _name in LATE_IMPORTS:
    importlib.import_module(_name)
_prepare_codecs()


def warm() -> None:
    """Before a run: whatever is imported only now, all the same, leaves no file."""
    sys.dont_write_bytecode = True

"""From a request frame to the buffers of its response.

Rule: the request is parsed, and its work started, before `handle` returns; only the answer may come later.  So the
listener can hand over requests as they arrive, and has nothing to do but send the responses in order.
Knows nothing of sockets and of frames' length prefixes on the way in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from seatrial.kafka.backend import Buffer

Response: TypeAlias = list[Buffer]


class CloseConnection(Exception):
    """The peer cannot be answered in the protocol: close this connection, and log `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class ClientContext:
    """What is known of the client at the other end of one connection; the dispatcher fills in what it learns."""

    peer: str  # address, for the log
    client_id: str | None = None
    software: str = ""  # "name/version" (KIP-511)

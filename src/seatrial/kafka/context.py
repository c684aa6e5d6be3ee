"""What a handler is given, and how it says that a peer cannot be answered.

Rule: a handler answers with a message, or with a coroutine that gives one; it touches nothing but its `Call`.
Knows nothing of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from seatrial.kafka.backend import Backend, BrokerSettings


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


@dataclass(frozen=True, slots=True)
class Call:
    """One request, decoded."""

    backend: Backend
    settings: BrokerSettings
    client: ClientContext
    version: int
    request: Any  # of the classes of `codec.message`


Handler: TypeAlias = Callable[[Call], Any | Coroutine[Any, Any, Any]]

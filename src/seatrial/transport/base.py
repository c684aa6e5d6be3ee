"""How nodes reach each other: messages of all Raft groups, best effort, in order for each peer while connected.

Rule: `send` never blocks and never raises; what cannot be sent is dropped and counted (Raft repeats what matters).
Knows nothing of what messages mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """What the transport knows of one peer."""

    connected: bool
    last_received_us: int | None  # of the clock, any message from it
    bytes_sent: int
    bytes_received: int
    messages_dropped: int
    last_error: str | None


class Transport(Protocol):
    """One node's connections to its peers."""

    async def start(self, receive: Callable[[GroupId, Message], None]) -> None:
        """Listen and begin to connect.  `receive` is called on the event loop, once for each message."""

    def send(self, group: GroupId, messages: Sequence[Message]) -> None:
        """Queue for each message's `to`; flushed once at the end of the loop turn, all groups in one write a peer."""

    def flush(self) -> None:
        """Write what is queued now, and not only at the end of the turn."""

    def add_peer(self, peer: NodeId, address: str, *, directory: int = 0) -> None:
        """Dial it from now on, and accept it: where `directory` is not 0, only with that data directory."""

    def remove_peer(self, peer: NodeId, *, for_good: bool = False) -> None:
        """Hang up both ways and refuse it from now on; `for_good`: and tell it so whenever it calls."""

    def peers(self) -> Mapping[NodeId, PeerStatus]: ...

    async def close(self) -> None: ...

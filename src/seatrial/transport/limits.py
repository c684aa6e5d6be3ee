"""How long a transport waits and how much it holds: numbers alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`frame_bytes_max`: of one frame's body, either way; more is never sent, and ends the connection that brings it.

    `connections_max`: that peers may have open to this node, handshake done or not; 0: no bound.
    `frame_s_max`: for a frame from its first byte to its last, and a second more for each KiB of it that is there.
    `unread_bytes_max`: of answers to a peer that takes none.
    `queue_bytes_max`: held for one peer; above it, messages with payloads are dropped, at twice of it all are.
    """

    frame_bytes_max: int = 64 << 20
    queue_bytes_max: int = 16 << 20
    connections_max: int = 1000
    frame_s_max: float = 60.0
    unread_bytes_max: int = 64 << 10
    connect_timeout_s: float = 1.0
    dead_after_s: float = 2.0
    back_off_first_s: float = 0.02
    back_off_max_s: float = 0.5
    back_off_rejected_s: float = 2.0

    @property
    def sign_of_life_us(self) -> float:
        """How often a connection in use shows that it is: well within the time after which it is given up."""
        return self.dead_after_s * 1e6 / 4

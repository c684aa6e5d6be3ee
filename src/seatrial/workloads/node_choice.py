"""Chooses which node a client speaks to: one that it keeps while it answers, another after an error, or the pinned one.

Rule: choices come from the client's own stream.  Knows nothing of protocols.
"""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.env import Rng
from seatrial.workloads.base import Endpoint


class NodeChoice:
    """A client's current node among those it may use.  Raises ValueError when there is none."""

    def __init__(self, endpoints: Sequence[Endpoint], rng: Rng) -> None:
        if not endpoints:
            raise ValueError("no node offers the protocol that this client speaks")
        self._endpoints = {e.node: e for e in endpoints}
        self._rng = rng
        self._current = rng.choice(list(endpoints)).node

    def pick(self, pinned: int | None) -> Endpoint:
        """The pinned node's endpoint, or that of the node now preferred."""
        return self._endpoints[self._current if pinned is None else pinned]

    def move_on(self) -> None:
        """Prefer another node from now on, where there is one."""
        others = [node for node in self._endpoints if node != self._current]
        if others:
            self._current = self._rng.choice(others)

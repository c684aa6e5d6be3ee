"""One shard of the consumer groups on this node: its replica, and its coordinator while the replica leads.

Rule: a coordinator begins only when this node has applied an entry of its own term, so that it knows everything that
was ever acknowledged, and ends with that term.
Knows nothing of groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seatrial.kafka.errors import ErrorCode
from seatrial.machines.metadata import Partition as Placement
from seatrial.machines.metadata import Topic
from seatrial.marks import reached
from seatrial.raft.ids import Term
from seatrial.server.hosted import HostedReplica
from seatrial.server.replica import Replica

if TYPE_CHECKING:
    from seatrial.server.groups.coordinator import Coordinator


class HostedShard(HostedReplica):
    """A partition of the groups' topic that has a replica here."""

    def __init__(
        self,
        topic: Topic,
        placement: Placement,
        replica: Replica,
        make_coordinator: Callable[[], Coordinator],
        *,
        alive: Callable[[], Sequence[int]],
    ) -> None:
        super().__init__(topic, placement, replica, alive=alive)
        self._make_coordinator = make_coordinator
        self._coordinator: Coordinator | None = None
        self._term = Term(0)  # in which the coordinator began
        self._is_closed = False
        self._look()

    def close(self) -> None:
        """The replica is given up, or the node stops."""
        self._is_closed = True
        self._end()

    @property
    def coordinator(self) -> Coordinator | ErrorCode:
        """Or what to tell a client that asks for it."""
        if self._coordinator is not None:
            return self._coordinator
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if self.is_leader else ErrorCode.NOT_COORDINATOR

    def _look(self, _: asyncio.Future[None] | None = None) -> None:
        """Begin or end a coordinator, now and whenever something has changed."""
        if self._is_closed:
            return
        if self.replica.closed:
            self._end()
            return
        if self._coordinator is not None and (not self.is_established or self.replica.node.term != self._term):
            self._end()
        if self._coordinator is None and self.is_established:
            self._term = self.replica.node.term
            self._coordinator = self._make_coordinator()
        self.replica.changed().add_done_callback(self._look)

    def _end(self) -> None:
        if self._coordinator is not None:
            reached("a coordinator of consumer groups ended with its lead")
            self._coordinator.close()
            self._coordinator = None

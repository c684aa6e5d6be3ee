"""What consumer groups do in a run: the clients of the workload `groups`, on a host of their own.

Two append, the others consume, commit, leave and join one group, and the last one asks for what is committed; in the
end what the group has left is read.  Without members there is nothing of it, not even the host.
Rule: as in `workloads.runner`.  Knows nothing of faults and of what is made of the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from seatrial.env import Rng
from seatrial.sim.case import Load
from seatrial.workloads.base import Endpoint, SetupFailed
from seatrial.workloads.kafka_groups import GroupsWorkload
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload

APPENDERS: Final = 2
SETUP_S: Final = 5.0


class GroupLoad:
    """The group's clients of one run.  stop: no operation begins after it is set.  ready: their topic is there."""

    def __init__(
        self, load: Load, endpoints: Sequence[Endpoint], record: Recorder, rng: Rng, *, replication: int
    ) -> None:
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.last_error = ""
        self._workload = GroupsWorkload(
            partitions=load.partitions,
            replication=replication,
            appenders=APPENDERS,
            members=load.members,
            rate=load.group_rate,
        )
        self._endpoints = list(endpoints)
        self._record = record
        self._rng = rng

    async def run(self) -> None:
        """Create the topic, as often as it takes; then load until `stop`, and let what is in flight end."""
        while not self.ready.is_set() and not self.stop.is_set():
            try:
                await self._workload.setup(self._endpoints, timeout=SETUP_S)
                self.ready.set()
            except SetupFailed as error:
                self.last_error = str(error)
        if self.ready.is_set():
            rng = self._rng.child("load")
            await run_workload(self._workload, self._endpoints, record=self._record, rng=rng, stop=self.stop)

    async def read_rest(self, timeout_s: float) -> list[str]:
        """Read what the group has left; what could not be done in time."""
        rng = self._rng.child("final")
        outcome = await run_final(self._workload, self._endpoints, record=self._record, rng=rng, timeout=timeout_s)
        for _, error in outcome.missing:
            self.last_error = error
        return [f"what the group has left of {request.key}" for request, _ in outcome.missing]

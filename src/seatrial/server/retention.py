"""Deletes records that are too old or too many, and then the entries that held them.

Rule: a partition's leader decides, by its own clock, what is due; that it is gone is an entry of the log, so that every
replica's log starts at the same offset.  Each replica then frees its own disk, a good piece at a time: a snapshot has
to be saved first, and segments go as a whole.
Knows nothing of what is sent to replicas that are behind (`kept_log`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from seatrial.kafka.backend import BackendError, BrokerSettings
from seatrial.kafka.topic_configs import Inherited, Retention, retention
from seatrial.machines.metadata import MetadataMachine
from seatrial.machines.partition_log import TrimOutcome
from seatrial.marks import reached
from seatrial.raft.ids import Index
from seatrial.server.errors import ProposalLost
from seatrial.server.logs import Logger
from seatrial.server.partition import HostedPartition

LOOK_S: Final = 1.0
FREE_BYTES: Final = 4 << 20  # of records that are deleted, before the disk is freed of them ...
FREE_AFTER_S: Final = 60.0  # ... or after so long


class Retaining:
    """One node's part in it."""

    def __init__(
        self,
        partitions: Callable[[], Iterable[HostedPartition]],
        metadata: MetadataMachine,
        settings: BrokerSettings,
        node_id: int,
        loop: asyncio.AbstractEventLoop,
        logger: Logger,
        *,
        wall_ms: Callable[[], int],
        free_bytes: int = FREE_BYTES,
    ) -> None:
        self._partitions = partitions
        self._metadata = metadata
        self._settings = settings
        self._node_id = node_id
        self._loop = loop
        self._logger = logger
        self._wall_ms = wall_ms
        self.free_bytes = free_bytes

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Delete what is due on partitions that this node leads, and free its disk of what is deleted."""
        defaults = Inherited(self._settings, self._node_id, self._metadata.broker_configs)
        for hosted in self._partitions():
            if hosted.is_established:
                topic = self._metadata.topics.get(hosted.topic)
                configs = topic.configs if topic is not None else {}
                if "delete" in configs.get("cleanup.policy", "delete"):
                    self._delete_due(hosted, retention(configs, defaults))
            if hosted.log_start_offset > 0:
                self._free(hosted)

    def _delete_due(self, hosted: HostedPartition, allowed: Retention) -> None:
        if allowed.ms < 0 and allowed.bytes < 0:
            return
        due = hosted.machine.due(
            before_ms=None if allowed.ms < 0 else self._wall_ms() - allowed.ms,
            bytes_max=None if allowed.bytes < 0 else allowed.bytes,
        )
        if due <= hosted.log_start_offset or hosted.is_trimming:
            return
        reached("records were deleted because they were too old or too many")
        try:
            hosted.trim(due).add_done_callback(lambda ended: self._told(hosted.replica.name, ended))
        except BackendError as error:
            self._logger.debug("retention_retry", group=hosted.replica.name, reason=str(error))

    def _told(self, group: str, ended: asyncio.Future[TrimOutcome]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is None and not ended.cancelled():
            self._logger.info("records_deleted", group=group, log_start_offset=ended.result().log_start_offset)
        elif isinstance(error, (BackendError, ProposalLost)):
            self._logger.debug("retention_retry", group=group, reason=str(error))

    def _free(self, hosted: HostedPartition) -> None:
        machine, replica, now_s = hosted.machine, hosted.replica, self._loop.time()
        deleted, first_needed = machine.deleted_bytes, Index(machine.base().entry_index + 1)
        if first_needed > replica.storage.first_index:
            if deleted - hosted.freed_bytes < self.free_bytes and now_s - hosted.freed_s < FREE_AFTER_S:
                return
            if not replica.forget_before(first_needed, decided_at=machine.trimmed_at):
                return
        hosted.freed_bytes, hosted.freed_s = deleted, now_s

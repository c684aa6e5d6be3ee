"""Fetch: read committed batches, and wait for more where there are too few (long poll).

Rule: one request has one deadline however many partitions it names.  Nothing beyond the high watermark of the replica
asked is ever shown, on a leader or on a follower (KIP-392).  The first partition that has data gives at least one whole
batch, also over the client's limits (KIP-74).
Knows nothing of how batches are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from seatrial.kafka.backend import Backend, BrokerSettings, Buffer, LogUnreadable, PartitionBackend
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.fetch_codec import (
    TOPIC_IDS_FROM,
    FetchRequest,
    PartitionData,
    PartitionFetch,
    TopicFetch,
    decode_request,
    encode_response,
)
from seatrial.kafka.leaders import endpoints_of, epoch_error, leader_hint, local_partition
from seatrial.kafka.produce_codec import LeaderHint

_MAX_WAIT_MS: Final = 300_000
_PREFERRED_REPLICA_FROM: Final = 11

Reply = Callable[[Sequence[Buffer]], list[Buffer]]


def serve(
    backend: Backend, settings: BrokerSettings, data: memoryview, position: int, version: int, reply: Reply
) -> list[Buffer] | asyncio.Future[list[Buffer]]:
    """The answer, or its future where the request has to wait.  Raises MalformedMessage."""
    request = decode_request(data, position, version)
    if request.session_id != 0:
        # No sessions are ever given out (session id 0 in every answer), so this one is another broker's.
        return reply(encode_response([], version, error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND))
    attempt = _Attempt(backend, settings, request, version)
    attempt.read(final=request.max_wait_ms <= 0)
    if attempt.is_complete or not attempt.replicas:
        return reply(attempt.response())
    return _PendingFetch(attempt, reply).future


class _Attempt:
    """One pass over the partitions of a request; read again as often as it takes."""

    __slots__ = ("_backend", "_settings", "_version", "answers", "is_complete", "replicas", "request")

    def __init__(self, backend: Backend, settings: BrokerSettings, request: FetchRequest, version: int) -> None:
        self._backend = backend
        self._settings = settings
        self._version = version
        self.request = request
        self.answers: list[tuple[TopicFetch, list[PartitionData]]] = []
        self.replicas: list[PartitionBackend] = []  # whose changes are worth another attempt
        self.is_complete = False

    def read(self, *, final: bool) -> None:
        """Fill `answers`.  `final`: the deadline has passed, so what is not there by now is told."""
        request = self.request
        budget = max(min(request.max_bytes, self._settings.fetch_max_bytes), 0)
        total = 0
        self.answers, self.replicas, self.is_complete = [], [], final
        for topic in request.topics:
            answers: list[PartitionData] = []
            self.answers.append((topic, answers))
            for wanted in topic.partitions:
                answer = self._read_partition(topic, wanted, budget - total, total == 0, final)
                answers.append(answer)
                total += answer.size
                if answer.error or answer.preferred_read_replica >= 0:
                    self.is_complete = True
        if total >= request.min_bytes:
            self.is_complete = True

    def _read_partition(
        self, topic: TopicFetch, wanted: PartitionFetch, budget: int, is_first: bool, final: bool
    ) -> PartitionData:
        found = self._find(topic, wanted)
        if isinstance(found, PartitionData):
            return found
        replica = found
        error = self._refusal(replica, wanted, final)
        if error:
            return PartitionData(
                wanted.partition,
                error,
                replica.high_watermark,
                replica.log_start_offset,
                leader=self._hint(replica, error),
            )
        self.replicas.append(replica)
        preferred = self._preferred(replica)
        records: Sequence[Buffer] = ()
        size = 0
        if preferred < 0 and (is_first or budget > 0) and wanted.offset < replica.high_watermark:
            limit = max(min(wanted.max_bytes, budget), 0)
            try:
                records, size = replica.read(wanted.offset, limit)
            except LogUnreadable:
                return PartitionData(
                    wanted.partition,
                    ErrorCode.KAFKA_STORAGE_ERROR,
                    replica.high_watermark,
                    replica.log_start_offset,
                )
            if size > limit and not is_first:
                records, size = (), 0  # a whole batch over the limit is for the first partition with data alone
        return PartitionData(
            wanted.partition,
            ErrorCode.NONE,
            replica.high_watermark,
            replica.log_start_offset,
            preferred,
            records,
            size,
        )

    def _find(self, topic: TopicFetch, wanted: PartitionFetch) -> PartitionBackend | PartitionData:
        name = topic.name
        if self._version >= TOPIC_IDS_FROM:
            known = self._backend.metadata.topic_by_id(topic.topic_id)
            if known is None:
                return PartitionData(wanted.partition, ErrorCode.UNKNOWN_TOPIC_ID)
            name = known.name
        found = local_partition(self._backend, name, wanted.partition)
        if isinstance(found, ErrorCode):
            hint = (
                leader_hint(self._backend, name, wanted.partition)
                if found == ErrorCode.NOT_LEADER_OR_FOLLOWER
                else None
            )
            return PartitionData(wanted.partition, found, leader=hint)
        return found

    def _refusal(self, replica: PartitionBackend, wanted: PartitionFetch, final: bool) -> ErrorCode:
        # A follower that has lost its leader does not know how far behind it is: let the client look for another.
        if not replica.is_leader and (not self._settings.fetch_from_followers or replica.leader_id < 0):
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        error = epoch_error(replica, wanted.leader_epoch)
        if error:
            return error
        if wanted.offset < replica.log_start_offset:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        if wanted.offset > replica.high_watermark and final and replica.is_established and not replica.is_catching_up:
            # Elsewhere the offset may well exist: a follower, or a new leader, may show less than was shown before.
            return ErrorCode.OFFSET_OUT_OF_RANGE
        return ErrorCode.NONE

    def _preferred(self, replica: PartitionBackend) -> int:
        """Where the client should read instead; -1 where it should stay."""
        if self._version < _PREFERRED_REPLICA_FROM or not self._settings.fetch_from_followers:
            return -1
        if replica.is_leader and not self.request.rack:
            return -1
        preferred = replica.preferred_replica(self.request.rack)
        return -1 if preferred == self._backend.node_id else preferred

    def _hint(self, replica: PartitionBackend, error: ErrorCode) -> LeaderHint | None:
        if error in (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH) and replica.leader_id >= 0:
            return LeaderHint(replica.leader_id, replica.leader_epoch)
        return None

    def response(self) -> list[Buffer]:
        leaders = {answer.leader.leader_id for _, answers in self.answers for answer in answers if answer.leader}
        return encode_response(
            self.answers,
            self._version,
            read_committed=self.request.read_committed,
            endpoints=endpoints_of(self._backend, leaders),
        )


class _PendingFetch:
    """A request that waits: read again at each change of one of its partitions, answered at the deadline at latest."""

    __slots__ = ("_attempt", "_reply", "_timer", "_watched", "future")

    def __init__(self, attempt: _Attempt, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        self._attempt = attempt
        self._reply = reply
        self.future: asyncio.Future[list[Buffer]] = loop.create_future()
        self.future.add_done_callback(self._stop)  # also when the connection is gone and its owner cancels it
        delay = min(attempt.request.max_wait_ms, _MAX_WAIT_MS) / 1000
        self._timer = loop.call_later(delay, self._try, True)
        self._watched: list[asyncio.Future[None]] = []
        self._watch()

    def _watch(self) -> None:
        self._watched = [replica.changed() for replica in self._attempt.replicas]
        for change in self._watched:
            change.add_done_callback(self._changed)

    def _unwatch(self) -> None:
        for change in self._watched:
            change.remove_done_callback(self._changed)
        self._watched = []

    def _changed(self, _: asyncio.Future[None]) -> None:
        self._try(False)

    def _try(self, final: bool) -> None:
        if self.future.done():
            return
        self._unwatch()
        self._attempt.read(final=final)
        if self._attempt.is_complete:
            self.future.set_result(self._reply(self._attempt.response()))
        else:
            self._watch()

    def _stop(self, _: asyncio.Future[list[Buffer]]) -> None:
        self._timer.cancel()
        self._unwatch()

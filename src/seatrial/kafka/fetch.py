"""Fetch: read committed batches, and wait for more where there are too few (long poll).

Rule: one request has one deadline however many partitions it names.  Nothing beyond the high watermark of the replica
asked is ever shown, on a leader or on a follower (KIP-392).  What is shown is as fresh as the client demands, and on a
follower as the broker does; a replica of which nobody vouches for that in time sends the client away.  The first
partition that has data gives at least one whole batch, also over the client's limits (KIP-74).
Knows nothing of how batches are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from seatrial.kafka.backend import Backend, BrokerSettings, Buffer, LogUnreadable, PartitionBackend
from seatrial.kafka.context import ClientContext
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
from seatrial.kafka.preferred_replica import NEVER_S, Limits, ReplicaView, preferred_replica
from seatrial.kafka.produce_codec import LeaderHint
from seatrial.kafka.read_demands import BadDemand, demanded_age_us
from seatrial.marks import reached

_MAX_WAIT_MS: Final = 300_000
_PREFERRED_REPLICA_FROM: Final = 11

Reply = Callable[[Sequence[Buffer]], list[Buffer]]


def serve(
    backend: Backend,
    settings: BrokerSettings,
    client: ClientContext,
    data: memoryview,
    position: int,
    version: int,
    reply: Reply,
) -> list[Buffer] | asyncio.Future[list[Buffer]]:
    """The answer, or its future where the request has to wait.  Raises MalformedMessage."""
    request = decode_request(data, position, version)
    if request.session_id != 0:
        # No sessions are ever given out (session id 0 in every answer), so this one is another broker's.
        return reply(encode_response([], version, error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND))
    attempt = _Attempt(backend, settings, client, request, version)
    attempt.read(final=request.max_wait_ms <= 0)
    if attempt.is_complete or not attempt.replicas:
        return reply(attempt.response())
    return _PendingFetch(attempt, reply).future


class _Attempt:
    """One pass over the partitions of a request; read again as often as it takes.

    is_patient: a leader that is not there may yet be elected, and one that has not vouched yet may do so.
    needs_patience: the last pass met such a partition.
    """

    __slots__ = (
        "_arrived_us",
        "_backend",
        "_client",
        "_demanded_us",
        "_is_clear",
        "_led",
        "_preferred",
        "_settings",
        "_version",
        "_waits",
        "answers",
        "is_complete",
        "is_patient",
        "needs_patience",
        "replicas",
        "request",
    )

    def __init__(
        self,
        backend: Backend,
        settings: BrokerSettings,
        client: ClientContext,
        request: FetchRequest,
        version: int,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._client = client
        self._version = version
        self._arrived_us = backend.now_us()
        try:
            self._demanded_us = demanded_age_us(client.client_id)
            self._is_clear = True
        except BadDemand:
            self._demanded_us, self._is_clear = None, False
        self._led: set[PartitionBackend] = set()  # that this node led when the request came
        self._preferred: dict[PartitionBackend, int] = {}  # decided once a request
        self.request = request
        self.answers: list[tuple[TopicFetch, list[PartitionData]]] = []
        self.replicas: list[PartitionBackend] = []  # whose changes are worth another attempt
        self.is_complete = False
        self.is_patient = True
        self.needs_patience = False
        self._waits = False

    @property
    def patience_s(self) -> float:
        return self._settings.leader_patience_ms / 1000

    def read(self, *, final: bool) -> None:
        """Fill `answers`.  `final`: the deadline has passed, so what is not there by now is told."""
        request = self.request
        budget = max(min(request.max_bytes, self._settings.fetch_max_bytes), 0)
        total = 0
        self.answers, self.replicas, self.is_complete = [], [], final
        self.needs_patience = self._waits = False
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
        if self._waits:
            self.is_complete = False

    def _read_partition(
        self, topic: TopicFetch, wanted: PartitionFetch, budget: int, is_first: bool, final: bool
    ) -> PartitionData:
        found = self._find(topic, wanted)
        if isinstance(found, PartitionData):
            return found
        replica = found
        error = self._refusal(replica, wanted, final)
        if error:
            return self._without_records(wanted, replica, error, leader=self._hint(replica, error))
        self.replicas.append(replica)
        preferred = self._preferred_replica(replica, wanted.offset)
        if preferred >= 0:
            return self._without_records(wanted, replica, preferred=preferred)
        if not self._is_fresh(replica):
            return self._not_vouched(replica, wanted, final)
        records: Sequence[Buffer] = ()
        size = 0
        if (is_first or budget > 0) and wanted.offset < replica.high_watermark:
            limit = max(min(wanted.max_bytes, budget), 0)
            try:
                records, size = replica.read(wanted.offset, limit)
            except LogUnreadable:
                return self._without_records(wanted, replica, ErrorCode.KAFKA_STORAGE_ERROR)
            if size > limit and not is_first:
                records, size = (), 0  # a whole batch over the limit is for the first partition with data alone
        return PartitionData(
            wanted.partition,
            ErrorCode.NONE,
            replica.high_watermark,
            replica.log_start_offset,
            -1,
            records,
            size,
        )

    def _without_records(
        self,
        wanted: PartitionFetch,
        replica: PartitionBackend,
        error: ErrorCode = ErrorCode.NONE,
        *,
        preferred: int = -1,
        leader: LeaderHint | None = None,
    ) -> PartitionData:
        return PartitionData(
            wanted.partition, error, replica.high_watermark, replica.log_start_offset, preferred, leader=leader
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
        if not self._is_clear:
            return ErrorCode.INVALID_REQUEST
        if replica.is_leader:
            self._led.add(replica)
        elif not self._settings.fetch_from_followers or replica in self._led:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER
        error = epoch_error(replica, wanted.leader_epoch)
        if error:
            return error
        if wanted.offset < replica.log_start_offset:
            return ErrorCode.OFFSET_OUT_OF_RANGE
        if replica.leader_id < 0 and wanted.offset >= replica.high_watermark:
            # A follower that has lost its leader will hear of nothing new: let the client look for another, unless
            # somebody is elected in a moment.
            self.needs_patience = True
            return ErrorCode.NOT_LEADER_OR_FOLLOWER if final or not self.is_patient else ErrorCode.NONE
        if wanted.offset > replica.high_watermark and final and replica.is_established and not replica.is_catching_up:
            # Elsewhere the offset may well exist: a follower, or a new leader, may show less than was shown before.
            return ErrorCode.OFFSET_OUT_OF_RANGE
        return ErrorCode.NONE

    # ---- how fresh it is -------------------------------------------------------------------------------------------

    def _is_fresh(self, replica: PartitionBackend) -> bool:
        """Whether it shows all that it has to; if not, it is on its way to."""
        bound_us = self._demanded_us
        if bound_us is None:
            bound_us = 0 if replica.is_leader else self._settings.follower_staleness_max_ms * 1000
            if bound_us == 0:
                return True
        since_us, vouched_us = self._arrived_us - bound_us, replica.vouched_us
        until_us = self._arrived_us + 1000 * max(self._settings.leader_patience_ms, self.request.max_wait_ms)
        if vouched_us < since_us:
            replica.want_vouched(since_us, until_us)
            return False
        if vouched_us < since_us + bound_us // 2:
            replica.want_vouched(self._arrived_us, until_us)  # so that the next requests need not wait
        return True

    def _not_vouched(self, replica: PartitionBackend, wanted: PartitionFetch, final: bool) -> PartitionData:
        """What is told of a partition that does not show enough, or not yet."""
        self.needs_patience = True
        if self.is_patient or not final:
            self._waits = True
            return self._without_records(wanted, replica)
        if replica.is_leader:
            reached("a leader that nobody vouched for answered no fetch")
            return self._without_records(wanted, replica, ErrorCode.OFFSET_NOT_AVAILABLE)
        reached("a follower that nobody vouched for sent a consumer away")
        me = self._backend.node_id
        own = ReplicaView(node=me, lag_s=NEVER_S)
        better = preferred_replica(
            asked=me, leader=replica.leader_id, replicas=[own], offset=wanted.offset, limits=self._limits
        )
        if better >= 0 and self._version >= _PREFERRED_REPLICA_FROM:
            return self._without_records(wanted, replica, preferred=better)
        error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        return self._without_records(wanted, replica, error, leader=self._hint(replica, error))

    # ---- where to read ---------------------------------------------------------------------------------------------

    @property
    def _limits(self) -> Limits:
        most_ms = self._settings.follower_staleness_max_ms
        return Limits(lag_s=most_ms / 1000) if most_ms else Limits()

    def _preferred_replica(self, replica: PartitionBackend, offset: int) -> int:
        """Where the client should read instead of at this leader; -1 where it should stay."""
        settings, rack = self._settings, self.request.rack
        if not replica.is_leader or not settings.fetch_from_followers or self._version < _PREFERRED_REPLICA_FROM:
            return -1
        if not rack and not settings.spread_readers:
            return -1
        decided = self._preferred.get(replica)
        if decided is None:
            client, me = self._client.peer, self._backend.node_id
            views = replica.replica_views(client)
            best = preferred_replica(
                asked=me,
                leader=me,
                replicas=views,
                offset=offset,
                rack=rack,
                spread=settings.spread_readers,
                limits=self._limits,
            )
            replica.reader_told(client, best)
            decided = self._preferred[replica] = -1 if best == me else best
        return decided

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
    """A request that waits: read again at each change of one of its partitions, answered at the deadline at latest.

    Only a partition that needs its leader's word, or a leader, can make that later, by what is left of our patience.
    """

    __slots__ = ("_attempt", "_is_late", "_patience", "_reply", "_timer", "_watched", "future")

    def __init__(self, attempt: _Attempt, reply: Reply) -> None:
        loop = asyncio.get_running_loop()
        self._attempt = attempt
        self._reply = reply
        self._is_late = False
        self.future: asyncio.Future[list[Buffer]] = loop.create_future()
        self.future.add_done_callback(self._stop)  # also when the connection is gone and its owner cancels it
        delay = min(attempt.request.max_wait_ms, _MAX_WAIT_MS) / 1000
        self._timer = loop.call_later(max(delay, 0), self._late)
        self._patience: asyncio.TimerHandle | None = None
        self._watched: list[asyncio.Future[None]] = []
        self._watch()

    def _watch(self) -> None:
        attempt = self._attempt
        if attempt.needs_patience and self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(attempt.patience_s, self._impatient)
        self._watched = [replica.changed() for replica in attempt.replicas]
        for change in self._watched:
            change.add_done_callback(self._changed)

    def _unwatch(self) -> None:
        for change in self._watched:
            change.remove_done_callback(self._changed)
        self._watched = []

    def _changed(self, _: asyncio.Future[None]) -> None:
        self._try()

    def _late(self) -> None:
        self._is_late = True
        self._try()

    def _impatient(self) -> None:
        self._attempt.is_patient = False
        self._try()

    def _try(self) -> None:
        if self.future.done():
            return
        self._unwatch()
        self._attempt.read(final=self._is_late)
        if self._attempt.is_complete:
            self.future.set_result(self._reply(self._attempt.response()))
        else:
            self._watch()

    def _stop(self, _: asyncio.Future[list[Buffer]]) -> None:
        self._timer.cancel()
        if self._patience is not None:
            self._patience.cancel()
        self._unwatch()

"""Produce: append record batches, and answer when they are committed.

Rule: every batch is handed to its partition before `serve` returns, in the order of the request.  acks 1 and all both
wait for the commit (there is no weaker promise to give in Raft); acks 0 is never answered.  An error says whether the
records may be in the log: only REQUEST_TIMED_OUT leaves that open.
Knows nothing of replication.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from seatrial.kafka.backend import (
    Backend,
    BackendError,
    BrokerSettings,
    Buffer,
    DiskNearlyFull,
    NotLeader,
    PartitionBackend,
    ProposalDropped,
)
from seatrial.kafka.context import CloseConnection
from seatrial.kafka.errors import APPEND_ERRORS, ErrorCode
from seatrial.kafka.leaders import endpoints_of, leader_hint, local_partition
from seatrial.kafka.produce_codec import (
    LeaderHint,
    PartitionResult,
    TopicResult,
    decode_request,
    encode_response,
)
from seatrial.kafka.records import InvalidRecords, check_batch
from seatrial.kafka.topic_configs import max_message_bytes
from seatrial.machines.partition_log import AppendOutcome, encode_append

NO_TRANSACTIONS: Final = "transactions are not supported by this broker"
_MAX_TIMEOUT_MS: Final = 300_000

Append = asyncio.Future[AppendOutcome]
Reply = Callable[[Sequence[Buffer]], list[Buffer]]


def serve(
    backend: Backend,
    settings: BrokerSettings,
    data: memoryview,
    position: int,
    version: int,
    reply: Reply,
) -> list[Buffer] | asyncio.Future[list[Buffer]] | None:
    """Start what the request asks for; the answer, its future, or None for acks 0.

    Raises MalformedMessage; CloseConnection where acks 0 leaves no other way to tell of an error (as Kafka does).
    """
    request = decode_request(data, position, version)
    refusal = _refuse_request(request.transactional_id, request.acks)
    pending = _PendingProduce(backend, version, reply)
    for topic in request.topics:
        results: list[PartitionResult] = []
        pending.topics.append(TopicResult(topic.name, results))
        for index, records in topic.partitions:
            if refusal is not None:
                results.append(PartitionResult(index, refusal[0], message=refusal[1]))
                continue
            started = _start(backend, settings, topic.name, index, records)
            if isinstance(started, PartitionResult):
                results.append(started)
            else:
                partition, future = started
                results.append(PartitionResult(index, ErrorCode.REQUEST_TIMED_OUT))
                pending.wait_for(future, partition, results, len(results) - 1)
    if request.acks == 0:
        pending.forget()
        for topic_result in pending.topics:
            for result in topic_result.partitions:
                if result.error not in (ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT):
                    where = f"{topic_result.name}/{result.partition}"
                    raise CloseConnection(f"a produce with acks=0 to {where} failed: {result.error.name}")
        return None
    return pending.answer(request.timeout_ms)


def _refuse_request(transactional_id: str | None, acks: int) -> tuple[ErrorCode, str] | None:
    if acks not in (-1, 0, 1):
        return ErrorCode.INVALID_REQUIRED_ACKS, f"acks must be -1 (all), 0 or 1, not {acks}"
    if transactional_id is not None:
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, NO_TRANSACTIONS
    return None


def _start(
    backend: Backend, settings: BrokerSettings, topic: str, index: int, records: memoryview | None
) -> PartitionResult | tuple[PartitionBackend, Append]:
    """Propose one batch, or say why not."""
    found = local_partition(backend, topic, index)
    if isinstance(found, ErrorCode):
        hint = leader_hint(backend, topic, index) if found == ErrorCode.NOT_LEADER_OR_FOLLOWER else None
        return PartitionResult(index, found, leader=hint)
    partition = found
    try:
        limit = max_message_bytes(backend.metadata.topics.get(topic), backend, settings)
        info = check_batch(records if records is not None else b"", limit)
    except InvalidRecords as error:
        return PartitionResult(index, error.error, message=error.message)
    assert records is not None  # an empty one was refused
    try:
        command = encode_append(
            records,
            record_count=info.record_count,
            producer_id=info.producer_id,
            producer_epoch=info.producer_epoch,
            base_sequence=info.base_sequence,
            max_timestamp=info.max_timestamp,
        )
        return partition, partition.append(command)
    except BackendError as error:
        return _failed(index, partition, error)


def _failed(index: int, partition: PartitionBackend, error: BackendError) -> PartitionResult:
    """What a refused or lost append is in Kafka's words."""
    if isinstance(error, NotLeader):
        leader_id = error.leader_id if error.leader_id >= 0 else partition.leader_id
        hint = LeaderHint(leader_id, partition.leader_epoch) if leader_id >= 0 else None
        return PartitionResult(index, ErrorCode.NOT_LEADER_OR_FOLLOWER, message=str(error), leader=hint)
    if not error.definite:
        return PartitionResult(index, ErrorCode.REQUEST_TIMED_OUT, message=str(error))
    if isinstance(error, DiskNearlyFull):
        return PartitionResult(index, ErrorCode.KAFKA_STORAGE_ERROR, message=str(error))
    if isinstance(error, ProposalDropped):
        # Kafka's nearest word that is retriable and says "not written".
        return PartitionResult(index, ErrorCode.NOT_ENOUGH_REPLICAS, message=str(error))
    return PartitionResult(index, ErrorCode.NOT_LEADER_OR_FOLLOWER, message=str(error))


class _PendingProduce:
    """One request's results, filled in as the appends end."""

    __slots__ = ("_backend", "_future", "_outstanding", "_reply", "_timer", "_version", "topics")

    def __init__(self, backend: Backend, version: int, reply: Reply) -> None:
        self._backend = backend
        self._version = version
        self._reply = reply
        self._future: asyncio.Future[list[Buffer]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._outstanding = 0
        self.topics: list[TopicResult] = []

    def wait_for(self, future: Append, partition: PartitionBackend, results: list[PartitionResult], slot: int) -> None:
        """Fill `results[slot]` when the append ends; until then it holds what a timeout would answer."""
        self._outstanding += 1

        def done(ended: Append) -> None:
            results[slot] = _result(results[slot].partition, partition, ended)
            self._outstanding -= 1
            if self._outstanding == 0:
                self._finish()

        future.add_done_callback(done)

    def answer(self, timeout_ms: int) -> list[Buffer] | asyncio.Future[list[Buffer]]:
        if self._outstanding == 0:
            return self._response()
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        delay = min(max(timeout_ms, 0), _MAX_TIMEOUT_MS) / 1000
        self._timer = loop.call_later(delay, self._finish)
        return self._future

    def forget(self) -> None:
        """Nobody waits for an answer; the appends' outcomes are looked at, and dropped."""
        self._future = None

    def _finish(self) -> None:
        """All appends ended, or the time is up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._future is not None and not self._future.done():
            self._future.set_result(self._response())

    def _response(self) -> list[Buffer]:
        results = (result for topic in self.topics for result in topic.partitions)
        leaders = {result.leader.leader_id for result in results if result.leader}
        endpoints = endpoints_of(self._backend, leaders)
        return self._reply((encode_response(self.topics, endpoints, self._version),))


def _result(index: int, partition: PartitionBackend, ended: Append) -> PartitionResult:
    """Of an append that has ended in any way."""
    if ended.cancelled():
        return PartitionResult(index, ErrorCode.REQUEST_TIMED_OUT, message="the broker is stopping")
    error = ended.exception()
    if isinstance(error, BackendError):
        return _failed(index, partition, error)
    if error is not None:
        return PartitionResult(index, ErrorCode.UNKNOWN_SERVER_ERROR, message=f"{type(error).__name__}: {error}")
    outcome = ended.result()
    code = APPEND_ERRORS[outcome.error]
    return PartitionResult(index, code, outcome.base_offset, partition.log_start_offset)

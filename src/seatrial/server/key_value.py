"""The key-value store as a service: writes that any node takes, reads at the consistency that was asked for.

Rule: a write is sent at most once unless it carries a session, which makes sending it again harmless; a linearizable
read waits until this node has applied everything that was committed when the read began.  Every call has a deadline.
Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from seatrial.machines.kv import KeyValueMachine, KvError, KvResult, encode_delete, encode_put
from seatrial.machines.sessions import Session as MachineSession
from seatrial.marks import reached
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import Entry
from seatrial.server.errors import DeadlinePassed, NoLeader, OutcomeUnknown, ProposalLost, Refused
from seatrial.server.read_barriers import RETRY_S, until_current
from seatrial.server.replica import Replica

CONSISTENCIES: Final = ("linearizable", "lease", "stale")
SESSION_RESEND_S: Final = 0.5  # a write with a session that was not answered by then is sent again

Precondition: TypeAlias = int | None  # the version the key must have; 0: must not exist; None: whatever it is
Session: TypeAlias = tuple[bytes, int] | None  # client id, sequence


class KeyValueService:
    """Reads and writes of the key-value group, through this node's replica."""

    def __init__(
        self,
        replica: Replica,
        machine: KeyValueMachine,
        *,
        new_request_id: Callable[[], bytes],
        refusal: Callable[[int], str | None] = lambda size: None,
        unsafe_stale_reads: bool = False,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._new_request_id = new_request_id
        self._refusal = refusal  # why so many bytes cannot be taken
        self._unsafe_stale_reads = unsafe_stale_reads
        self._loop = replica.host.loop

    async def get(self, key: bytes, consistency: str, timeout_s: float) -> tuple[bytes, int] | None:
        """(value, version), or None where the key does not exist.

        "lease" may be answered from the leader's lease and is otherwise as "linearizable"; "stale" is what this node
        has applied, however old.

        Raises:
            DeadlinePassed: no leader could vouch for the read in time.
        """
        if consistency == "stale" or self._unsafe_stale_reads:
            return self._machine.get(key)
        self._refuse_if_closed()
        try:
            await until_current(self._replica, timeout_s)
        except DeadlinePassed as error:
            if (refusal := self._refusal(0)) is None:
                raise
            raise DeadlinePassed(f"{error}; {refusal}", definite=error.definite) from error
        return self._machine.get(key)

    async def put(
        self, key: bytes, value: bytes, expected: Precondition, session: Session, timeout_s: float
    ) -> KvResult:
        """Set the key; a result that is not `applied` met another version (or an expired session).

        Raises:
            NoLeader, ProposalLost: surely not applied.
            Refused: nor this; there is no room for it on the disks of those who would have to store it.
            OutcomeUnknown, DeadlinePassed: it may have been.
        """
        if (refusal := self._refusal(len(key) + len(value))) is not None:
            raise Refused(refusal)
        command = encode_put(
            key,
            value,
            request_id=(name := self._new_request_id()),
            expected_version=expected,
            session=MachineSession(*session) if session else None,
        )
        return await self._write(command, name, session is not None, timeout_s)

    async def delete(self, key: bytes, expected: Precondition, session: Session, timeout_s: float) -> KvResult:
        """Remove the key; errors as `put`."""
        command = encode_delete(
            key,
            request_id=(name := self._new_request_id()),
            expected_version=expected,
            session=MachineSession(*session) if session else None,
        )
        return await self._write(command, name, session is not None, timeout_s)

    async def _write(self, command: bytes, request_id: bytes, repeatable: bool, timeout_s: float) -> KvResult:
        self._refuse_if_closed()
        deadline = self._loop.time() + timeout_s
        sent = False
        last: Exception | None = None
        while (left := deadline - self._loop.time()) > 0:
            try:
                future = self._replica.submit(command, request_id)
            except (NotLeader, ProposalDropped) as error:
                last = error
                # That a leader is known is a change; when one has room again, or has handed over, is not told.
                await self._wait_for_change(left if isinstance(error, NotLeader) else min(RETRY_S, left))
                continue
            sent = True
            try:
                patience = min(SESSION_RESEND_S, left) if repeatable else left
                result: KvResult = await asyncio.wait_for(asyncio.shield(future), patience)
            except TimeoutError:
                reached("a write to the key-value store had no outcome in time")
                future.cancel()
                last = None
                continue
            except (ProposalLost, OutcomeUnknown) as error:
                if not repeatable:
                    raise
                reached("a write with a session was sent again after its fate was unknown")
                last = error
                continue
            if result.error == KvError.SESSION_EXPIRED:
                reached("a session was so old that its answer was forgotten")
                raise OutcomeUnknown("the session is so old that its answer is forgotten: use a higher sequence")
            return result
        seen = f" (last: {last})" if last else ""
        raise DeadlinePassed(f"the write had no outcome within {timeout_s:g} s{seen}", definite=not sent)

    def _refuse_if_closed(self) -> None:
        if self._replica.closed:
            raise NoLeader("this node takes part in the key-value store no more; ask another one")

    async def _wait_for_change(self, at_most_s: float) -> None:
        """Until something is applied or the leader changes, but not for long."""
        await asyncio.wait([self._replica.changed()], timeout=at_most_s)


def predict_result(machine: KeyValueMachine) -> Callable[[bytes, Term, Index], Any]:
    """For the planted bug `ack-before-commit`: what the write would give if it were committed as things stand."""

    def predict(command: bytes, term: Term, index: Index) -> KvResult:
        trial = KeyValueMachine()
        trial.restore(machine.snapshot())
        result = trial.apply(Entry(term, Index(trial.applied_index + 1), 0, command))
        assert result is not None
        return result._replace(version=index) if result.applied and result.version else result

    return predict

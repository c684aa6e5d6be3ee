"""`cluster.kv`: the key-value store as a test uses it; every operation is in the history.

An operation is tried until its deadline, at the wanted node or at one after the other; with `retries=False` exactly
once.  A write is sent again only where the system promises to apply it once: under the same session and sequence.

Rule: what is raised says whether the operation surely did not happen; the history says the same.  A logical client has
one operation at a time; operations that run at once have a client each.
Knows nothing of how the store is spoken to.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from seatrial.env import Rng
from seatrial.history import Json, OpType
from seatrial.scenario.attempts import NoAnswer, until_done
from seatrial.scenario.errors import NotHere, Refused
from seatrial.scenario.key_value_protocols import (
    ABSENT,
    Consistency,
    EtcdApi,
    KeyValueProtocol,
    OwnApi,
    Session,
)
from seatrial.scenario.patience import TIMEOUT_S
from seatrial.scenario.records import Records, recorded
from seatrial.workloads.base import Request
from seatrial.workloads.kv_client import MISMATCH

T = TypeVar("T")
ATTEMPT_S = 1.2  # of one attempt of several
STALE_READ = "stale-read"  # in the history: no checker of linearizability takes it for a read
Attempt = Callable[[Any, str, float], Awaitable[T]]  # HTTP client, base URL, seconds


class Plant(Protocol):
    """What the clients of a cluster need of it."""

    records: Records

    def running(self) -> tuple[int, ...]: ...

    def http_url(self, node: int) -> str:
        """Raises NotHere where the nodes speak no HTTP."""

    def open_http(self) -> Any: ...


def protocol_of(system: str) -> KeyValueProtocol | None:
    """How the key-value store of this system is spoken to; None where we do not know it."""
    known: dict[str, KeyValueProtocol] = {"own": OwnApi(), "etcd": EtcdApi()}
    return known.get(system)


@dataclass(slots=True)
class _Client:
    """One logical client: its number in the history, its session, its connections."""

    number: int
    session: str
    http: Any
    sequence: int = 0


class KeyValue:
    """The store.  Values are JSON: numbers, text, lists, …; None is what an absent key reads as.

    via: ask this node and no other; without it, nodes that run, another one after each failure.
    timeout: seconds for all attempts together.  retries=False: one attempt, which is given all of the time.
    Every operation raises Unavailable or Refused; `definite` says whether it surely did not happen.
    """

    def __init__(
        self, plant: Plant, system: str, rng: Rng, *, via: int | None = None, one_client: bool = False
    ) -> None:
        self._plant = plant
        self._system = system
        self._rng = rng
        self._via = via
        self._one_client = one_client
        self._idle: list[_Client] = []
        self._keys: dict[str, None] = {}
        self._clients: list[_Client] = []
        self._sessions: list[KeyValue] = []

    @property
    def group(self) -> str | None:
        """The Raft group behind the store, as `wait_for_leader` takes it; None: the one that is meant anyway."""
        return "kv" if self._system == "own" else None

    def session(self, via: int | None = None) -> KeyValue:
        """The store as one client sees it, which stays one client in the history and does one thing at a time: for
        read-your-writes and monotonic reads.  via: the node it speaks to, where an operation names none."""
        rng = self._rng.child(f"session {len(self._sessions)}")
        made = KeyValue(self._plant, self._system, rng, via=via, one_client=True)
        made._keys = self._keys
        self._sessions.append(made)
        return made

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that a test of this store, or of a session of it, has named."""
        return tuple(self._keys)

    async def put(
        self, key: str, value: Json, *, via: int | None = None, timeout: float = TIMEOUT_S, retries: bool = True
    ) -> None:
        """Set the key."""
        if value is None:
            raise ValueError("None is what an absent key reads as; use delete")
        await self._write(Request(f="write", key=key, value=recorded(value)), json.dumps(value), via, timeout, retries)

    async def delete(
        self, key: str, *, via: int | None = None, timeout: float = TIMEOUT_S, retries: bool = True
    ) -> None:
        """Remove the key; nothing happens where there is none."""
        await self._write(Request(f="delete", key=key), None, via, timeout, retries)

    async def get(
        self,
        key: str,
        *,
        via: int | None = None,
        consistency: Consistency = "linearizable",
        timeout: float = TIMEOUT_S,
        retries: bool = True,
    ) -> Json:
        """The key's value; None where there is no such key.

        "lease": from the leader's lease, where the system has such reads (else as linearizable); "stale": whatever the
        node has.
        """
        protocol = self._protocol()

        async def attempt(http: Any, base: str, seconds: float) -> Json:
            return _value((await protocol.read(http, base, key, consistency, seconds)).text)

        client = self._take()
        request = Request(f=STALE_READ if consistency == "stale" else "read", key=key, node=self._at(via))
        return await self._perform(client, request, attempt, timeout, retries, again=True, answer=lambda read: read)

    async def compare_and_set(
        self,
        key: str,
        old: Json,
        new: Json,
        *,
        via: int | None = None,
        timeout: float = TIMEOUT_S,
        retries: bool = True,
    ) -> bool:
        """Set the key to `new` if its value is `old` (None: if there is no such key), and say whether that was done."""
        protocol = self._protocol()
        client = self._take()
        session = self._next_session(client, protocol)
        seen: list[str] = []  # the version of the write that is under way

        async def attempt(http: Any, base: str, seconds: float) -> bool:
            nonlocal session
            if not seen:
                try:
                    found = await protocol.read(http, base, key, "linearizable", seconds)
                except NoAnswer as error:
                    raise NoAnswer(str(error), definite=True) from error  # nothing was written yet
                if _value(found.text) != old:
                    return False
                seen.append(ABSENT if found.version is None else found.version)
            # Once sent, it is only ever sent again as it was: what is read now may be what it wrote itself.
            if await protocol.write(http, base, key, json.dumps(new), seen[0], session, seconds):
                return True
            # The store says so of every write under this session and sequence, whichever came first.
            seen.clear()
            session = self._next_session(client, protocol)
            raise NoAnswer("the key was changed between reading and writing", definite=True)

        request = Request(f="cas", key=key, value=[recorded(old), recorded(new)], node=self._at(via))
        return await self._perform(
            client, request, attempt, timeout, retries, again=protocol.resends, answer=lambda _: request.value
        )

    async def close(self) -> None:
        """Hang up."""
        for client in self._clients:
            await client.http.aclose()
        for session in self._sessions:
            await session.close()
        self._clients.clear()
        self._idle.clear()

    async def _write(self, request: Request, text: str | None, via: int | None, timeout: float, retries: bool) -> None:
        protocol = self._protocol()
        client = self._take()
        session = self._next_session(client, protocol)

        async def attempt(http: Any, base: str, seconds: float) -> bool:
            return await protocol.write(http, base, request.key or "", text, None, session, seconds)

        pinned = Request(f=request.f, key=request.key, value=request.value, node=self._at(via))
        await self._perform(
            client, pinned, attempt, timeout, retries, again=protocol.resends, answer=lambda _: request.value
        )

    # -- one operation, until it is done or its time is up

    async def _perform(
        self,
        client: _Client,
        request: Request,
        attempt: Attempt[T],
        timeout: float,
        retries: bool,
        *,
        again: bool,
        answer: Callable[[T], Json],
    ) -> T:
        """again: an attempt whose outcome is unknown may be repeated.  answer: what the history says was answered."""
        self._keys[request.key or ""] = None
        operation = self._plant.records.operation(client.number, request)
        try:
            with operation:
                result, node = await self._until_done(client, request, attempt, timeout, retries, again)
                if result is False:
                    operation.fail(MISMATCH, node=node)
                else:
                    operation.ok(recorded(answer(result)), node=node)
                return result
        finally:
            self._give_back(client, operation.completion.type)

    async def _until_done(
        self, client: _Client, request: Request, attempt: Attempt[T], timeout: float, retries: bool, again: bool
    ) -> tuple[T, int]:
        first = self._rng.integer(0, 1 << 20)

        async def at_a_node(turn: int, seconds: float) -> tuple[T, int]:
            node = self._node(request.node, first + turn)
            try:
                return await attempt(client.http, self._plant.http_url(node), seconds), node
            except NoAnswer as error:
                definite = error.definite or request.f in ("read", STALE_READ)
                raise NoAnswer(f"node {node}: {error}", definite=definite) from error
            except Refused as error:
                raise Refused(f"node {node}: {error}", code=error.code) from error

        what = f"{request.f} of {request.key}"
        return await until_done(what, at_a_node, timeout=timeout, attempt_s=ATTEMPT_S, retries=retries, again=again)

    def _node(self, pinned: int | None, turn: int) -> int:
        """The wanted node; or, turn by turn, those that run."""
        if pinned is not None:
            return pinned
        running = self._plant.running()
        if not running:
            raise NoAnswer("no node runs", definite=True)
        return running[turn % len(running)]

    def _at(self, via: int | None) -> int | None:
        return self._via if via is None else via

    # -- logical clients

    def _take(self) -> _Client:
        if self._idle:
            return self._idle.pop()
        if self._one_client and self._clients:
            raise ValueError("a session does one thing at a time: wait for its last operation, or open another session")
        number = self._plant.records.recorder.new_client()
        client = _Client(number, f"scenario-{self._rng.bytes(8).hex()}", self._plant.open_http())
        self._clients.append(client)
        return client

    def _give_back(self, client: _Client, ended: OpType) -> None:
        if ended is OpType.INFO:  # neither its number nor its session is used again
            client.number = self._plant.records.recorder.new_client()
            client.session, client.sequence = f"scenario-{self._rng.bytes(8).hex()}", 0
        self._idle.append(client)

    def _next_session(self, client: _Client, protocol: KeyValueProtocol) -> Session:
        if not protocol.resends:
            return None
        client.sequence += 1
        return client.session, client.sequence

    def _protocol(self) -> KeyValueProtocol:
        protocol = protocol_of(self._system)
        if protocol is None:
            raise NotHere(f"no key-value store is known of {self._system}: use own or etcd, or clients of your own")
        return protocol


def _value(text: str | None) -> Json:
    """What was stored; text that no client of ours wrote is kept as text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text

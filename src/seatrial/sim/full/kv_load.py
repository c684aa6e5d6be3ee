"""What key-value clients do in a run: read, write and compare-and-set over HTTP, each logical client in a closed loop.

Rule: as in `workloads.runner`: one operation at a time, recorded before it begins and after it is known.
Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from seatrial.env import Rng
from seatrial.history import OpType
from seatrial.sim.case import Load
from seatrial.sim.full.http import LeanHttp
from seatrial.workloads.base import Completion, Endpoint, Request
from seatrial.workloads.generators import RegisterGenerator
from seatrial.workloads.kv_client import KvClient
from seatrial.workloads.node_choice import NodeChoice
from seatrial.workloads.payload import Payload
from seatrial.workloads.recorder import Recorder

PREFIX: Final = "kv."
PER_KEY: Final = 150
RETRY_S: Final = 0.1
BLAMES: Final = re.compile(r"HTTP 4\d\d")
HANG_UPS: Final = re.compile(r"RemoteProtocolError|ReadError")
FRESH: Final = 40  # values of which the last write takes the longest


class KvLoad:
    """The clients of one run, on one client host.

    stop: no operation begins after it is set.  blamed: answers that find fault with a request, which were all right.
    """

    def __init__(self, load: Load, endpoints: Sequence[Endpoint], record: Recorder, rng: Rng, payload: Payload) -> None:
        self.stop = asyncio.Event()
        self.last_error = ""
        self.blamed: list[str] = []
        self._load = load
        self._endpoints = list(endpoints)
        self._record = record
        self._rng = rng
        self._payload = payload
        self._left = load.operations_max
        self._generator = RegisterGenerator(
            rng.child("generator"), prefix=PREFIX, active=load.keys, per_key=PER_KEY, reads=load.reads
        )

    async def run(self) -> None:
        """Load until `stop`, then let what is in flight end."""
        if self._load.rate > 0:
            await asyncio.gather(*(self._one(number) for number in range(self._load.clients)))

    def _client(self, rng: Rng, *, session: bool) -> KvClient:
        nodes = NodeChoice(self._endpoints, rng.child("nodes"))
        return KvClient(nodes, rng, session=session, open_http=LeanHttp, payload=self._payload)

    async def _one(self, number: int) -> None:
        loop, rng = asyncio.get_running_loop(), self._rng.child(f"client {number}")
        client = self._client(rng, session=number % 2 == 0)
        interval_s = self._load.clients / self._load.rate
        logical = self._record.new_client()
        due = loop.time() + interval_s * rng.random()
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + interval_s, loop.time())
            if self.stop.is_set() or self._left <= 0:
                return
            self._left -= 1
            request = self._generator.next(number)
            completion = await self._attempt(client, request, logical)
            self._generator.completed(request, completion)
            if completion.type is OpType.INFO:
                logical = self._record.new_client()
                await client.reconnect()
            if completion.type is not OpType.OK:
                await asyncio.sleep(RETRY_S * rng.random())

    async def _attempt(self, client: KvClient, request: Request, logical: int) -> Completion:
        self._record.invoke(logical, request)
        completion = Completion(type=OpType.INFO, error="cut off: the run ended")
        try:
            completion = await client.perform(request)
        finally:
            self._record.complete(logical, completion)
        if completion.error is not None:
            self.last_error = f"{request.f} {request.key}: {completion.error}"
            if BLAMES.search(completion.error):
                self.blamed.append(self.last_error)
        return completion

    async def prove_served(self, nodes: Sequence[int], timeout_s: float) -> list[str]:
        """A long value written through each of these nodes, then every register read from each of them, linearizably;
        what could not be done in time."""
        missing: list[str] = []
        for proof in (self._write_through, self._read_from):
            await asyncio.gather(*(proof(node, timeout_s, missing) for node in nodes))
        return missing

    async def _write_through(self, node: int, timeout_s: float, missing: list[str]) -> None:
        key = self._generator.keys[node % len(self._generator.keys)]
        client = self._client(self._rng.child(f"final write {node}"), session=False)
        await self._until_ok(
            client,
            lambda: Request(f="write", key=key, value=self._long_value(), node=node),
            asyncio.get_running_loop().time() + timeout_s,
            missing,
        )
        await client.close()

    def _long_value(self) -> int:
        return max((self._generator.fresh_value() for _ in range(FRESH)), key=self._payload.size_of)

    async def _read_from(self, node: int, timeout_s: float, missing: list[str]) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        client = self._client(self._rng.child(f"final {node}"), session=False)
        for key in self._generator.keys:
            await self._until_ok(client, partial(Request, f="read", key=key, node=node), deadline, missing)
        await client.close()

    async def _until_ok(
        self, client: KvClient, request: Callable[[], Request], deadline: float, missing: list[str]
    ) -> None:
        """Nothing is broken any more, so that a node that hangs up on a request will do so again."""
        while True:
            asked = request()
            completion = await self._attempt(client, asked, self._record.new_client())
            if completion.type is OpType.OK:
                return
            if HANG_UPS.search(completion.error or "") or asyncio.get_running_loop().time() > deadline:
                missing.append(f"a {asked.f} of {asked.key} at node {asked.node}: {completion.error}")
                return
            await client.reconnect()
            await asyncio.sleep(RETRY_S)

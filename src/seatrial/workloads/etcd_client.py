"""A client of etcd through its JSON gateway: a register per key, and the transaction that compares a whole range.

Rule: a transaction whose comparison failed surely changed nothing; any other unanswered write is `info`.
Knows nothing of which operations are asked for, or why.
"""

from __future__ import annotations

import httpx

from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.etcd_gateway import (
    EtcdError,
    encode,
    put,
    put_if_all_exist,
    put_of,
    read_range,
    transact,
)
from seatrial.workloads.http_outcomes import after_exception, open_client
from seatrial.workloads.kv_client import MISMATCH
from seatrial.workloads.node_choice import NodeChoice

FILLED = "0"  # what set-up writes: no client writes it, so it stands for "never written"
MISSING = "missing"  # a key that set-up filled and that is not there


class EtcdClient:
    """One logical client.

    `filled`: the range (first key, end) that set-up filled with FILLED; writes there are transactions that compare
    the VERSION of every key of that range first, and FILLED reads as None.  Without it, writes are plain puts and an
    absent key reads as None.
    """

    def __init__(self, nodes: NodeChoice, *, filled: tuple[str, str] | None = None) -> None:
        self._nodes = nodes
        self._filled = filled
        self._http = open_client()

    async def perform(self, request: Request) -> Completion:
        endpoint = self._nodes.pick(request.node)
        try:
            completion = await self._perform(request, endpoint.http or "", endpoint.node)
        except httpx.HTTPError as error:
            completion = after_exception(request.f, error, node=endpoint.node)
        except EtcdError as error:
            completion = error.completion(request.f, node=endpoint.node)
        if completion.type is not OpType.OK and completion.error != MISMATCH:
            self._nodes.move_on()
        return completion

    async def reconnect(self) -> None:
        await self._http.aclose()
        self._http = open_client()

    async def close(self) -> None:
        await self._http.aclose()

    async def _perform(self, request: Request, base: str, node: int) -> Completion:
        key = request.key or ""
        match request.f:
            case "read" if request.keys:
                assert self._filled is not None, "many keys are read from the filled range only"
                found = await read_range(self._http, base, *self._filled)
                return Completion(type=OpType.OK, value={k: self._value(found.get(k)) for k in request.keys}, node=node)
            case "read":
                found = await read_range(self._http, base, key)
                return Completion(type=OpType.OK, value=self._value(found.get(key)), node=node)
            case "write":
                applied = await self._write(base, key, request.value)
            case "cas":
                old, new = request.value
                compare = [{"key": encode(key), "target": "VALUE", "result": "EQUAL", "value": encode(str(old))}]
                applied = await transact(self._http, base, compare=compare, success=[put_of(key, new)])
            case _:
                raise ValueError(f"a register has no operation {request.f!r}")
        if not applied:
            return Completion(type=OpType.FAIL, error=MISMATCH, node=node)
        return Completion(type=OpType.OK, value=request.value, node=node)

    async def _write(self, base: str, key: str, value: Json) -> bool:
        if self._filled is None:
            await put(self._http, base, key, value)
            return True
        return await put_if_all_exist(self._http, base, key, value, *self._filled)

    def _value(self, text: str | None) -> Json:
        if self._filled is not None:
            if text is None:
                return MISSING
            if text == FILLED:
                return None
        return int(text) if text is not None and text.isdigit() else text

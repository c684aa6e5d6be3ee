"""Changes of the cluster's members as faults: an operator asks over HTTP, of any node, until it is done or given up.

    add-voter, add-learner, promote, remove, replace     as `seatrial members` does
    joint-explicit                                       each partition's replicas move from one node to another
    wipe                                                 a node loses its disk and comes back as another in its place

Rule: what the cluster refuses is no failure; it is asked again, elsewhere, while the fault lasts.  An id that was
removed never comes back, so a node without its disk gets a new one.
Knows nothing of how the change is carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import msgspec

from seatrial.sim.case import Fault
from seatrial.sim.full.carried import Carried, Carriers
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.http import LeanHttp
from seatrial.sim.full.server_host import HTTP_PORT, host_name

ASK_AGAIN_S: Final = 0.25
GIVE_UP_S: Final = 5.0  # for what has no duration
WIPE_GIVE_UP_S: Final = 20.0

Ask = tuple[str, str, Mapping[str, Any] | None]  # method, path, body


class Request:
    """Something asked for until every part of it was agreed to, once.  agreed: how many parts were."""

    def __init__(self, cluster: Cluster, parts: Callable[[], list[Ask]]) -> None:
        self._cluster = cluster
        self._parts = parts
        self._chance = cluster.world.stream("operator")
        self.given_up = False
        self.agreed = 0

    def begin(self, give_up_s: float) -> None:
        self._cluster.operator.spawn(self._ask_until_agreed(give_up_s))

    async def _ask_until_agreed(self, give_up_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + give_up_s
        http, parts = LeanHttp(), self._parts()
        while parts and not self.given_up and loop.time() < deadline:
            if await self._agreed(http, *parts[0]):
                self.agreed += 1
                parts.pop(0)
            else:
                await asyncio.sleep(ASK_AGAIN_S)
        await http.aclose()

    async def _agreed(self, http: LeanHttp, method: str, path: str, body: Mapping[str, Any] | None) -> bool:
        node = self._chance.choice([slot for slot, server in self._cluster.nodes.items() if server.enabled])
        content = b"" if body is None else msgspec.json.encode(body)
        url = f"http://{host_name(node)}:{HTTP_PORT}{path}"
        headers = {"content-type": "application/json"}
        try:
            response = await http.request(method, url, content=content, headers=headers)
        except httpx.HTTPError:
            return False
        return response.status_code < 300


def _urls(cluster: Cluster) -> tuple[str, ...]:
    """Where a node that joins may ask: the founders."""
    return tuple(f"http://{host_name(n)}:{HTTP_PORT}" for n in range(1, cluster.case.nodes + 1))


def _membership(cluster: Cluster, fault: Fault) -> Carried:
    leaves, comes = fault.nodes[0], fault.nodes[-1]
    if fault.mode == "add-voter":
        joined = cluster.nodes[comes]
        fresh = not joined.enabled
        joined.bring_in(_urls(cluster))
        return Carried(bit=lambda: fresh)
    if fault.mode in ("add-learner", "replace"):
        cluster.nodes[comes].bring_in(())
    request = Request(cluster, lambda: _parts(cluster, fault.mode, leaves, comes))
    request.begin(fault.duration_us / 1e6 or GIVE_UP_S)

    def end() -> None:
        request.given_up = True

    return Carried(bit=lambda: request.agreed > 0, end=end)


def _parts(cluster: Cluster, mode: str, leaves: int, comes: int) -> list[Ask]:
    """What is asked for, in order; nodes are called what their servers call themselves now."""
    old, new = cluster.nodes[leaves].node_id, cluster.nodes[comes].node_id
    where = {"node_id": new, **cluster.nodes[comes].addresses()}
    match mode:
        case "add-learner":
            return [("POST", "/api/v1/members", {**where, "learner": True})]
        case "promote":
            return [("POST", f"/api/v1/members/{new}/promote", None)]
        case "remove":
            return [("DELETE", f"/api/v1/members/{old}", None)]
        case "replace":
            return [("POST", f"/api/v1/members/{old}/replace", where)]
        case _:
            assert mode == "joint-explicit", mode
            load = cluster.case.load
            return [
                ("POST", f"/api/v1/raft/groups/t{topic}/{partition}/members", {"add": [new], "remove": [old]})
                for topic in range(load.topics)
                for partition in range(load.partitions)
            ]


def _wipe(cluster: Cluster, fault: Fault) -> Carried:
    requests: list[Request] = []
    for slot in fault.nodes:
        server = cluster.nodes[slot]
        server.hold()
        lost = server.lose_disk(())
        cluster.observer.damaged.update((lost, server.node_id))
        where = {"node_id": server.node_id, **server.addresses()}
        replace: Ask = ("POST", f"/api/v1/members/{lost}/replace", where)
        request = Request(cluster, lambda replace=replace: [replace])  # type: ignore[misc]
        request.begin(WIPE_GIVE_UP_S)
        requests.append(request)

    def end() -> None:
        for slot in fault.nodes:
            cluster.nodes[slot].release()

    return Carried(bit=lambda: any(request.agreed for request in requests), end=end, late=True)


CARRIERS: Final[Carriers] = {"membership": _membership, "wipe": _wipe}

"""What nodes say of the message filters that they have now; `cluster.messages` tells it only afterwards."""

from __future__ import annotations

import contextlib
from typing import Any

from seatrial.scenario import ScenarioCluster


async def _filters_at(cluster: ScenarioCluster, node: int) -> list[dict[str, Any]]:
    async with contextlib.aclosing(cluster.open_http()) as http:
        response = await http.request("GET", f"{cluster.http_url(node)}/api/v1/test/filters")
        filters: list[dict[str, Any]] = response.json()["filters"]
        return filters


async def held_at(cluster: ScenarioCluster, node: int) -> int:
    """How many messages the node's filters hold back now."""
    return sum(described["held"] for described in await _filters_at(cluster, node))


async def bitten_at(cluster: ScenarioCluster, node: int) -> bool:
    """Whether any of the node's filters has done something to a message."""
    return any(described["bit"] for described in await _filters_at(cluster, node))

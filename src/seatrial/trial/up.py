"""`seatrial up`: a cluster for as long as somebody wants it.

Rule: Ctrl-C and SIGTERM end it, and nothing of it is left (but the directory, where one was given).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.errors import ClusterError
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.trial.model import BadTrial
from seatrial.trial.verdict import COULD_NOT_RUN

LEADER_TIMEOUT_S = 20.0
WATCH_INTERVAL_S = 0.1
STOP_TIMEOUT_S = 6.0


def up_command(*, nodes: int, directory: Path | None, options: Mapping[str, str]) -> int:
    """Start, print the addresses, wait.  Returns the exit status; raises BadTrial."""
    try:
        spec = ClusterSpec(system="own", nodes=nodes, directory=directory, options=options, links=False)
    except ValueError as error:
        raise BadTrial(str(error)) from error
    try:
        return asyncio.run(_up(spec))
    except (ClusterError, ValueError, OSError) as error:
        print(f"seatrial: {error}", file=sys.stderr)
        return COULD_NOT_RUN


async def _up(spec: ClusterSpec) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    life = asyncio.ensure_future(_live(spec, stopped))
    interrupted = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({life, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        if not life.done():
            print("stopping", flush=True)
            done, _ = await asyncio.wait({life}, timeout=STOP_TIMEOUT_S)
            if not done:  # interrupted before there was a leader
                life.cancel()
        return await life
    except asyncio.CancelledError:
        return 0
    finally:
        interrupted.cancel()


async def _live(spec: ClusterSpec, stopped: asyncio.Event) -> int:
    """Until `stopped`, or until a node ends by itself.  Returns the exit status."""
    async with spawn_cluster(spec) as cluster:
        await cluster.wait_for_leader(LEADER_TIMEOUT_S)
        print(_welcome(cluster), flush=True)
        while not stopped.is_set() and not cluster.unexpected_exits:
            await asyncio.sleep(WATCH_INTERVAL_S)
        crashes = [str(error) for error in cluster.unexpected_exits]
        if not crashes:
            await cluster.terminate_all()
    for crash in crashes:
        print(f"seatrial: {crash}", file=sys.stderr)
    return COULD_NOT_RUN if crashes else 0


def _welcome(cluster: Cluster) -> str:
    places = {node: cluster.addresses(node) for node in cluster.nodes}
    bootstrap = ",".join(str(at.kafka) for at in places.values())
    first = next(iter(places.values()))
    lines = [
        f"node {node}  kafka {at.kafka}  http {at.http}  pid {cluster.node_state(node).pid}"
        for node, at in places.items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"bootstrap.servers={bootstrap}",
            f"  kcat -b {bootstrap} -L",
            f"  curl -X PUT --data hello {first.http}/api/v1/kv/greeting",
            f"  curl {first.http}/api/v1/raft/info",
            "",
            "Ctrl-C ends it.",
        ]
    )

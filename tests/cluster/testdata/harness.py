"""A harness that starts a cluster, prints its process ids and directory as JSON, and then ends in some way.

usage: harness.py SYSTEM how, with how: wait (for a signal) or raise
"""

import asyncio
import json
import signal
import sys

from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec


async def main(system: str, how: str) -> None:
    async with spawn_cluster(ClusterSpec(system=system)) as cluster:
        pids = [cluster.node_state(node).pid for node in cluster.nodes]
        await cluster.pause(2)
        addresses = [cluster.addresses(node).peer for node in cluster.nodes]
        print(json.dumps({"pids": pids, "root": str(cluster.run.root), "addresses": addresses}), flush=True)
        if how == "raise":
            raise RuntimeError("the test failed")
        await asyncio.Event().wait()


if __name__ == "__main__":
    # Shells and nohup start what they run with some signals ignored; here they have to work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    asyncio.run(main(*sys.argv[1:3]))

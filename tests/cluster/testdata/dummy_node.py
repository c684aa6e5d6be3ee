"""A stand-in for a replicated system: heartbeats to its peers, and the lowest number heard of lately leads.

usage: dummy_node.py NODE DATA_DIR PEER_ADDRESS HTTP_ADDRESS NODE=ADDRESS,NODE=ADDRESS,...
GET /health: status 200.  GET /status: {"raft": {"leader": "node-1", "term": 1, "heard": [1, 2, 3]}}
"""

import asyncio
import json
import sys
from pathlib import Path

node, data_dir, peer_address, http_address, peers = sys.argv[1:6]
heard = {}


async def on_peer(reader, writer):
    while line := await reader.readline():
        heard[int(line)] = asyncio.get_running_loop().time()


async def beat(address):
    while True:
        try:
            _, writer = await asyncio.open_connection(*address.rsplit(":", 1))
            while not writer.is_closing():
                writer.write(f"{node}\n".encode())
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            await asyncio.sleep(0.02)


async def on_http(reader, writer):
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    now = asyncio.get_running_loop().time()
    lately = sorted({int(node), *(peer for peer, at in heard.items() if now - at < 0.3)})
    status = {"raft": {"leader": f"node-{lately[0]}", "term": 1, "heard": lately}}
    body = json.dumps(status if path == "/status" else {})
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    await writer.drain()
    writer.close()


async def main():
    print("listening", file=sys.stderr, flush=True)
    await asyncio.start_server(on_peer, *peer_address.rsplit(":", 1))
    await asyncio.start_server(on_http, *http_address.rsplit(":", 1))
    beats = [beat(a) for n, a in (p.split("=") for p in peers.split(",")) if n != node]
    await asyncio.gather(asyncio.Event().wait(), *beats)


with Path(data_dir, "starts").open("a") as starts:
    starts.write("started\n")
asyncio.run(main())

"""A key-value store of two nodes on asyncio streams: the primary copies each write to the backup, then says "ok".

It was written as such programs are written, it works, and it loses acknowledged writes.  `primary_backup_trial.py`
finds out how.  Nothing here knows of a simulator.
"""

import asyncio
from contextlib import suppress

PORT = 7000


class Node:
    """Either of the two.  Whoever has a backup copies to it; whom clients ask is up to them."""

    def __init__(self, backup: str | None) -> None:
        self.backup = backup
        self.values: dict[str, str] = {}

    async def serve(self) -> None:
        server = await asyncio.start_server(self.handle, "0.0.0.0", PORT)
        await server.serve_forever()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode().split():
                writer.write((await self.answer(line) + "\n").encode())
                await writer.drain()
        except OSError:
            pass  # the client has gone
        finally:
            writer.close()

    async def answer(self, line: list[str]) -> str:
        if line[0] == "get":
            return self.values.get(line[1], "nothing")
        self.values[line[1]] = line[2]
        if self.backup is not None:
            with suppress(OSError, TimeoutError):  # the backup is down: go on alone, as one of two must be able to
                await request(self.backup, " ".join(line), patience=0.2)
        return "ok"


async def request(node: str, line: str, patience: float = 0.5) -> str:
    """One question and its answer.  Raises OSError, TimeoutError."""
    async with asyncio.timeout(patience):
        reader, writer = await asyncio.open_connection(node, PORT)
        try:
            writer.write(line.encode() + b"\n")
            answer = (await reader.readline()).decode().strip()
        finally:
            writer.close()
    if not answer:
        raise ConnectionResetError(f"{node} closed the connection")
    return answer


async def ask_either(nodes: tuple[str, ...], line: str) -> str:
    """The first answer, of the first node that gives one."""
    while True:
        for node in nodes:
            try:
                return await request(node, line)
            except (OSError, TimeoutError):
                await asyncio.sleep(0.05)

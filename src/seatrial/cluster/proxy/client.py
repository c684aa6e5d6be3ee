"""An asyncio client for any server that speaks Toxiproxy's API: ours, or a real Toxiproxy.

Rules: every request has a deadline; a refusal raises `ProxyError` with the server's own words.  A `cut` is a
`hold` where the server has it and `timeout` 0 where it has not.  Needs nothing but the standard library,
because it is imported by programs that must start fast.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

REQUEST_TIMEOUT_SECONDS = 30.0  # answers come within milliseconds; a machine may be too busy for that


class ProxyError(Exception):
    """The proxy server refused a request or could not be asked.

    `status` is the HTTP status, or None if there was no answer; `definite` says that the request surely
    changed nothing.
    """

    def __init__(self, message: str, *, status: int | None, definite: bool) -> None:
        super().__init__(message)
        self.status = status
        self.definite = definite


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVersion:
    """What answers at the address.  `ours`: it has hold, callers, counters, events and reset_connections."""

    version: str
    ours: bool


class ProxyClient:
    """One server's API.  Safe to share between tasks: each request uses a connection of its own."""

    def __init__(self, address: str, *, timeout: float = REQUEST_TIMEOUT_SECONDS) -> None:
        """`address` is `host:port`, with or without `http://`; `timeout` is for each request, in seconds."""
        self.address = address.removeprefix("http://").rstrip("/")
        host, colon, port = self.address.rpartition(":")
        if not colon or not port.isdigit():
            raise ValueError(f"address of a proxy server must be host:port, not {address!r}")
        self._host, self._port = host.strip("[]"), int(port)
        self._timeout = timeout
        self._version: ServerVersion | None = None

    async def version(self) -> ServerVersion:
        """Asked once, then remembered."""
        if self._version is None:
            shown = await self._ask("GET", "/version")
            self._version = ServerVersion(version=shown["version"], ours=shown.get("server") == "seatrial")
        return self._version

    async def wait_until_ready(self, timeout: float) -> ServerVersion:
        """Ask until the server answers.  Raises ProxyError, after `timeout` seconds, with what was last
        seen.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            try:
                return await self.version()
            except ProxyError as error:
                if loop.time() >= deadline:
                    message = f"proxy server not ready after {timeout} s; last seen: {error}"
                    raise ProxyError(message, status=error.status, definite=True) from error
            await asyncio.sleep(0.01)

    async def create(self, name: str, listen: str, upstream: str, *, enabled: bool = True) -> dict[str, Any]:
        """A new proxy; `listen` may have port 0.  Returns the proxy as the server shows it, its real address
        in `listen`.
        """
        body = {"name": name, "listen": listen, "upstream": upstream, "enabled": enabled}
        return await self._object("POST", "/proxies", body)

    async def populate(self, proxies: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Create or replace many at once; one that is already as wanted is kept with its toxics."""
        shown = await self._object("POST", "/populate", list(proxies))
        return list(shown["proxies"] or [])

    async def proxies(self) -> dict[str, dict[str, Any]]:
        return await self._object("GET", "/proxies")

    async def proxy(self, name: str) -> dict[str, Any]:
        return await self._object("GET", _path(name))

    async def update(self, name: str, **changes: Any) -> dict[str, Any]:
        """Change `listen`, `upstream` or `enabled`.  Sent by POST, which every version of Toxiproxy takes."""
        return await self._object("POST", _path(name), changes)

    async def enable(self, name: str) -> None:
        await self.update(name, enabled=True)

    async def disable(self, name: str) -> None:
        """Stop listening and close all connections."""
        await self.update(name, enabled=False)

    async def delete(self, name: str) -> None:
        await self._ask("DELETE", _path(name))

    async def reset(self) -> None:
        """Enable all proxies, remove all toxics."""
        await self._ask("POST", "/reset")

    async def toxics(self, proxy: str) -> list[dict[str, Any]]:
        return list(await self._ask("GET", _path(proxy, "toxics")))

    async def add_toxic(
        self,
        proxy: str,
        type: str,
        stream: str,
        attributes: Mapping[str, float] | None = None,
        *,
        name: str | None = None,
        toxicity: float = 1.0,
        caller: str | None = None,
    ) -> dict[str, Any]:
        """Add a toxic and return it as the server shows it, with its `name`.

        Raises ProxyError if the server took it but ignored an attribute or the caller: a fault that is not
        the one asked for.
        """
        wanted: dict[str, Any] = dict(attributes or {})
        body: dict[str, Any] = {"type": type, "stream": stream, "attributes": wanted, "toxicity": toxicity}
        if name is not None:
            body["name"] = name
        if caller is not None:
            body["caller"] = caller
        shown = await self._object("POST", _path(proxy, "toxics"), body)
        ignored = sorted(key for key in wanted if key not in shown["attributes"])
        if caller is not None and "caller" not in shown:
            ignored.append("caller")
        if ignored:
            await self.remove_toxic(proxy, shown["name"])
            message = f"{self.address} does not know {', '.join(ignored)} of toxic {type}; the toxic was removed again"
            raise ProxyError(message, status=200, definite=True)
        return shown

    async def update_toxic(
        self, proxy: str, name: str, attributes: Mapping[str, float], *, toxicity: float | None = None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"attributes": dict(attributes)}
        if toxicity is not None:
            body["toxicity"] = toxicity
        return await self._object("POST", _path(proxy, "toxics", name), body)

    async def remove_toxic(self, proxy: str, name: str) -> None:
        await self._ask("DELETE", _path(proxy, "toxics", name))

    async def cut(self, proxy: str, stream: str, *, name: str, caller: str | None = None) -> dict[str, Any]:
        """Stop one direction until `remove_toxic(proxy, name)`.

        Ours keeps the bytes and delivers them then.  A real Toxiproxy drops them and closes the connections
        that lost some: also a cut, but one that TCP does not survive.
        """
        type_name = "hold" if (await self.version()).ours else "timeout"
        attributes = {} if type_name == "hold" else {"timeout": 0}
        return await self.add_toxic(proxy, type_name, stream, attributes, name=name, caller=caller)

    async def reset_connections(self, proxy: str, *, caller: str | None = None) -> int:
        """RST the live connections, of one caller or all; returns how many.  Ours only."""
        body = {} if caller is None else {"caller": caller}
        return int((await self._object("POST", _path(proxy, "reset_connections"), body))["reset"])

    async def set_callers(self, pids: Mapping[str, Iterable[int]]) -> int:
        """Say which process ids each caller has (all callers at once); call it again after every restart.

        Returns how many live connections have another caller by this.  Ours only.
        """
        body = {name: list(those) for name, those in pids.items()}
        return int((await self._object("PUT", "/callers", body))["found"])

    async def counters(self, proxy: str) -> dict[str, Any]:
        """The proxy's evidence, see counters.py; empty for a real Toxiproxy, which keeps none."""
        shown: dict[str, Any] = (await self.proxy(proxy)).get("counters", {})
        return shown

    async def events(self, *, since: int = 0) -> list[dict[str, Any]]:
        """The event log after sequence number `since`, oldest first.  Ours only."""
        _, body = await self._exchange("GET", f"/events?since={since}", None)
        return [json.loads(line) for line in body.splitlines()]

    async def metrics(self) -> str:
        _, body = await self._exchange("GET", "/metrics", None)
        return body.decode()

    async def _object(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        shown = await self._ask(method, path, body)
        if not isinstance(shown, dict):
            raise ProxyError(f"{method} {path}: answered {shown!r:.200}, not a JSON object", status=200, definite=False)
        return shown

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        status, answer = await self._exchange(method, path, body)
        if status == 204 or not answer:
            return None
        try:
            return json.loads(answer)
        except ValueError:
            message = f"{method} {path}: the answer is not JSON: {answer[:200]!r}"
            raise ProxyError(message, status=status, definite=False) from None

    async def _exchange(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self.address}\r\nUser-Agent: seatrial\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        sent = False
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    sent = True
                    writer.write(head.encode() + content)
                    status, answer = await _read_answer(reader)
                finally:
                    writer.close()
        except TimeoutError:
            message = f"{method} {path}: no answer from {self.address} within {self._timeout} s"
            raise ProxyError(message, status=None, definite=not sent) from None
        except (OSError, EOFError, ValueError) as error:
            message = f"{method} {path}: cannot talk to {self.address}: {error}"
            raise ProxyError(message, status=None, definite=not sent) from error
        if status >= 400:
            raise ProxyError(f"{method} {path}: {status} {_reason(answer)}", status=status, definite=status < 500)
        return status, answer


def _path(*parts: str) -> str:
    return "/proxies/" + "/".join(quote(part, safe="") for part in parts)


def _reason(answer: bytes) -> str:
    """The server's own words, from Toxiproxy's error body or whatever else it sent."""
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace").strip()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body) of one HTTP/1.1 answer on a connection that closes after it."""
    status_line = await reader.readline()
    try:
        status = int(status_line.split()[1])
    except (IndexError, ValueError):
        raise ValueError(f"not an HTTP answer: {status_line[:80]!r}") from None
    headers: dict[str, str] = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return status, await _read_chunked(reader)
    if "content-length" in headers:
        return status, await reader.readexactly(int(headers["content-length"]))
    return status, b"" if status == 204 else await reader.read()


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    return b"".join(chunks)

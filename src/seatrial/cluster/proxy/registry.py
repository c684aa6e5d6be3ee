"""All proxies of one server, and the operations of the API on them.

Rule: the semantics of Toxiproxy's proxy_collection.go.  Everything is checked before anything is changed, as
far as that can be known without asking the operating system for a port.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seatrial.cluster.proxy.addresses import parse_upstream, resolve_listen
from seatrial.cluster.proxy.callers import Callers
from seatrial.cluster.proxy.errors import (
    ApiError,
    bad_request_body,
    missing_field,
    proxy_already_exists,
    proxy_not_found,
)
from seatrial.cluster.proxy.events import EventLog
from seatrial.cluster.proxy.proxy import Proxy
from seatrial.cluster.proxy.toxic import describe, json_object, read_string
from seatrial.env import Rng


class Registry:
    """Proxies by name, in the order they were created."""

    def __init__(self, *, rng: Rng, events: EventLog) -> None:
        self.rng = rng
        self.events = events
        self.callers = Callers()
        self.proxies: dict[str, Proxy] = {}

    def get(self, name: str) -> Proxy:
        if (proxy := self.proxies.get(name)) is None:
            raise proxy_not_found()
        return proxy

    async def create(self, body: object) -> Proxy:
        fields = json_object(body)
        name, upstream, listen_text, enabled = read_proxy(fields, suffix="")
        if name in self.proxies:
            raise proxy_already_exists()
        proxy = self._new(name, listen_text, upstream)
        if enabled:
            await self._start(proxy)
        if name in self.proxies:  # created by another request while the name was being looked up
            proxy.stop()
            raise proxy_already_exists()
        self._add(proxy)
        return proxy

    async def update(self, name: str, body: object) -> Proxy:
        proxy = self.get(name)
        fields = json_object(body)
        listen_text = read_string(fields, "listen", proxy.listen)
        upstream = read_string(fields, "upstream", proxy.upstream)
        enabled = read_boolean(fields, "enabled", proxy.enabled)
        parse_upstream(upstream)
        if await self._differs(proxy, listen_text, upstream):
            proxy.stop()
            proxy.listen = listen_text
            proxy.set_upstream(upstream)
        if enabled and not proxy.enabled:
            await self._start(proxy)
        elif not enabled:
            proxy.stop()
        return proxy

    async def populate(self, body: object) -> tuple[list[Proxy], ApiError | None]:
        """Create or replace a list of proxies; the first failure ends it and is returned with what was
        done.
        """
        if not isinstance(body, list):
            return [], bad_request_body(f"a JSON list of proxies is needed here, not {describe(body)}")
        done: list[Proxy] = []
        try:
            wanted = [read_proxy(json_object(e), suffix=f" at proxy {i}") for i, e in enumerate(body, 1)]
            for name, upstream, listen_text, enabled in wanted:
                existing = self.proxies.get(name)
                if existing is not None and not await self._differs(existing, listen_text, upstream):
                    done.append(existing)
                    continue
                if existing is not None:
                    existing.stop()
                proxy = self._new(name, listen_text, upstream)
                if enabled:
                    await self._start(proxy)
                self._add(proxy)
                done.append(proxy)
        except ApiError as error:
            return done, error
        return done, None

    def delete(self, name: str) -> None:
        proxy = self.get(name)
        proxy.stop()
        del self.proxies[name]
        self.events.add("proxy_deleted", proxy=name, counters=proxy.counters.as_json())

    async def reset(self) -> None:
        """Enable every proxy, remove every toxic."""
        for proxy in list(self.proxies.values()):
            if not proxy.enabled:
                await self._start(proxy)
            proxy.remove_all_toxics()

    def set_callers(self, body: object) -> int:
        """Replace the map of callers; returns how many live connections have another caller by it."""
        pids: dict[str, list[int]] = {}
        for name, given in json_object(body).items():
            those = given if isinstance(given, list) else [given]
            if not all(isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 for pid in those):
                raise bad_request_body(f"caller {name}: a process id or a list of them is needed")
            pids[name] = those
        self.callers.replace(pids)
        self.events.add("callers_set", callers=self.callers.as_json())
        if not self.callers:
            return 0
        holders = self.callers.holders()
        return sum(proxy.identify_again(holders) for proxy in self.proxies.values())

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.stop()
        self.callers.close()

    def _new(self, name: str, listen_text: str, upstream: str) -> Proxy:
        return Proxy(
            name=name,
            listen_text=listen_text,
            upstream=upstream,
            rng=self.rng.child(f"proxy/{name}"),
            events=self.events,
            callers=self.callers,
        )

    def _add(self, proxy: Proxy) -> None:
        self.proxies[proxy.name] = proxy
        self.events.add("proxy_created", proxy=proxy.name, listen=proxy.listen, upstream=proxy.upstream)

    async def _start(self, proxy: Proxy) -> None:
        address = await resolve_listen(proxy.listen)
        if not proxy.enabled:
            proxy.start(address)

    async def _differs(self, proxy: Proxy, listen_text: str, upstream: str) -> bool:
        if upstream != proxy.upstream:
            return True
        return listen_text != proxy.listen and str(await resolve_listen(listen_text)) != proxy.listen


def read_proxy(fields: Mapping[str, Any], *, suffix: str) -> tuple[str, str, str, bool]:
    """(name, upstream, listen, enabled) as the API takes them.  Raises ApiError; `suffix` says which of a
    list it was.
    """
    name, upstream = read_string(fields, "name"), read_string(fields, "upstream")
    if not name:
        raise missing_field(f"name{suffix}")
    if not upstream:
        raise missing_field(f"upstream{suffix}")
    parse_upstream(upstream)
    return name, upstream, read_string(fields, "listen"), read_boolean(fields, "enabled", True)


def read_boolean(fields: Mapping[str, Any], key: str, default: bool) -> bool:
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_request_body(f"{key} must be true or false, not {describe(value)}")
    return value

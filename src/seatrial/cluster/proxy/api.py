"""The HTTP API: Toxiproxy v2.12's routes, and ours beside them.

Toxiproxy's, with its status codes, JSON shapes and error bodies (a bare JSON list for `populate`):

    POST /reset 204 · GET /version · GET /metrics · GET|POST /proxies · POST /populate 201
    GET|POST|PATCH|DELETE /proxies/{proxy} · GET|POST /proxies/{proxy}/toxics
    GET|POST|PATCH|DELETE /proxies/{proxy}/toxics/{toxic}

Ours:

    GET /proxies, /proxies/{proxy}             one more field, `counters` (counters.py); a toxic's outlive it
    POST /proxies/{proxy}/toxics               `caller`: the toxic acts on that caller's connections only;
                                               types hold, clog, stall, corrupt, half_open: see delays.py and
                                               breaks.py
    POST /proxies/{proxy}/reset_connections    RST live connections; body {} or {"caller": "n1"}; answers {"reset": N}
    GET|PUT /callers                           {"n1": [pid, ...] or pid, ...}: who owns which process; replaces all
    GET /events?since=N&limit=M                the event log as JSON Lines, from after sequence number N
    GET /version                               one more field, `server`: "seatrial"

Departures from Toxiproxy: error bodies are sent as application/json (its Go runtime overrides its own header
with text/plain); /metrics needs no flag; an upstream that is not host:port is refused at once rather than
when first used.
Rule: a User-Agent that begins with `Mozilla/` gets 403, so that no web page can drive this API.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from seatrial import __version__
from seatrial.cluster.proxy.errors import ApiError, bad_request_body
from seatrial.cluster.proxy.http_server import Request, Response
from seatrial.cluster.proxy.registry import Registry
from seatrial.cluster.proxy.toxic import json_object, read_string, toxic_from_json

TOXIPROXY_VERSION = "2.12.0"
TEXT = "text/plain; charset=utf-8"
NOT_FOUND = Response(status=404, body=b"404 page not found\n", content_type=TEXT)
METHOD_NOT_ALLOWED = Response(status=405)
NO_CONTENT = Response(status=204)

Route = Callable[[Request, list[str]], Awaitable[Response]]


class Api:
    """Answers requests; give `handle` to an HTTP server.  `runtime_metrics` adds the process's own to
    /metrics.
    """

    def __init__(self, registry: Registry, *, runtime_metrics: bool = False) -> None:
        self._registry = registry
        self._runtime_metrics = runtime_metrics
        # The path with each variable part as `*`, and what each method does there.
        self._routes: dict[tuple[str, ...], dict[str, Route]] = {
            ("reset",): {"POST": self._reset},
            ("version",): {"GET": self._version},
            ("metrics",): {"GET": self._metrics},
            ("populate",): {"POST": self._populate},
            ("events",): {"GET": self._events},
            ("callers",): {"GET": self._show_callers, "PUT": self._set_callers},
            ("proxies",): {"GET": self._list_proxies, "POST": self._create_proxy},
            ("proxies", "*"): {
                "GET": self._show_proxy,
                "POST": self._update_proxy,
                "PATCH": self._update_proxy,
                "DELETE": self._delete_proxy,
            },
            ("proxies", "*", "reset_connections"): {"POST": self._reset_connections},
            ("proxies", "*", "toxics"): {"GET": self._list_toxics, "POST": self._add_toxic},
            ("proxies", "*", "toxics", "*"): {
                "GET": self._show_toxic,
                "POST": self._update_toxic,
                "PATCH": self._update_toxic,
                "DELETE": self._remove_toxic,
            },
        }

    async def handle(self, request: Request) -> Response:
        if request.headers.get("user-agent", "").startswith("Mozilla/"):
            return Response(status=403, body=b"User agent not allowed\n", content_type=TEXT)
        parts = [unquote(part) for part in request.target.partition("?")[0].split("/")[1:]]
        if "" in parts:
            return NOT_FOUND
        pattern = tuple("*" if place in (1, 3) else part for place, part in enumerate(parts))
        methods = self._routes.get(pattern)
        if methods is None:
            return NOT_FOUND
        route = methods.get(request.method)
        if route is None:
            return METHOD_NOT_ALLOWED
        try:
            return await route(request, parts[1::2])
        except ApiError as error:
            return answer(error.status, error_json(error))

    async def _reset(self, request: Request, names: list[str]) -> Response:
        await self._registry.reset()
        return NO_CONTENT

    async def _version(self, request: Request, names: list[str]) -> Response:
        shown = {"version": TOXIPROXY_VERSION, "server": "seatrial", "seatrial_version": __version__}
        return answer(200, shown)

    async def _metrics(self, request: Request, names: list[str]) -> Response:
        # Imported when first asked for: the library's import is a third of this server's start-up.
        from seatrial.cluster.proxy.metrics import exposition

        body, content_type = exposition(self._registry, runtime=self._runtime_metrics)
        return Response(status=200, body=body, content_type=content_type)

    async def _populate(self, request: Request, names: list[str]) -> Response:
        try:
            done, error = await self._registry.populate(read_json(request))
        except ApiError as unreadable:
            done, error = [], unreadable
        shown: dict[str, Any] = {} if error is None else error_json(error)
        shown["proxies"] = [proxy.as_json() for proxy in done]
        return answer(201 if error is None else error.status, shown)

    async def _list_proxies(self, request: Request, names: list[str]) -> Response:
        return answer(200, {name: proxy.as_json() for name, proxy in self._registry.proxies.items()})

    async def _create_proxy(self, request: Request, names: list[str]) -> Response:
        return answer(201, (await self._registry.create(read_json(request))).as_json())

    async def _show_proxy(self, request: Request, names: list[str]) -> Response:
        return answer(200, self._registry.get(names[0]).as_json())

    async def _update_proxy(self, request: Request, names: list[str]) -> Response:
        self._registry.get(names[0])
        return answer(200, (await self._registry.update(names[0], read_json(request))).as_json())

    async def _delete_proxy(self, request: Request, names: list[str]) -> Response:
        self._registry.delete(names[0])
        return NO_CONTENT

    async def _reset_connections(self, request: Request, names: list[str]) -> Response:
        proxy = self._registry.get(names[0])
        body = json_object(read_json(request)) if request.body else {}
        return answer(200, {"reset": proxy.reset_connections(read_string(body, "caller") or None)})

    async def _list_toxics(self, request: Request, names: list[str]) -> Response:
        return answer(200, [toxic.as_json() for toxic in self._registry.get(names[0]).toxics_in_order()])

    async def _add_toxic(self, request: Request, names: list[str]) -> Response:
        proxy = self._registry.get(names[0])
        toxic = toxic_from_json(read_json(request))
        proxy.add_toxic(toxic)
        return answer(200, toxic.as_json())

    async def _show_toxic(self, request: Request, names: list[str]) -> Response:
        return answer(200, self._registry.get(names[0]).toxic(names[1]).as_json())

    async def _update_toxic(self, request: Request, names: list[str]) -> Response:
        proxy = self._registry.get(names[0])
        proxy.toxic(names[1])
        return answer(200, proxy.update_toxic(names[1], read_json(request)).as_json())

    async def _remove_toxic(self, request: Request, names: list[str]) -> Response:
        self._registry.get(names[0]).remove_toxic(names[1])
        return NO_CONTENT

    async def _show_callers(self, request: Request, names: list[str]) -> Response:
        return answer(200, {"callers": self._registry.callers.as_json()})

    async def _set_callers(self, request: Request, names: list[str]) -> Response:
        found = self._registry.set_callers(read_json(request))
        return answer(200, {"callers": self._registry.callers.as_json(), "found": found})

    async def _events(self, request: Request, names: list[str]) -> Response:
        query = parse_qs(request.target.partition("?")[2])
        since = read_number(query, "since") or 0
        lines = [json.dumps(event) for event in self._registry.events.since(since, read_number(query, "limit"))]
        body = "".join(line + "\n" for line in lines).encode()
        return Response(status=200, body=body, content_type="application/x-ndjson")


def answer(status: int, value: object) -> Response:
    return Response(status=status, body=json.dumps(value).encode() + b"\n")


def error_json(error: ApiError) -> dict[str, Any]:
    return {"error": error.message, "status": error.status}


def read_json(request: Request) -> object:
    """The first JSON value of the body; like Go's decoder, whatever follows it is ignored."""
    try:
        text = request.body.decode().lstrip()
        if not text:
            raise bad_request_body("EOF")
        value: object = json.JSONDecoder().raw_decode(text)[0]
    except UnicodeDecodeError as error:
        raise bad_request_body(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise bad_request_body(f"not JSON: {error}") from None
    return value


def read_number(query: dict[str, list[str]], key: str) -> int | None:
    if key not in query:
        return None
    text = query[key][-1]
    if not text.isascii() or not text.isdigit():
        raise ApiError(f"query parameter {key} must be a whole number, not {text!r}", 400)
    return int(text)

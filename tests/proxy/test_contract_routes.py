"""Toxiproxy's HTTP API: what clients rely on holds for our server and for a real Toxiproxy alike."""

from __future__ import annotations

import socket
from typing import Any

import pytest

NO_SERVER = "127.0.0.1:1"


def create(server: Any, **fields: Any) -> Any:
    return server.ask("POST", "/proxies", {"name": "p", "listen": "127.0.0.1:0", "upstream": NO_SERVER} | fields)


def port_of(proxy: Any) -> int:
    return int(proxy["listen"].rpartition(":")[2])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_version_is_a_json_object_with_a_version(server: Any) -> None:
    answer = server.ask("GET", "/version")
    assert answer.status == 200
    assert isinstance(answer.json["version"], str)
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("path", ["/nothing", "/proxies/p/nothing", "/proxies/p/toxics/t/more", "/proxies/", "/"])
def test_unknown_paths_are_not_found(server: Any, path: str) -> None:
    assert server.ask("GET", path).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/proxies"), ("GET", "/reset"), ("GET", "/populate"), ("POST", "/version"), ("PUT", "/proxies/p")],
)
def test_wrong_methods_are_not_allowed(server: Any, method: str, path: str) -> None:
    assert server.ask(method, path).status == 405


def test_browsers_are_refused(server: Any) -> None:
    answer = server.ask("GET", "/proxies", User_Agent="Mozilla/5.0 (X11)")
    assert answer.status == 403
    assert answer.body == b"User agent not allowed\n"


def test_create_answers_the_proxy_with_its_real_port(server: Any) -> None:
    answer = create(server)
    assert answer.status == 201
    shown = {key: answer.json[key] for key in ("name", "upstream", "enabled", "toxics")}
    assert shown == {"name": "p", "upstream": NO_SERVER, "enabled": True, "toxics": []}
    assert port_of(answer.json) > 0
    assert listens(port_of(answer.json))


def test_create_disabled_does_not_listen(server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    answer = create(server, enabled=False, listen=f"127.0.0.1:{port}")
    assert answer.status == 201
    assert answer.json["enabled"] is False
    assert not listens(port)


def test_localhost_listens_on_ipv4(server: Any) -> None:
    assert create(server, listen="localhost:0").json["listen"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"name": ""}, 400, "missing required field: name"),
        ({"upstream": ""}, 400, "missing required field: upstream"),
        ({"name": None}, 400, "missing required field: name"),
    ],
)
def test_create_names_the_missing_field(server: Any, fields: dict[str, Any], status: int, error: str) -> None:
    answer = create(server, **fields)
    assert (answer.status, answer.json) == (status, {"error": error, "status": status})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"name": 5}', b'{"name":"a","upstream":"127.0.0.1:1"', b"nonsense"]
)
def test_bad_bodies_are_refused_with_a_reason(server: Any, body: bytes) -> None:
    answer = server.ask("POST", "/proxies", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("bad request body: ")
    assert answer.json["status"] == 400
    assert server.ask("GET", "/proxies").json == {}


def test_what_follows_the_json_value_is_ignored(server: Any) -> None:
    body = b'{"name":"p","listen":"127.0.0.1:0","upstream":"127.0.0.1:1"} trailing'
    assert server.ask("POST", "/proxies", body).status == 201


def test_a_second_proxy_of_one_name_is_a_conflict(server: Any) -> None:
    create(server)
    answer = create(server)
    assert (answer.status, answer.json) == (409, {"error": "proxy already exists", "status": 409})


def test_a_port_in_use_is_an_error_that_names_the_address(server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        answer = create(server, listen=address)
    assert answer.status == 500
    assert answer.json["error"] == f"listen tcp {address}: bind: address already in use"
    assert server.ask("GET", "/proxies").json == {}


def test_a_listen_address_without_port_is_an_error(server: Any) -> None:
    answer = create(server, listen="junk")
    assert answer.status == 500
    assert "missing port in address" in answer.json["error"]


def test_list_shows_every_proxy_by_name(server: Any) -> None:
    create(server, name="a")
    create(server, name="b")
    listed = server.ask("GET", "/proxies").json
    assert sorted(listed) == ["a", "b"]
    assert listed["a"]["name"] == "a"
    assert listed["a"]["toxics"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/proxies/x"),
        ("POST", "/proxies/x"),
        ("PATCH", "/proxies/x"),
        ("DELETE", "/proxies/x"),
        ("GET", "/proxies/x/toxics"),
        ("POST", "/proxies/x/toxics"),
        ("GET", "/proxies/x/toxics/t"),
        ("PATCH", "/proxies/x/toxics/t"),
        ("DELETE", "/proxies/x/toxics/t"),
    ],
)
def test_an_unknown_proxy_is_not_found(server: Any, method: str, path: str) -> None:
    answer = server.ask(method, path, {"type": "noop"})
    assert (answer.status, answer.json) == (404, {"error": "proxy not found", "status": 404})


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_disable_and_enable_keep_the_port(server: Any, method: str) -> None:
    port = port_of(create(server).json)
    answer = server.ask(method, "/proxies/p", {"enabled": False})
    assert (answer.status, answer.json["enabled"]) == (200, False)
    assert not listens(port)
    answer = server.ask(method, "/proxies/p", {"enabled": True})
    assert (answer.status, answer.json["enabled"], port_of(answer.json)) == (200, True, port)
    assert listens(port)


def test_an_update_with_bad_listen_changes_nothing(server: Any) -> None:
    before = create(server).json
    answer = server.ask("PATCH", "/proxies/p", {"listen": "junk"})
    assert answer.status == 500
    assert "missing port in address" in answer.json["error"]
    assert server.ask("GET", "/proxies/p").json == before


def test_delete_stops_listening(server: Any) -> None:
    port = port_of(create(server).json)
    answer = server.ask("DELETE", "/proxies/p")
    assert (answer.status, answer.body) == (204, b"")
    assert not listens(port)
    assert server.ask("GET", "/proxies/p").status == 404


def test_populate_creates_a_list(server: Any) -> None:
    wanted = [
        {"name": "a", "listen": "127.0.0.1:0", "upstream": NO_SERVER},
        {"name": "b", "listen": "127.0.0.1:0", "upstream": NO_SERVER, "enabled": False},
    ]
    answer = server.ask("POST", "/populate", wanted)
    assert answer.status == 201
    assert [(p["name"], p["enabled"]) for p in answer.json["proxies"]] == [("a", True), ("b", False)]


def test_populate_keeps_what_is_as_wanted_with_its_toxics(server: Any) -> None:
    listen = create(server).json["listen"]
    server.ask("POST", "/proxies/p/toxics", {"type": "noop"})
    wanted = [{"name": "p", "listen": listen, "upstream": NO_SERVER}]
    answer = server.ask("POST", "/populate", wanted)
    assert answer.status == 201
    assert [toxic["name"] for toxic in answer.json["proxies"][0]["toxics"]] == ["noop_downstream"]


def test_populate_replaces_what_differs(server: Any) -> None:
    listen = create(server).json["listen"]
    server.ask("POST", "/proxies/p/toxics", {"type": "noop"})
    answer = server.ask("POST", "/populate", [{"name": "p", "listen": listen, "upstream": "127.0.0.1:2"}])
    assert answer.status == 201
    replaced = answer.json["proxies"][0]
    assert (replaced["listen"], replaced["upstream"], replaced["toxics"]) == (listen, "127.0.0.1:2", [])


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ({"upstream": NO_SERVER}, "missing required field: name at proxy 2"),
        ({"name": "b"}, "missing required field: upstream at proxy 2"),
    ],
)
def test_populate_checks_all_before_it_creates_any(server: Any, second: dict[str, Any], error: str) -> None:
    first = {"name": "a", "listen": "127.0.0.1:0", "upstream": NO_SERVER}
    answer = server.ask("POST", "/populate", [first, second])
    assert answer.status == 400
    assert (answer.json["error"], answer.json["status"]) == (error, 400)
    assert server.ask("GET", "/proxies").json == {}


def test_populate_wants_a_list(server: Any) -> None:
    answer = server.ask("POST", "/populate", {"proxies": []})
    assert answer.status == 400
    assert answer.json["error"].startswith("bad request body: ")


def test_reset_enables_all_and_removes_all_toxics(server: Any) -> None:
    port = port_of(create(server).json)
    server.ask("POST", "/proxies/p/toxics", {"type": "latency"})
    server.ask("PATCH", "/proxies/p", {"enabled": False})
    answer = server.ask("POST", "/reset")
    assert (answer.status, answer.body) == (204, b"")
    shown = server.ask("GET", "/proxies/p").json
    assert (shown["enabled"], shown["toxics"]) == (True, [])
    assert listens(port)


@pytest.mark.parametrize(
    ("type_name", "attributes"),
    [
        ("noop", {}),
        ("latency", {"latency": 0, "jitter": 0}),
        ("bandwidth", {"rate": 0}),
        ("slow_close", {"delay": 0}),
        ("timeout", {"timeout": 0}),
        ("reset_peer", {"timeout": 0}),
        ("slicer", {"average_size": 0, "size_variation": 0, "delay": 0}),
        ("limit_data", {"bytes": 0}),
    ],
)
def test_each_type_has_its_defaults(server: Any, type_name: str, attributes: dict[str, int]) -> None:
    create(server)
    answer = server.ask("POST", "/proxies/p/toxics", {"type": type_name})
    assert answer.status == 200
    assert answer.json == {
        "attributes": attributes,
        "name": f"{type_name}_downstream",
        "type": type_name,
        "stream": "downstream",
        "toxicity": 1,
    }
    assert server.ask("GET", f"/proxies/p/toxics/{type_name}_downstream").json == answer.json
    assert server.ask("GET", "/proxies/p/toxics").json == [answer.json]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"type": "nothing"}, "invalid toxic type"),
        ({}, "invalid toxic type"),
        (
            {"type": "latency", "stream": "sideways"},
            "stream was invalid, can be either upstream or downstream",
        ),
    ],
)
def test_bad_toxics_are_refused(server: Any, body: dict[str, Any], error: str) -> None:
    create(server)
    answer = server.ask("POST", "/proxies/p/toxics", body)
    assert (answer.status, answer.json) == (400, {"error": error, "status": 400})
    assert server.ask("GET", "/proxies/p/toxics").json == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"type":"latency","attributes":{"latency":"long"}}',
        b'{"type":"latency","attributes":{"latency":1.5}}',
        b'{"type":"latency","attributes":[]}',
        b'{"type":"latency","toxicity":"high"}',
    ],
)
def test_bad_toxic_bodies_are_refused_with_a_reason(server: Any, body: bytes) -> None:
    create(server)
    answer = server.ask("POST", "/proxies/p/toxics", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("bad request body: ")
    assert server.ask("GET", "/proxies/p/toxics").json == []


def test_two_toxics_of_one_name_are_a_conflict(server: Any) -> None:
    create(server)
    server.ask("POST", "/proxies/p/toxics", {"type": "noop", "name": "t"})
    answer = server.ask("POST", "/proxies/p/toxics", {"type": "latency", "name": "t", "stream": "upstream"})
    assert (answer.status, answer.json) == (409, {"error": "toxic already exists", "status": 409})


def test_unknown_attributes_are_ignored(server: Any) -> None:
    create(server)
    answer = server.ask("POST", "/proxies/p/toxics", {"type": "latency", "attributes": {"latency": 1, "x": 2}})
    assert answer.json["attributes"] == {"latency": 1, "jitter": 0}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_update_changes_attributes_and_toxicity_only(server: Any, method: str) -> None:
    create(server)
    server.ask("POST", "/proxies/p/toxics", {"type": "latency", "name": "t", "attributes": {"latency": 5}})
    changes = {"attributes": {"jitter": 7}, "toxicity": 0.5, "type": "noop", "stream": "upstream", "name": "u"}
    answer = server.ask(method, "/proxies/p/toxics/t", changes)
    assert answer.status == 200
    assert answer.json == {
        "attributes": {"latency": 5, "jitter": 7},
        "name": "t",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 0.5,
    }


def test_unknown_toxics_are_not_found(server: Any) -> None:
    create(server)
    for method in ("GET", "POST", "PATCH", "DELETE"):
        answer = server.ask(method, "/proxies/p/toxics/t", {})
        assert (answer.status, answer.json) == (404, {"error": "toxic not found", "status": 404})


def test_a_deleted_toxic_is_gone(server: Any) -> None:
    create(server)
    server.ask("POST", "/proxies/p/toxics", {"type": "noop", "name": "t"})
    answer = server.ask("DELETE", "/proxies/p/toxics/t")
    assert (answer.status, answer.body) == (204, b"")
    assert server.ask("GET", "/proxies/p/toxics").json == []


def test_toxics_are_listed_upstream_first(server: Any) -> None:
    create(server)
    for stream in ("downstream", "upstream"):
        server.ask("POST", "/proxies/p/toxics", {"type": "noop", "stream": stream})
    names = [toxic["name"] for toxic in server.ask("GET", "/proxies/p").json["toxics"]]
    assert names == ["noop_upstream", "noop_downstream"]


def test_metrics_are_prometheus_text(server: Any) -> None:
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")

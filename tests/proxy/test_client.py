"""ProxyClient against our server and a real Toxiproxy."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from seatrial.cluster.proxy.client import ProxyClient, ProxyError


@pytest.fixture
def client(server: Any) -> ProxyClient:
    return ProxyClient(f"http://{server.host}:{server.port}")


NO_SERVER = "127.0.0.1:1"


def test_it_knows_ours_from_a_real_toxiproxy(server: Any, client: ProxyClient) -> None:
    assert asyncio.run(client.version()).ours == (server.kind != "toxiproxy")


def test_it_creates_updates_and_deletes_proxies(server: Any, client: ProxyClient) -> None:
    async def scenario() -> None:
        created = await client.create("n1->n2", "127.0.0.1:0", NO_SERVER)
        assert created["listen"].startswith("127.0.0.1:")
        await client.disable("n1->n2")
        assert (await client.proxy("n1->n2"))["enabled"] is False
        await client.enable("n1->n2")
        assert (await client.proxies())["n1->n2"]["enabled"] is True
        await client.delete("n1->n2")
        assert await client.proxies() == {}
        wanted = {"name": "a", "listen": "127.0.0.1:0", "upstream": NO_SERVER}
        assert [p["name"] for p in await client.populate([wanted])] == ["a"]
        assert await client.populate([]) == []

    asyncio.run(scenario())


def test_it_adds_updates_and_removes_toxics(server: Any, client: ProxyClient) -> None:
    async def scenario() -> None:
        await client.create("p", "127.0.0.1:0", NO_SERVER)
        added = await client.add_toxic("p", "latency", "upstream", {"latency": 5}, toxicity=0.5)
        assert (added["name"], added["toxicity"]) == ("latency_upstream", 0.5)
        updated = await client.update_toxic("p", "latency_upstream", {"jitter": 2})
        assert updated["attributes"] == {"latency": 5, "jitter": 2}
        assert [toxic["name"] for toxic in await client.toxics("p")] == ["latency_upstream"]
        await client.remove_toxic("p", "latency_upstream")
        await client.add_toxic("p", "noop", "downstream", name="mine")
        await client.reset()
        assert await client.toxics("p") == []

    asyncio.run(scenario())


def test_a_refusal_carries_the_servers_words(server: Any, client: ProxyClient) -> None:
    with pytest.raises(ProxyError, match="404 proxy not found") as caught:
        asyncio.run(client.proxy("none"))
    assert caught.value.status == 404
    assert caught.value.definite


def test_an_ignored_attribute_is_an_error_and_leaves_no_toxic(server: Any, client: ProxyClient) -> None:
    async def scenario() -> None:
        await client.create("p", "127.0.0.1:0", NO_SERVER)
        with pytest.raises(ProxyError, match="does not know latnecy"):
            await client.add_toxic("p", "latency", "upstream", {"latnecy": 5})
        assert await client.toxics("p") == []

    asyncio.run(scenario())


def test_a_cut_is_a_hold_or_what_comes_nearest(server: Any, client: ProxyClient, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    near, far = link.connect()
    toxic = asyncio.run(client.cut(link.name, "upstream", name="cut"))
    assert toxic["type"] == ("timeout" if server.kind == "toxiproxy" else "hold")
    near.sendall(b"x")
    assert tools.silent(far, 0.05)
    asyncio.run(client.remove_toxic(link.name, "cut"))
    assert far.recv(1) == (b"" if server.kind == "toxiproxy" else b"x")


def test_evidence_callers_events_and_resets(ours: Any, make_link: Any) -> None:
    client = ProxyClient(f"{ours.host}:{ours.port}")
    link = make_link(ours)
    link.connect()

    async def scenario() -> None:
        assert (await client.counters(link.name))["connections_accepted"] == 1
        assert await client.set_callers({"nobody": [2**30]}) == 0
        assert (await client.events())[-1]["event"] == "callers_set"
        assert await client.reset_connections(link.name, caller="nobody") == 0
        assert await client.reset_connections(link.name) == 1
        assert "seatrial_proxy_connections" in await client.metrics()

    asyncio.run(scenario())


def test_no_server_is_an_error_that_says_so() -> None:
    client = ProxyClient(NO_SERVER)
    with pytest.raises(ProxyError, match=r"cannot talk to 127.0.0.1:1") as caught:
        asyncio.run(client.version())
    assert caught.value.definite
    with pytest.raises(ProxyError, match=r"not ready after 0\.05 s; last seen: GET /version"):
        asyncio.run(client.wait_until_ready(0.05))


def test_a_silent_server_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ProxyClient(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)
        with pytest.raises(ProxyError, match=r"no answer from .* within 0\.05 s") as caught:
            asyncio.run(client.proxies())
        assert not caught.value.definite


def test_an_address_without_port_is_refused() -> None:
    with pytest.raises(ValueError, match="host:port"):
        ProxyClient("localhost")

"""An existing Toxiproxy client, PyPI's toxiproxy-python, drives our server and a real one without noticing."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists


@pytest.fixture
def toxiproxy(server: Any) -> Toxiproxy:
    client = Toxiproxy()
    client.update_api_consumer(server.host, server.port)
    return client


@pytest.fixture
def upstream() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


def address(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def dial(proxy: Any) -> socket.socket:
    host, _, port = proxy.listen.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_it_finds_a_running_server_and_its_version(toxiproxy: Toxiproxy) -> None:
    assert toxiproxy.running()
    assert b'"version"' in toxiproxy.version()


def test_it_creates_lists_and_destroys_proxies(toxiproxy: Toxiproxy, upstream: socket.socket) -> None:
    created = toxiproxy.create(name="one", upstream=address(upstream))
    assert (created.name, created.enabled) == ("one", True)
    assert toxiproxy.get_proxy("one").listen == created.listen
    with pytest.raises(ProxyExists):
        toxiproxy.create(name="one", upstream=address(upstream))
    assert toxiproxy.destroy(created)
    assert toxiproxy.get_proxy("one") is None
    with pytest.raises(NotFound):
        created.destroy()


def test_it_populates_and_destroys_all(toxiproxy: Toxiproxy, upstream: socket.socket) -> None:
    wanted = [{"name": name, "upstream": address(upstream), "listen": "127.0.0.1:0"} for name in ("one", "two")]
    assert [proxy.name for proxy in toxiproxy.populate(wanted)] == ["one", "two"]
    toxiproxy.destroy_all()
    assert toxiproxy.proxies() == {}


def test_it_adds_and_removes_toxics(toxiproxy: Toxiproxy, upstream: socket.socket) -> None:
    proxy = toxiproxy.create(name="one", upstream=address(upstream))
    proxy.add_toxic(type="latency", attributes={"latency": 5, "jitter": 1}, toxicity=0.5)
    toxic = proxy.get_toxic("latency_downstream")
    assert (toxic.type, toxic.stream, toxic.toxicity) == ("latency", "downstream", 0.5)
    assert toxic.attributes == {"latency": 5, "jitter": 1}
    with pytest.raises(ProxyExists):
        proxy.add_toxic(type="latency")
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="nothing")
    proxy.destroy_toxic("latency_downstream")
    assert proxy.toxics() == {}


def test_it_takes_a_proxy_down_and_up_again(toxiproxy: Toxiproxy, upstream: socket.socket) -> None:
    proxy = toxiproxy.create(name="one", upstream=address(upstream))
    with proxy.down(), pytest.raises(ConnectionRefusedError):
        dial(proxy)
    dial(proxy).close()


def test_reset_removes_its_toxics(toxiproxy: Toxiproxy, upstream: socket.socket) -> None:
    proxy = toxiproxy.create(name="one", upstream=address(upstream))
    proxy.add_toxic(type="timeout")
    proxy.disable()
    assert toxiproxy.reset()
    assert toxiproxy.get_proxy("one").enabled
    assert proxy.toxics() == {}


@pytest.mark.slow
def test_its_latency_is_felt(toxiproxy: Toxiproxy, upstream: socket.socket) -> None:
    proxy = toxiproxy.create(name="one", upstream=address(upstream))
    proxy.add_toxic(type="latency", stream="upstream", attributes={"latency": 200})
    with dial(proxy) as client, upstream.accept()[0] as server:
        began = time.monotonic()
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert time.monotonic() - began >= 0.199

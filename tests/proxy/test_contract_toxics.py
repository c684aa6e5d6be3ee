"""What each of Toxiproxy's toxics does to bytes, on our server and on a real Toxiproxy alike."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BLOCK = bytes(range(256)) * 256  # 64 KiB


def test_bytes_pass_both_ways_unchanged(server: Any, make_link: Any, tools: Any) -> None:
    client, upstream = make_link(server).connect()
    client.sendall(BLOCK)
    assert tools.read_exactly(upstream, len(BLOCK)) == BLOCK
    upstream.sendall(BLOCK[::-1])
    assert tools.read_exactly(client, len(BLOCK)) == BLOCK[::-1]


def test_a_close_is_passed_on_to_the_server(server: Any, make_link: Any, tools: Any) -> None:
    client, upstream = make_link(server).connect()
    client.sendall(b"last words")
    client.close()
    assert tools.read_exactly(upstream, 100) == b"last words"


def test_a_close_is_passed_on_to_the_client(server: Any, make_link: Any, tools: Any) -> None:
    client, upstream = make_link(server).connect()
    upstream.sendall(b"last words")
    upstream.close()
    assert tools.read_exactly(client, 100) == b"last words"


def test_a_client_of_a_dead_upstream_is_disconnected(server: Any, make_link: Any) -> None:
    link = make_link(server)
    link.upstream.close()
    # Ours resets: closer to the refusal that the client would have met without a proxy.
    with contextlib.suppress(ConnectionResetError):
        assert link.dial().recv(1) == b""


def test_noop_changes_nothing(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("noop", "upstream")
    client, upstream = link.connect()
    client.sendall(BLOCK)
    assert tools.read_exactly(upstream, len(BLOCK)) == BLOCK


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_latency_delays_one_stream_only(server: Any, make_link: Any, stream: str) -> None:
    link = make_link(server)
    client, upstream = link.connect()
    link.add("latency", stream, latency=150)
    began = time.monotonic()
    client.sendall(b"x")
    upstream.recv(1)
    there = time.monotonic() - began
    began = time.monotonic()
    upstream.sendall(b"y")
    client.recv(1)
    back = time.monotonic() - began
    slow, fast = (there, back) if stream == "upstream" else (back, there)
    assert slow >= 0.149
    assert fast < 0.149


def test_latency_does_not_limit_throughput(server: Any, make_link: Any, tools: Any) -> None:
    """16 chunks that enter 20 ms apart leave 20 ms apart: 0.3 s + one latency, not 16 latencies."""
    link = make_link(server)
    link.add("latency", "upstream", latency=200)
    client, upstream = link.connect()
    began = time.monotonic()
    for _ in range(16):
        client.sendall(b"x" * 1000)
        time.sleep(0.02)
    assert tools.read_exactly(upstream, 16_000) == b"x" * 16_000
    assert time.monotonic() - began < 1.5


def test_latency_updates_act_on_live_connections(server: Any, make_link: Any) -> None:
    link = make_link(server)
    path = link.add("latency", "upstream", latency=5000)
    client, upstream = link.connect()
    server.ask("PATCH", path, {"attributes": {"latency": 100}})
    began = time.monotonic()
    client.sendall(b"x")
    upstream.recv(1)
    assert 0.099 <= time.monotonic() - began < 2


def test_removed_latency_delays_no_more(server: Any, make_link: Any) -> None:
    link = make_link(server)
    path = link.add("latency", "upstream", latency=5000)
    client, upstream = link.connect()
    link.remove(path)
    began = time.monotonic()
    client.sendall(b"x")
    upstream.recv(1)
    assert time.monotonic() - began < 1


def test_bandwidth_is_in_thousands_of_bytes_a_second(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("bandwidth", "upstream", rate=200)
    client, upstream = link.connect()
    began = time.monotonic()
    client.sendall(b"x" * 100_000)
    assert len(tools.read_exactly(upstream, 100_000)) == 100_000
    assert 0.4 <= time.monotonic() - began < 1.5


def test_bandwidth_of_nothing_lets_nothing_pass(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("bandwidth", "upstream")
    client, upstream = link.connect()
    client.sendall(b"x")
    assert tools.silent(upstream, 0.25)


def test_slow_close_delays_the_end_but_not_the_bytes(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("slow_close", "upstream", delay=300)
    client, upstream = link.connect()
    began = time.monotonic()
    client.sendall(b"bye")
    client.close()
    assert tools.read_exactly(upstream, 3) == b"bye"
    assert time.monotonic() - began < 0.25
    assert upstream.recv(1) == b""
    assert time.monotonic() - began >= 0.299


def test_timeout_drops_bytes_and_then_closes(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("timeout", "upstream", timeout=300)
    began = time.monotonic()
    client, upstream = link.connect()
    client.sendall(b"lost")
    assert tools.read_exactly(upstream, 100) == b""
    assert time.monotonic() - began >= 0.29
    with contextlib.suppress(ConnectionResetError):  # where the proxy had unread bytes
        assert client.recv(1) == b""


def test_timeout_zero_drops_until_removed_and_then_closes(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    client, upstream = link.connect()
    path = link.add("timeout", "upstream", timeout=0)
    client.sendall(b"lost")
    assert tools.silent(upstream, 0.2)
    link.remove(path)
    assert tools.read_exactly(upstream, 100) == b""


def test_reset_peer_sends_an_rst(server: Any, make_link: Any) -> None:
    link = make_link(server)
    link.add("reset_peer", "upstream", timeout=100)
    began = time.monotonic()
    client, upstream = link.connect()
    client.sendall(b"x")
    with pytest.raises(ConnectionResetError):
        upstream.recv(1)
    assert time.monotonic() - began >= 0.099


def test_slicer_keeps_every_byte_in_order(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("slicer", "upstream", average_size=500, size_variation=100, delay=10)
    client, upstream = link.connect()
    client.sendall(BLOCK)
    assert tools.read_exactly(upstream, len(BLOCK)) == BLOCK


def test_slicer_waits_between_slices(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("slicer", "upstream", average_size=100, size_variation=10, delay=30_000)
    client, upstream = link.connect()
    began = time.monotonic()
    client.sendall(b"x" * 1000)
    first = upstream.recv(1000)
    assert 0 < len(first) < 500
    assert len(tools.read_exactly(upstream, 1000 - len(first))) == 1000 - len(first)
    assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize("sent", [10, 50, 100])
def test_limit_data_passes_exactly_so_many_bytes(server: Any, make_link: Any, tools: Any, sent: int) -> None:
    link = make_link(server)
    link.add("limit_data", "upstream", bytes=50)
    client, upstream = link.connect()
    client.sendall(b"x" * sent)
    if sent < 50:
        assert tools.read_exactly(upstream, sent) == b"x" * sent
        assert tools.silent(upstream, 0.1)
    else:
        assert tools.read_exactly(upstream, 1000) == b"x" * 50


def test_limit_data_counts_over_all_chunks(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("limit_data", "upstream", bytes=5)
    client, upstream = link.connect()
    client.sendall(b"abc")
    assert tools.read_exactly(upstream, 3) == b"abc"
    client.sendall(b"defg")
    assert tools.read_exactly(upstream, 100) == b"de"


def test_toxicity_zero_never_acts(server: Any, make_link: Any) -> None:
    link = make_link(server)
    link.add("timeout", "upstream", toxicity=0)
    for _ in range(5):
        client, upstream = link.connect()
        client.sendall(b"x")
        assert upstream.recv(1) == b"x"


def test_toxicity_is_rolled_for_each_connection(server: Any, make_link: Any) -> None:
    link = make_link(server)
    link.add("limit_data", "upstream", toxicity=0.5, bytes=1)
    cut = 0
    for _ in range(60):
        client, upstream = link.connect()
        client.sendall(b"xy")
        got = upstream.recv(1) + upstream.recv(1)
        cut += got == b"x"
        client.close()
        upstream.close()
    assert 10 <= cut <= 50  # outside this once in ten million


def test_toxics_of_one_stream_are_chained(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    link.add("latency", "upstream", latency=100)
    link.add("limit_data", "upstream", bytes=2)
    client, upstream = link.connect()
    began = time.monotonic()
    client.sendall(b"abc")
    assert tools.read_exactly(upstream, 100) == b"ab"
    assert time.monotonic() - began >= 0.099


def test_disabling_closes_connections(server: Any, make_link: Any) -> None:
    link = make_link(server)
    client, upstream = link.connect()
    server.ask("POST", link.path, {"enabled": False})
    assert client.recv(1) == b""
    assert upstream.recv(1) == b""


def test_a_new_upstream_takes_over_and_old_connections_end(server: Any, make_link: Any) -> None:
    link, other = make_link(server), make_link(server, "other")
    client, _ = link.connect()
    target = f"127.0.0.1:{other.upstream.getsockname()[1]}"
    shown = server.ask("POST", link.path, {"upstream": target}).json
    assert shown["listen"] == f"127.0.0.1:{link.port}"
    assert client.recv(1) == b""
    again = link.dial()
    again.sendall(b"x")
    assert other.accept().recv(1) == b"x"


def test_metrics_count_bytes(server: Any, make_link: Any, tools: Any) -> None:
    link = make_link(server)
    client, upstream = link.connect()
    client.sendall(b"12345")
    client.close()
    assert tools.read_exactly(upstream, 10) == b"12345"
    upstream.close()
    wanted = 'toxiproxy_proxy_received_bytes_total{direction="upstream",'

    def counted() -> bool:
        # A real Toxiproxy registers its collectors anew for each scrape, and panics at the second.
        try:
            lines = server.ask("GET", "/metrics").body.decode().splitlines()
        except OSError:
            pytest.skip("this Toxiproxy cannot be scraped twice")
        return any(line.startswith(wanted) and float(line.split()[-1]) == 5 for line in lines)

    tools.until(counted)

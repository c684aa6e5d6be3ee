"""What our server adds to Toxiproxy, and the defects of Toxiproxy that it does not repeat, over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from typing import Any

import pytest

NO_PROCESS = 2**30  # above every pid_max
CHILD = """
import socket, sys
connected = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connected.sendall(sys.argv[2].encode())
print("sent", flush=True)
sys.stdin.read()
"""


def test_hold_keeps_bytes_of_live_connections_and_delivers_them_in_order(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    client, upstream = link.connect()
    path = link.add("hold", "upstream")
    client.sendall(b"one")
    client.sendall(b"two")
    tools.until(lambda: link.counters()["toxics"]["hold_upstream"]["bytes_kept_now"] == 6, link.counters)
    upstream.sendall(b"other way")
    assert tools.read_exactly(client, 9) == b"other way"
    assert tools.silent(upstream, 0.02)
    link.remove(path)
    assert tools.read_exactly(upstream, 6) == b"onetwo"


def test_hold_accepts_new_connections_and_connects_them_when_it_ends(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    path = link.add("hold", "upstream")
    client = link.dial()
    client.sendall(b"early")
    tools.until(lambda: link.counters()["upstream"]["bytes_received"] == 5, link.counters)
    link.upstream.setblocking(False)
    with pytest.raises(BlockingIOError):
        link.upstream.accept()
    link.upstream.settimeout(10)
    link.remove(path)
    assert tools.read_exactly(link.accept(), 5) == b"early"


def test_a_client_that_gives_up_during_a_hold_never_reaches_the_server(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    path = link.add("hold", "upstream")
    client = link.dial()
    client.sendall(b"stale")
    client.close()
    tools.until(lambda: link.counters()["connections_abandoned"] == 1, link.counters)
    link.remove(path)
    fresh, upstream = link.connect()
    fresh.sendall(b"fresh")
    assert tools.read_exactly(upstream, 5) == b"fresh"


def test_an_end_is_held_too(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    client, upstream = link.connect()
    path = link.add("hold", "upstream")
    client.sendall(b"bye")
    client.close()
    tools.until(lambda: link.counters()["toxics"]["hold_upstream"]["ends_held"] >= 1, link.counters)
    assert tools.silent(upstream, 0.02)
    link.remove(path)
    assert tools.read_exactly(upstream, 100) == b"bye"


def test_a_half_close_is_passed_on_as_one(ours: Any, make_link: Any, tools: Any) -> None:
    client, upstream = make_link(ours).connect()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert tools.read_exactly(upstream, 100) == b"question"
    upstream.sendall(b"answer")
    upstream.close()
    assert tools.read_exactly(client, 100) == b"answer"


@pytest.mark.parametrize("side", ["client", "upstream"])
def test_a_reset_is_passed_on_as_one(ours: Any, make_link: Any, side: str) -> None:
    ends = dict(zip(("client", "upstream"), make_link(ours).connect(), strict=True))
    dying = ends.pop(side)
    dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    dying.close()
    with pytest.raises(ConnectionResetError):
        ends.popitem()[1].recv(1)


def test_connections_that_ended_are_forgotten(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    for _ in range(5):
        client, upstream = link.connect()
        client.close()
        upstream.close()
    tools.until(lambda: link.counters()["connections_open_now"] == 0, link.counters)
    assert link.counters()["connections_accepted"] == 5


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_reset_peer_resets_live_idle_connections_on_both_sides(ours: Any, make_link: Any, stream: str) -> None:
    link = make_link(ours)
    ends = link.connect()
    link.add("reset_peer", stream)
    for end in ends:
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_reset_peer_meets_new_connections_with_an_rst(ours: Any, make_link: Any) -> None:
    link = make_link(ours)
    link.add("reset_peer")
    with pytest.raises(ConnectionResetError):
        link.dial().recv(1)


def test_reset_connections_resets_what_is_live_and_nothing_later(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    ends = link.connect()
    assert ours.ask("POST", f"{link.path}/reset_connections").json == {"reset": 1}
    for end in ends:
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    client, upstream = link.connect()
    client.sendall(b"x")
    assert upstream.recv(1) == b"x"
    assert link.counters()["connections_reset"] == 1


def test_half_open_leaves_the_server_with_a_dead_peer(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    client, upstream = link.connect()
    path = link.add("half_open", "upstream")
    client.close()
    upstream.sendall(b"into the void")
    assert tools.silent(upstream, 0.05)
    link.remove(path)
    with contextlib.suppress(ConnectionResetError):  # FIN or RST: as the client's kernel had it
        assert upstream.recv(1) == b""


def test_an_upstream_that_refuses_resets_the_client_and_is_counted(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    link.upstream.close()
    with pytest.raises(ConnectionResetError):
        link.dial().recv(1)
    assert link.counters()["connections_refused"] == 1
    events = [json.loads(line) for line in ours.ask("GET", "/events").body.splitlines()]
    refused = [event for event in events if event["event"] == "connection_refused"]
    assert "refused" in refused[-1]["reason"].lower()


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True], ids=["slow reader", "hold"])
def test_what_is_kept_is_bounded(ours: Any, make_link: Any, held: bool) -> None:
    link = make_link(ours)
    client, _upstream = link.connect()
    if held:
        link.add("hold", "upstream")
    client.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 256 * 2**20:
            sent += client.send(bytes(2**20))
    stream = link.counters()["upstream"]
    assert stream["bytes_received"] - stream["bytes_sent"] < 6 * 2**20
    assert sent < 64 * 2**20


def test_unknown_streams_and_wrong_callers_are_refused(ours: Any) -> None:
    answer = ours.ask("PUT", "/callers", {"n1": ["x"]})
    assert answer.status == 400
    assert "process id" in answer.json["error"]
    assert ours.ask("GET", "/callers").json == {"callers": {}}


def test_an_upstream_without_port_is_refused_at_once(ours: Any) -> None:
    answer = ours.ask("POST", "/proxies", {"name": "p", "upstream": "nowhere"})
    assert answer.status == 400
    assert "host:port" in answer.json["error"]


def test_names_may_hold_any_character(ours: Any) -> None:
    created = ours.ask("POST", "/proxies", {"name": "n1 -> n2/α", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"})
    assert created.status == 201
    path = "/proxies/n1%20-%3E%20n2%2F%CE%B1"
    assert ours.ask("GET", path).json["name"] == "n1 -> n2/α"
    assert ours.ask("DELETE", path).status == 204


class TestCallers:
    """Connections of one caller are told from another's by who owns the socket."""

    @pytest.fixture
    def child(self, request: pytest.FixtureRequest) -> Any:
        """Starts a process that connects through a link and sends one word."""
        started: list[subprocess.Popen[bytes]] = []

        def start(link: Any, word: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(link.port), word], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            started.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == b"sent\n"
            return process

        yield start
        for process in started:
            process.communicate(timeout=10)

    def test_a_toxic_acts_on_its_caller_only(self, ours: Any, make_link: Any, tools: Any) -> None:
        link = make_link(ours)
        ours.ask("PUT", "/callers", {"me": os.getpid(), "other": [NO_PROCESS]})
        link.add("hold", "upstream", caller="other")
        client, upstream = link.connect()
        client.sendall(b"x")
        assert upstream.recv(1) == b"x"
        path = link.add("hold", "upstream", caller="me")
        client.sendall(b"y")
        assert tools.silent(upstream, 0.02)
        link.remove(path)
        assert upstream.recv(1) == b"y"
        assert link.counters()["callers"] == {"me": 1}
        assert link.counters()["callers_unknown"] == 0

    def test_a_connection_from_before_is_identified_later(self, ours: Any, make_link: Any, tools: Any) -> None:
        link = make_link(ours)
        client, upstream = link.connect()
        link.add("hold", "upstream", caller="me")
        client.sendall(b"x")
        assert upstream.recv(1) == b"x"
        assert ours.ask("PUT", "/callers", {"me": [os.getpid()]}).json["found"] == 1
        client.sendall(b"y")
        assert tools.silent(upstream, 0.02)

    def test_an_unknown_caller_is_counted(self, ours: Any, make_link: Any) -> None:
        link = make_link(ours)
        ours.ask("PUT", "/callers", {"other": [NO_PROCESS]})
        link.connect()
        assert link.counters()["callers_unknown"] == 1

    @pytest.mark.slow
    def test_a_caller_that_restarts_is_known_by_its_new_process(self, ours: Any, make_link: Any, child: Any) -> None:
        link = make_link(ours)
        for word in (b"first", b"again"):
            process = child(link, word.decode())
            ours.ask("PUT", "/callers", {"node": [process.pid], "me": [os.getpid()]})
            assert link.accept().recv(10) == word
            process.communicate(timeout=10)
        assert link.counters()["callers"] == {"node": 2}

    @pytest.mark.slow
    def test_a_child_of_a_known_process_counts_as_the_caller(self, ours: Any, make_link: Any, child: Any) -> None:
        link = make_link(ours)
        ours.ask("PUT", "/callers", {"harness": [os.getpid()]})
        child(link, "hello")
        assert link.accept().recv(10) == b"hello"
        assert link.counters()["callers"] == {"harness": 1}

    @pytest.mark.slow
    def test_resets_can_name_a_caller(self, ours: Any, make_link: Any, child: Any) -> None:
        link = make_link(ours)
        process = child(link, "x")
        theirs = link.accept()
        _, mine = link.connect()
        ours.ask("PUT", "/callers", {"node": [process.pid], "me": [os.getpid()]})
        assert ours.ask("POST", f"{link.path}/reset_connections", {"caller": "node"}).json == {"reset": 1}
        assert theirs.recv(1) == b"x"
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)
        mine.settimeout(0.02)
        with pytest.raises(TimeoutError):
            mine.recv(1)


def test_events_tell_the_story_in_order(ours: Any, make_link: Any, tools: Any) -> None:
    last = [json.loads(line)["sequence"] for line in ours.ask("GET", "/events").body.splitlines()][-1]
    link = make_link(ours)
    client, _upstream = link.connect()
    path = link.add("hold", "upstream")
    client.sendall(b"abc")
    tools.until(lambda: link.counters()["toxics"]["hold_upstream"]["bytes_held"] == 3, link.counters)
    link.remove(path)
    ours.ask("POST", f"{link.path}/reset_connections")
    told = [json.loads(line) for line in ours.ask("GET", f"/events?since={last}").body.splitlines()]
    assert [event["event"] for event in told] == [
        "proxy_started",
        "proxy_created",
        "connection_opened",
        "toxic_added",
        "toxic_removed",
        "connection_reset",
        "connection_closed",
    ]
    assert [event["sequence"] for event in told] == list(range(last + 1, last + 8))
    assert told[4]["counters"]["bytes_held"] == 3
    assert told[4]["counters"]["connections_affected"] == 1
    assert ours.ask("GET", f"/events?since={last}&limit=1").body.count(b"\n") == 1
    assert ours.ask("GET", "/events?since=x").status == 400


def test_evidence_outlives_its_toxic_and_adds_up(ours: Any, make_link: Any, tools: Any) -> None:
    link = make_link(ours)
    client, upstream = link.connect()
    for round_number in (1, 2):
        path = link.add("hold", "upstream")
        client.sendall(b"abc")
        held = 3 * round_number
        tools.until(lambda held=held: link.counters()["toxics"]["hold_upstream"]["bytes_held"] == held, link.counters)
        link.remove(path)
    assert tools.read_exactly(upstream, 6) == b"abcabc"
    assert link.counters()["toxics"]["hold_upstream"]["bytes_kept_now"] == 0


def test_a_toxic_that_met_no_bytes_has_not_bitten(ours: Any, make_link: Any) -> None:
    link = make_link(ours)
    link.connect()
    link.remove(link.add("hold", "upstream"))
    evidence = link.counters()["toxics"]["hold_upstream"]
    assert (evidence["connections_matched"], evidence["connections_affected"]) == (1, 0)


@pytest.mark.slow
def test_one_seed_decides_which_connections_a_toxicity_hits(start_proxy: Any, make_link: Any) -> None:
    def hits(seed: str) -> list[bool]:
        process, server = start_proxy("--seed", seed)
        try:
            link = make_link(server)
            link.add("limit_data", "upstream", toxicity=0.5, bytes=1)
            outcome = []
            for _ in range(20):
                client, upstream = link.connect()
                client.sendall(b"xy")
                outcome.append(upstream.recv(1) + upstream.recv(1) == b"x")
            return outcome
        finally:
            link.close()
            link.server = _Gone()
            process.terminate()
            process.communicate(timeout=10)

    first = hits("7")
    assert hits("7") == first != hits("8")
    assert True in first
    assert False in first


class _Gone:
    """Stands for a server that the test itself has ended."""

    def ask(self, *_: object) -> None: ...


def test_a_garbage_request_gets_400_and_disturbs_nobody(ours: Any, tools: Any) -> None:
    with socket.create_connection((ours.host, ours.port), timeout=10) as rude:
        rude.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert tools.read_exactly(rude, 4096).startswith(b"HTTP/1.1 400 ")
    assert ours.ask("GET", "/version").status == 200


def test_an_oversized_header_or_body_gets_413(ours: Any, tools: Any) -> None:
    for request in (
        b"GET /version HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /proxies HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n" + bytes(17_000_000),
    ):
        with socket.create_connection((ours.host, ours.port), timeout=10) as rude:
            try:
                rude.sendall(request)
                answer = tools.read_exactly(rude, 12)
            except (ConnectionResetError, BrokenPipeError):
                continue  # refused before all was read: the answer may be lost to the reset
            assert answer == b"HTTP/1.1 413"


def test_pipelined_and_chunked_requests_are_answered_in_order(ours: Any, tools: Any) -> None:
    with socket.create_connection((ours.host, ours.port), timeout=10) as client:
        chunked = b"POST /populate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
        client.sendall(
            chunked + b"GET /proxies/none HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        answers = tools.read_exactly(client, 10_000)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"201", b"404", b"404"]

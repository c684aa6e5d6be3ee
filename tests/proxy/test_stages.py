"""Toxics over memory streams and a virtual clock: exact times, no sockets, no waiting."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.cluster.proxy.counters import StreamCounters
from seatrial.cluster.proxy.link import Link
from seatrial.cluster.proxy.stages import End, Stage
from seatrial.cluster.proxy.toxic import TYPES, Toxic, toxic_from_json
from seatrial.env import Rng


class Call:
    """One timer of the virtual clock."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualTime:
    """An event loop's timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Call]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> Call:
        call = Call(lambda: callback(*args))
        heapq.heappush(self._calls, (when, next(self._order), call))
        return call

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            when, _, call = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            if call.callback is not None:
                call.callback()
        self.now = until


class Transport:
    """A fake of the two things a link asks of a socket: to take bytes, and to stop reading."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time
        self.reading = True
        self.written: list[tuple[float, bytes]] = []

    def write(self, data: bytes) -> None:
        self.written.append((round(self._time.now - 100, 6), data))

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed without a pause"
        self.reading = True


class Bench:
    """A link between two fake transports, with the toxics that a test puts on it."""

    def __init__(self, *bodies: dict[str, Any], seed: int = 1) -> None:
        self.time = VirtualTime()
        self.rng = Rng(seed)
        self.ended: list[tuple[float, End]] = []
        self.resets: list[tuple[float, str]] = []
        self.counters = StreamCounters()
        self.link = Link(owner=self, stream="upstream", counters=self.counters, timers=self.time)
        self.source, self.target = Transport(self.time), Transport(self.time)
        self.link.source = self.source  # type: ignore[assignment]
        self.link.target = self.target  # type: ignore[assignment]
        self.toxics = [toxic_from_json({"stream": "upstream"} | body) for body in bodies]
        self.sync()

    def sync(self) -> None:
        def make(toxic: Toxic) -> Stage:
            return toxic.stage(rng=self.rng, connection=1, host=self.link)

        self.link.sync(self.toxics, make)

    def add(self, **body: Any) -> Toxic:
        self.toxics.append(toxic_from_json({"stream": "upstream"} | body))
        self.sync()
        return self.toxics[-1]

    def remove(self, toxic: Toxic) -> None:
        self.toxics.remove(toxic)
        self.sync()

    def update(self, toxic: Toxic, **attributes: Any) -> None:
        toxic.update({"attributes": attributes})
        self.link.updated(toxic)

    def reset(self, cause: str) -> None:
        self.resets.append((round(self.time.now - 100, 6), cause))
        self.link.cancel()

    def link_ended(self, link: Link, how: End) -> None:
        self.ended.append((round(self.time.now - 100, 6), how))
        if how is End.CLOSE:
            self.link.cancel()

    def connect_if_allowed(self) -> None:
        """Nothing to connect: the fake target is there from the start."""

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.link.from_source(chunk)

    @property
    def got(self) -> list[tuple[float, bytes]]:
        return self.target.written

    @property
    def stream(self) -> bytes:
        return b"".join(data for _, data in self.got)


def test_latency_is_a_delay_line() -> None:
    bench = Bench({"type": "latency", "attributes": {"latency": 100}})
    bench.send(b"a")
    bench.time.advance(0.03)
    bench.send(b"b")
    bench.time.advance(1)
    assert bench.got == [(0.1, b"a"), (0.13, b"b")]
    assert bench.toxics[0].counters.bytes_delayed == 2


def test_latency_delays_the_end_behind_the_bytes() -> None:
    bench = Bench({"type": "latency", "attributes": {"latency": 100}})
    bench.send(b"a")
    bench.link.source_end(End.FIN)
    bench.time.advance(1)
    assert bench.got == [(0.1, b"a")]
    assert bench.ended == [(0.1, End.FIN)]


def test_jitter_stays_within_its_bounds_and_keeps_order() -> None:
    bench = Bench({"type": "latency", "attributes": {"latency": 100, "jitter": 50}})
    for number in range(200):
        bench.send(bytes([number]))
        bench.time.advance(1)
    delays = [when - number for number, (when, _) in enumerate(bench.got)]
    assert all(0.05 <= delay <= 0.15 for delay in delays)
    assert max(delays) - min(delays) > 0.08
    assert bench.stream == bytes(range(200))


def test_one_seed_gives_the_same_jitter_again_and_another_seed_another() -> None:
    def times(seed: int) -> list[float]:
        bench = Bench({"type": "latency", "attributes": {"latency": 100, "jitter": 50}}, seed=seed)
        for _ in range(5):
            bench.send(b"x")
            bench.time.advance(1)
        return [when for when, _ in bench.got]

    assert times(1) == times(1) != times(2)


def test_a_latency_update_moves_what_is_under_way() -> None:
    bench = Bench({"type": "latency", "attributes": {"latency": 10_000}})
    bench.send(b"a")
    bench.time.advance(0.05)
    bench.update(bench.toxics[0], latency=100)
    bench.time.advance(1)
    assert bench.got == [(0.1, b"a")]


def test_removing_latency_lets_go_what_is_under_way() -> None:
    bench = Bench({"type": "latency", "attributes": {"latency": 10_000}})
    bench.send(b"a", b"b")
    bench.remove(bench.toxics[0])
    bench.send(b"c")
    assert bench.got == [(0.0, b"a"), (0.0, b"b"), (0.0, b"c")]


def test_bandwidth_spreads_bytes_evenly() -> None:
    bench = Bench({"type": "bandwidth", "attributes": {"rate": 10}})
    bench.send(b"x" * 2500)
    bench.time.advance(10)
    assert [(when, len(data)) for when, data in bench.got] == [(0.1, 1000), (0.2, 1000), (0.25, 500)]


def test_bandwidth_is_not_saved_up_while_idle() -> None:
    bench = Bench({"type": "bandwidth", "attributes": {"rate": 10}})
    bench.time.advance(60)
    bench.send(b"x" * 1000)
    bench.time.advance(0.05)
    assert bench.got == []


def test_a_bandwidth_update_acts_on_kept_bytes() -> None:
    bench = Bench({"type": "bandwidth", "attributes": {"rate": 0}})
    bench.send(b"x" * 1000)
    bench.time.advance(60)
    assert bench.got == []
    bench.update(bench.toxics[0], rate=1000)
    bench.time.advance(0.01)
    assert bench.stream == b"x" * 1000


def test_slow_close_delays_only_the_end() -> None:
    bench = Bench({"type": "slow_close", "attributes": {"delay": 500}})
    bench.send(b"a")
    bench.link.source_end(End.FIN)
    assert bench.got == [(0.0, b"a")]
    bench.time.advance(1)
    assert bench.ended == [(0.5, End.FIN)]


def test_slices_have_the_size_asked_for() -> None:
    attributes = {"average_size": 100, "size_variation": 20, "delay": 1000}
    bench = Bench({"type": "slicer", "attributes": attributes})
    bench.send(b"x" * 10_000)
    bench.time.advance(10)
    sizes = [len(data) for _, data in bench.got]
    assert sum(sizes) == 10_000
    assert all(80 <= size <= 120 for size in sizes[:-1])
    assert len(set(sizes)) > 5
    assert [when for when, _ in bench.got] == pytest.approx([i / 1000 for i in range(len(sizes))], abs=0.0006)


def test_slicing_to_no_size_slices_nothing() -> None:
    bench = Bench({"type": "slicer"})
    bench.send(b"abc")
    bench.time.advance(0.001)
    assert bench.stream == b"abc"


def test_timeout_drops_everything_then_closes() -> None:
    bench = Bench({"type": "timeout", "attributes": {"timeout": 300}})
    bench.send(b"abc")
    bench.time.advance(0.2)
    bench.send(b"def")  # in Toxiproxy this would start the time again
    bench.time.advance(1)
    assert bench.got == []
    assert bench.ended == [(0.3, End.CLOSE)]
    assert bench.toxics[0].counters.bytes_dropped == 6


def test_a_timeout_update_counts_from_the_beginning() -> None:
    bench = Bench({"type": "timeout", "attributes": {"timeout": 0}})
    bench.time.advance(0.2)
    bench.update(bench.toxics[0], timeout=500)
    bench.time.advance(1)
    assert bench.ended == [(0.5, End.CLOSE)]


def test_reset_peer_resets_an_idle_connection() -> None:
    bench = Bench({"type": "reset_peer", "attributes": {"timeout": 250}})
    bench.time.advance(1)
    assert bench.resets == [(0.25, "toxic reset_peer_upstream")]


def test_reset_peer_removed_in_time_has_lost_nothing() -> None:
    bench = Bench({"type": "reset_peer", "attributes": {"timeout": 250}})
    bench.send(b"abc")
    bench.remove(bench.toxics[0])
    bench.time.advance(1)
    assert (bench.stream, bench.resets) == (b"abc", [])


def test_limit_data_remembers_across_updates() -> None:
    bench = Bench({"type": "limit_data", "attributes": {"bytes": 5}})
    bench.send(b"abc")
    bench.update(bench.toxics[0], bytes=7)
    bench.send(b"defghi", b"never")
    assert bench.stream == b"abcdefg"
    assert bench.ended == [(0.0, End.CLOSE)]


def test_limit_data_delivers_what_a_later_latency_keeps() -> None:
    bench = Bench(
        {"type": "limit_data", "attributes": {"bytes": 2}}, {"type": "latency", "attributes": {"latency": 100}}
    )
    bench.send(b"abc")
    bench.time.advance(1)
    assert bench.got == [(0.1, b"ab")]
    assert bench.ended == [(0.1, End.CLOSE)]


def test_hold_keeps_bytes_and_end_until_it_is_removed() -> None:
    bench = Bench({"type": "hold"})
    bench.send(b"a", b"b")
    bench.link.source_end(End.FIN)
    bench.time.advance(3600)
    assert (bench.got, bench.ended) == ([], [])
    counters = bench.toxics[0].counters
    assert (counters.bytes_held, counters.bytes_kept_now, counters.ends_held) == (2, 2, 1)
    bench.remove(bench.toxics[0])
    assert (bench.stream, bench.ended) == (b"ab", [(3600.0, End.FIN)])
    assert counters.bytes_kept_now == 0


def test_a_full_hold_stops_the_source_and_its_release_starts_it_again() -> None:
    bench = Bench({"type": "hold"})
    while bench.source.reading:
        bench.send(b"x" * 65536)
    kept = bench.toxics[0].counters.bytes_kept_now
    assert 4 * 2**20 < kept <= 4 * 2**20 + 65536
    bench.remove(bench.toxics[0])
    assert bench.source.reading
    assert len(bench.stream) == kept


def test_a_slow_target_stops_the_source() -> None:
    bench = Bench()
    bench.link.target_full = True
    bench.link.balance()
    assert not bench.source.reading
    bench.link.target_full = False
    bench.link.balance()
    assert bench.source.reading


def test_clog_holds_and_bursts_again_and_again() -> None:
    bench = Bench({"type": "clog", "attributes": {"duration": 100, "interval": 1000}})
    for _ in range(6):
        bench.time.advance(0.025)
        bench.send(b"x")  # at 25 ms, 225, 425, 625, 825, 1025
        bench.time.advance(0.175)
    times = [when for when, _ in bench.got]
    assert times == pytest.approx([0.1, 0.225, 0.425, 0.625, 0.825, 1.1], abs=0.0006)


def test_clog_without_interval_holds_once() -> None:
    bench = Bench({"type": "clog", "attributes": {"duration": 100}})
    bench.send(b"a", b"b")
    bench.time.advance(5)
    bench.send(b"c")
    assert bench.got == [(0.1, b"a"), (0.1, b"b"), (5.0, b"c")]


def test_a_stall_holds_up_what_comes_behind_it() -> None:
    bench = Bench({"type": "stall", "attributes": {"probability": 1.0, "duration": 200}})
    bench.send(b"lost")
    bench.time.advance(0.05)
    bench.update(bench.toxics[0], probability=0)
    assert bench.stream == b"lost", "a stall that is called off ends"
    bench.update(bench.toxics[0], probability=1.0)
    bench.send(b"again")
    bench.time.advance(0.1)
    bench.send(b"behind")
    bench.time.advance(0.05)
    assert bench.stream == b"lost"
    bench.time.advance(1)
    assert bench.stream == b"lostagainbehind"


def test_stalls_come_as_often_as_asked_for() -> None:
    bench = Bench({"type": "stall", "attributes": {"probability": 0.1, "duration": 200}})
    for _ in range(1000):
        bench.send(b"x")
        bench.time.advance(1)
    assert 60 <= bench.toxics[0].counters.bytes_delayed <= 140


def test_corruption_flips_one_bit_in_each_window() -> None:
    bench = Bench({"type": "corrupt", "attributes": {"bytes": 100}})
    bench.send(bytes(1000))
    flipped = [index for index, byte in enumerate(bench.stream) if byte]
    assert [index // 100 for index in flipped] == list(range(10))
    assert all(bench.stream[index].bit_count() == 1 for index in flipped)
    assert bench.toxics[0].counters.bits_flipped == 10


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_corruption_does_not_depend_on_how_bytes_were_cut(sizes: list[int]) -> None:
    whole, cut = (Bench({"type": "corrupt", "attributes": {"bytes": 50}}) for _ in range(2))
    whole.send(bytes(sum(sizes)))
    cut.send(*(bytes(size) for size in sizes))
    assert whole.stream == cut.stream


def test_half_open_swallows_the_end_until_removed() -> None:
    bench = Bench({"type": "half_open"})
    bench.send(b"a")
    bench.link.source_end(End.RST)
    assert (bench.stream, bench.ended) == (b"a", [])
    bench.remove(bench.toxics[0])
    assert bench.ended == [(0.0, End.RST)]


def test_removing_two_adjacent_toxics_keeps_order() -> None:
    bench = Bench({"type": "latency", "attributes": {"latency": 100}}, {"type": "hold"})
    bench.send(b"a")
    bench.time.advance(0.2)
    bench.send(b"b")
    bench.toxics.clear()
    bench.sync()
    assert bench.stream == b"ab"


KEEPING = ["noop", "latency", "bandwidth", "slow_close", "slicer", "hold", "clog", "stall"]
ATTRIBUTES = {
    "latency": 50,
    "jitter": 50,
    "rate": 3,
    "average_size": 7,
    "size_variation": 3,
    "delay": 20,
    "duration": 40,
    "interval": 90,
    "probability": 0.3,
}
STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 400)),
    st.tuples(st.just("add"), st.sampled_from(KEEPING)),
    st.tuples(st.just("remove"), st.integers(0, 7)),
    st.tuples(st.just("update"), st.integers(0, 7)),
    st.tuples(st.just("wait"), st.integers(1, 200)),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, min_size=8, max_size=40))
def test_no_change_of_toxics_loses_or_reorders_a_byte(steps: list[tuple[str, Any]]) -> None:
    """Whatever keeping toxics come, go and change while bytes are under way: all arrive once, in order."""
    bench = Bench()
    sent = bytearray()
    for number, (step, argument) in enumerate(steps):
        match step:
            case "send":
                chunk = bytes((len(sent) + i) % 251 for i in range(argument))
                sent += chunk
                bench.send(chunk)
            case "add":
                known = {key: value for key, value in ATTRIBUTES.items() if key in TYPES[argument].defaults}
                bench.add(type=argument, name=f"t{number}", attributes=known)
            case "remove" if bench.toxics:
                bench.remove(bench.toxics[argument % len(bench.toxics)])
            case "update" if bench.toxics:
                bench.update(bench.toxics[argument % len(bench.toxics)], **dict.fromkeys(ATTRIBUTES, 1))
            case "wait":
                bench.time.advance(argument / 1000)
    bench.link.source_end(End.FIN)
    bench.toxics.clear()
    bench.sync()
    assert bench.stream == bytes(sent)
    assert [how for _, how in bench.ended] == [End.FIN]
    assert bench.link.kept_bytes() == 0
    assert (bench.counters.bytes_received, bench.counters.bytes_sent) == (len(sent), len(sent))


@pytest.mark.parametrize("type_name", sorted(TYPES))
def test_every_type_survives_any_number(type_name: str) -> None:
    """Zero, negative and huge attributes: no exception, no endless loop."""
    for value in (0, -1, -(10**12), 10**12):
        attributes = dict.fromkeys(TYPES[type_name].defaults, value)
        bench = Bench({"type": type_name, "attributes": attributes})
        bench.send(b"x" * 300)
        bench.link.source_end(End.FIN)
        bench.time.advance(5)
        bench.toxics.clear()
        bench.sync()
        delivered = bench.stream == b"x" * 300
        assert delivered or bench.resets or bench.ended or type_name == "corrupt"


def test_toxicity_is_rolled_once_and_an_update_does_not_roll_again() -> None:
    toxic = toxic_from_json({"type": "noop", "toxicity": 0.5})
    rng = Rng(1)

    def acting() -> set[int]:
        return {n for n in range(200) if toxic.acts_on(rng=rng, connection=n, caller=None)}

    half = acting()
    assert 60 < len(half) < 140
    assert acting() == half
    toxic.update({"toxicity": 0.6})
    assert acting() > half


def test_a_toxic_with_a_caller_acts_on_that_caller_only() -> None:
    toxic = toxic_from_json({"type": "noop", "caller": "n1"})
    assert toxic.name == "noop_downstream_n1"
    acts = [toxic.acts_on(rng=Rng(1), connection=1, caller=caller) for caller in ("n1", "n2", None)]
    assert acts == [True, False, False]

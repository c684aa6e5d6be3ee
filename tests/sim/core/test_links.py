"""Links between nodes: their order, their damage, and what each fault of the network does to messages."""

from __future__ import annotations

from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import COMMAND, AppendEntries, Entry, Heartbeat, Message
from seatrial.sim.case import Network
from seatrial.sim.core.network import CoreNetwork, Effect
from seatrial.sim.world import World


def beat(number: int) -> Heartbeat:
    return Heartbeat(NodeId(1), NodeId(2), Term(1), Index(0), number)


class Bench:
    """Node 1 sends numbered heartbeats to node 2."""

    def __init__(self, settings: Network | None = None, seed: int = 1) -> None:
        self.world = World(seed)
        self.arrived: list[tuple[int, int]] = []  # (time, number)
        quiet = settings or Network(delay_us=(100, 1_000), tail=0)
        self.network = CoreNetwork(self.world, quiet, {1: self.take, 2: self.take})
        self.link = self.network.links[1, 2]

    def take(self, message: Message) -> None:
        assert isinstance(message, Heartbeat)
        self.arrived.append((self.world.now_us, message.read_round))

    def send(self, count: int, *, every_us: int = 50) -> None:
        for number in range(count):
            self.world.at(number * every_us, lambda number: self.link.send(beat(number)), number)
        self.world.run(60_000_000)

    def numbers(self) -> list[int]:
        return [number for _, number in self.arrived]

    def add(self, kind: str, value: float = 0) -> Effect:
        effect = Effect(kind, value)
        self.network.add(effect, [(1, 2)])
        return effect


def test_a_link_keeps_its_order_within_its_delays() -> None:
    bench = Bench()
    bench.send(200)
    assert bench.numbers() == list(range(200))
    late = [time - 50 * number for time, number in bench.arrived]
    assert min(late) >= 100
    assert max(late) <= 1_000


def test_the_delays_use_the_whole_range() -> None:
    bench = Bench()
    bench.send(500, every_us=2_000)
    late = [time - 2_000 * number for time, number in bench.arrived]
    assert min(late) < 150
    assert max(late) > 950


def test_the_tail_is_ten_times_as_long_and_more() -> None:
    bench = Bench(Network(delay_us=(100, 200), tail=0.05))
    bench.send(400, every_us=20_000)
    late = [time - 20_000 * number for time, number in bench.arrived]
    assert 5 <= sum(delay >= 1_000 for delay in late) <= 40
    assert max(late) <= 10_000


def test_loss_and_duplication_have_the_rates_of_the_case() -> None:
    bench = Bench(Network(delay_us=(100, 200), tail=0, loss=0.2, duplicate=0.1))
    bench.send(1_000)
    seen = set(bench.numbers())
    assert 730 <= len(seen) <= 870
    assert 60 <= len(bench.arrived) - len(seen) <= 140


def test_a_calm_link_loses_and_repeats_nothing() -> None:
    bench = Bench(Network(delay_us=(100, 200), tail=0.2, loss=0.3, duplicate=0.3))
    bench.network.calm()
    bench.send(500)
    assert bench.numbers() == list(range(500))
    assert max(time - 50 * number for time, number in bench.arrived) <= 200


def test_a_link_draws_from_its_own_stream_alone() -> None:
    alone, busy = Bench(), Bench()
    for number in range(100):
        busy.network.links[2, 1].send(beat(number))
    busy.arrived.clear()
    alone.link.send(beat(0))
    busy.link.send(beat(0))
    alone.world.run(10_000)
    busy.world.run(10_000)
    assert alone.arrived[0] in busy.arrived


def test_a_cut_lets_nothing_through_and_counts_what_it_lost() -> None:
    bench = Bench()
    effect = bench.add("cut")
    bench.send(10)
    assert (bench.arrived, effect.hits) == ([], 10)
    bench.network.remove(effect)
    bench.link.send(beat(99))
    bench.world.run(61_000_000)
    assert bench.numbers() == [99]


def test_a_clog_holds_and_releases_in_one_burst_in_order() -> None:
    bench = Bench()
    effect = bench.add("clog")
    bench.send(10)
    assert bench.arrived == []
    bench.network.remove(effect)
    bench.world.run(61_000_000)
    assert bench.numbers() == list(range(10))
    assert bench.arrived[-1][0] - bench.arrived[0][0] <= 1_000
    assert effect.hits == 10


def test_one_fault_ends_and_another_on_the_same_link_goes_on() -> None:
    bench = Bench()
    clog, cut = bench.add("clog"), bench.add("cut")
    bench.link.send(beat(1))
    bench.network.remove(clog)
    bench.world.run(10_000)
    assert (bench.arrived, cut.hits) == ([], 1)


def test_loss_is_by_its_probability() -> None:
    bench = Bench()
    effect = bench.add("loss", 0.5)
    bench.send(400)
    assert 150 <= len(bench.arrived) <= 250
    assert effect.hits == 400 - len(bench.arrived)


def test_duplicates_arrive_besides() -> None:
    bench = Bench()
    effect = bench.add("duplicate", 0.5)
    bench.send(400)
    assert set(bench.numbers()) == set(range(400))
    assert len(bench.arrived) == 400 + effect.hits
    assert 150 <= effect.hits <= 250


def test_a_delay_is_added_to_every_message() -> None:
    bench = Bench()
    bench.add("delay", 30_000)
    bench.send(100)
    assert min(time - 50 * number for time, number in bench.arrived) >= 30_100
    assert bench.numbers() == list(range(100))


def test_reordered_messages_overtake_one_another() -> None:
    bench = Bench()
    effect = bench.add("reorder", 20_000)
    bench.send(100)
    assert sorted(bench.numbers()) == list(range(100))
    assert bench.numbers() != list(range(100))
    assert effect.hits == 100


def test_a_slow_link_takes_the_time_that_its_bytes_need() -> None:
    bench = Bench()
    bench.add("bandwidth", 10_000)  # bytes a second; a heartbeat counts 40
    bench.send(100)
    assert 390_000 <= bench.arrived[-1][0] <= 420_000


def test_a_large_message_is_slower_than_a_small_one() -> None:
    times = []
    for size in (10, 100_000):
        bench = Bench()
        bench.add("bandwidth", 100_000)
        arrived: list[int] = []
        bench.link._receive = lambda message, world=bench.world, arrived=arrived: arrived.append(world.now_us)
        entry = Entry(Term(1), Index(1), COMMAND, b"x" * size)
        bench.link.send(AppendEntries(NodeId(1), NodeId(2), Term(1), Index(0), Term(0), Index(0), [entry]))
        bench.world.run(10_000_000)
        times += arrived
    assert times[1] > times[0] + 900_000

"""What the generators promise: unique values, bounded keys, choices from the seed alone."""

from __future__ import annotations

from collections import Counter

from seatrial.env import Rng
from seatrial.history import OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.etcd_txn import PREFIX, RANGE_END, TxnGenerator
from seatrial.workloads.generators import RegisterGenerator
from seatrial.workloads.kafka_groups import LATE_BY, GroupsGenerator
from seatrial.workloads.kafka_log import POLLS_PER_ASSIGNMENT, LogGenerator


def drive(generator: RegisterGenerator, count: int) -> list[Request]:
    """Requests that all succeed; reads see what was written last."""
    latest: dict[str | None, object] = {}
    requests = []
    for number in range(count):
        request = generator.next(number % 3)
        requests.append(request)
        if request.f != "read":
            latest[request.key] = request.value[1] if request.f == "cas" else request.value
        value = request.value if request.f != "read" else latest.get(request.key)
        generator.completed(request, Completion(type=OpType.OK, value=value))
    return requests


def test_no_value_is_written_twice() -> None:
    requests = drive(RegisterGenerator(Rng(1), prefix="kv."), 3000)
    written = [r.value[1] if r.f == "cas" else r.value for r in requests if r.f != "read"]
    assert len(set(written)) == len(written) > 1000


def test_keys_rotate_so_that_none_gets_more_than_its_share() -> None:
    generator = RegisterGenerator(Rng(1), prefix="kv.", active=5, per_key=300)
    counts = Counter(request.key for request in drive(generator, 6000))
    assert max(counts.values()) == 300
    assert len(counts) >= 20
    assert set(counts) <= set(generator.keys)
    assert all(key.startswith("kv.") for key in generator.keys)


def test_a_compare_and_set_expects_a_value_that_was_seen() -> None:
    requests = drive(RegisterGenerator(Rng(2), prefix="kv."), 2000)
    seen: dict[str | None, set[object]] = {}
    swaps = 0
    for request in requests:
        if request.f == "cas":
            swaps += 1
            assert request.value[0] in seen[request.key]
        if request.f != "read":
            value = request.value[1] if request.f == "cas" else request.value
            seen.setdefault(request.key, set()).add(value)
    assert swaps > 100


def test_the_seed_decides_every_choice() -> None:
    first, second, other = (drive(RegisterGenerator(Rng(seed), prefix="kv."), 500) for seed in (3, 3, 4))
    assert first == second != other


def test_log_appends_are_unique_and_reach_every_partition() -> None:
    generator = LogGenerator(Rng(1), topic="log", partitions=4, appenders=2)
    requests = [generator.next(number % 2) for number in range(400)]
    assert {request.f for request in requests} == {"append"}
    assert len({request.value for request in requests}) == 400
    assert {request.key for request in requests} == {f"log/{p}" for p in range(4)}


def test_a_poller_announces_each_partition_before_it_polls_it() -> None:
    generator = LogGenerator(Rng(1), topic="log", partitions=3, appenders=2)
    requests = [generator.next(2) for _ in range(3 * (POLLS_PER_ASSIGNMENT + 1))]
    assigned = None
    for request in requests:
        if request.f == "assign":
            assigned = request.key
        else:
            assert request.key == assigned
    assert {request.key for request in requests if request.f == "assign"} == {"log/0", "log/1", "log/2"}


def test_a_session_appends_to_one_partition_and_asks_every_node_where_it_ends() -> None:
    generator = LogGenerator(Rng(1), topic="log", partitions=3, appenders=2, pollers=1, nodes=[4, 5, 6])
    requests = [generator.next(4) for _ in range(200)]
    assert {request.key for request in requests} == {"log/1"}
    tails = [request for request in requests if request.f == "tail"]
    assert {request.node for request in tails} == {4, 5, 6}
    appends = [request.value for request in requests if request.f == "append"]
    assert len(tails) + len(appends) == len(requests)
    assert len(set(appends)) == len(appends) > 30


def test_the_compared_range_holds_exactly_the_keys_of_the_workload() -> None:
    generator = TxnGenerator(Rng(1), [f"{PREFIX}{n:04}" for n in range(1000)])
    keys = {generator.next(0).key or "" for _ in range(500)}
    assert all(PREFIX <= key < RANGE_END for key in keys)
    assert not PREFIX <= "kv-tyn.0000" < RANGE_END


def test_each_member_that_joined_again_commits_late_what_it_had_held() -> None:
    generator = GroupsGenerator(Rng(1), partitions=4, appenders=2, members=2)
    for member in (2, 3):
        turns = [generator.next(member).f for _ in range(2_000)]
        late = [turn for turn, f in enumerate(turns) if f == "late-commit"]
        joined = [turn for turn, f in enumerate(turns) if f == "rejoin"]
        assert len(late) > 5
        assert {turn - LATE_BY for turn in late} <= set(joined)
        assert all("late-commit" in turns[turn : turn + 2 * LATE_BY + 1] for turn in joined[:-1])

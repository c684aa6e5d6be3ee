"""Each rule: what it does to a message, beside what it lets through."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.env import Rng
from seatrial.raft.ids import NodeId
from seatrial.raft.messages import (
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    TimeoutNow,
)
from seatrial.transport.filters import (
    Capture,
    CollectSnapshots,
    DivertTimeoutNow,
    Drop,
    DropIf,
    DropRandomly,
    DropSnapshotsReportSuccess,
    DropTo,
    DropVotes,
    Duplicate,
    EraseCommit,
    HoldSnapshotsUntilAppend,
    Leading,
    LeadingSnapshot,
    Notify,
    PassAll,
    RandomLatency,
    ReadRounds,
    ReorderEach,
    ReplayOld,
    StaleSnapshot,
    delay,
    drop,
    hold,
    of_types,
    on,
)


def test_pass_all_lets_everything_through_and_counts_it(bench: Any, make: Any) -> None:
    active = bench.filter(on(PassAll()))
    sent = [make.append(), make.beat()]
    assert bench.send(*sent) == sent
    assert active.counters["seen"] == active.counters["passed"] == 2
    assert not active.bit


def test_drop_allows_the_first_and_counts_the_rest(bench: Any, make: Any) -> None:
    active = bench.filter(drop(AppendEntries, from_=1, to=2, allow=3))
    sent = [make.append() for _ in range(5)]
    beat, other = make.beat(), make.append(to=3)
    assert bench.send(*sent, beat, other) == [*sent[:3], beat, other]
    assert active.counters["dropped"] == 2
    assert active.bit


def test_drop_can_stop_after_a_count_be_switched_off_and_keep_what_it_dropped(bench: Any, make: Any) -> None:
    told: list[Message] = []
    rule = Drop(count=2, keep=True, dropped=told.append)
    bench.filter(on(rule))
    sent = [make.append() for _ in range(4)]
    rule.enabled = False
    assert bench.send(sent[0]) == sent[:1]
    rule.enabled = True
    assert bench.send(*sent[1:]) == sent[3:]
    assert rule.kept == told == sent[1:3]


def test_drop_randomly_is_decided_by_its_stream(bench: Any, make: Any) -> None:
    bench.filter(on(DropRandomly(0.5, Rng(1))))
    sent = [make.append() for _ in range(200)]
    through = bench.send(*sent)
    assert 60 < len(through) < 140
    stream = Rng(1)
    assert through == [message for message in sent if stream.random() >= 0.5]


def test_drop_by_predicate_and_by_receiver(bench: Any, make: Any) -> None:
    bench.filter(on(DropIf(lambda message: message.term > 5)))
    bench.filter(on(DropTo([NodeId(3)])))
    kept, late, to_3 = make.append(), make.append(), make.append(to=3)
    late.term = 6
    assert bench.send(kept, late, to_3) == [kept]


def test_delay_keeps_the_order_and_lets_nothing_go_early(bench: Any, make: Any) -> None:
    active = bench.filter(delay(1000, AppendEntries))
    sent = [make.append(), make.append()]
    beat = make.beat()
    assert bench.send(*sent, beat) == [beat]
    assert bench.pass_time(999) == []
    assert bench.pass_time(1) == sent
    assert active.counters["delayed"] == 2


def test_reorder_delivers_all_and_not_in_order(bench: Any, make: Any) -> None:
    bench.filter(on(ReorderEach(10_000, Rng(3))))
    sent = [make.append() for _ in range(20)]
    assert bench.send(*sent) == []
    arrived = bench.pass_time(10_000)
    assert arrived != sent
    assert sorted(arrived, key=lambda message: message.prev_log_index) == sent


def test_hold_waits_for_a_message_and_puts_it_behind_what_was_held(bench: Any, make: Any) -> None:
    active = bench.filter(hold(until=of_types(Heartbeat)))
    first, second, beat, third = make.append(), make.append(), make.beat(), make.append()
    assert bench.send(first, second) == []
    assert active.held == (first, second)
    assert bench.send(beat) == [first, second, beat]
    assert bench.send(third) == []
    assert active.counters["held"] == 3 and active.counters["released"] == 2


def test_hold_for_ever_ends_with_a_burst_when_it_is_removed(bench: Any, make: Any) -> None:
    active = bench.filter(hold(AppendEntries))
    sent = [make.append() for _ in range(3)]
    assert bench.send(*sent) == []
    active.remove()
    assert [message for _, message in bench.through] == sent
    assert bench.send(sent[0]) == sent[:1]


def test_what_was_held_is_lost_when_the_filter_is_removed_without_releasing(bench: Any, make: Any) -> None:
    active = bench.filter(hold())
    bench.send(make.append())
    active.remove(release=False)
    assert bench.through == []
    assert active.counters["lost"] == 1


def test_leading_lets_the_first_held_one_go_before_what_was_waited_for(bench: Any, make: Any) -> None:
    bench.filter(on(Leading(of_types(AppendEntries), of_types(Heartbeat))))
    first, second, beat, vote = make.append(), make.append(), make.beat(), make.vote()
    assert bench.send(first, vote, second) == [vote]
    assert bench.send(beat) == [first, beat, second]
    assert bench.send(first, beat) == [first, beat]


def test_leading_goes_on_waiting_while_nothing_is_held(bench: Any, make: Any) -> None:
    bench.filter(on(Leading(of_types(AppendEntries), of_types(Heartbeat))))
    beat, append = make.beat(), make.append()
    assert bench.send(beat, append) == [beat]
    assert bench.send(beat) == [append, beat]


def test_random_latency_delays_reorders_and_loses(bench: Any, make: Any) -> None:
    active = bench.filter(on(RandomLatency(0.7, Rng(5))))
    sent = [make.append() for _ in range(300)]
    through = bench.send(*sent)
    counters = active.counters
    assert counters["lost"] > 5
    assert through != sorted(through, key=lambda message: message.prev_log_index)
    assert len(through) + counters["lost"] + len(active.held) == 300, "each once"
    assert len(set(map(id, through))) == len(through)
    assert counters["held"] == counters["released"] + counters["lost"] + len(active.held)


def test_random_latency_delivers_nothing_twice_after_a_release(bench: Any, make: Any) -> None:
    active = bench.filter(on(RandomLatency(0.9, Rng(5))))
    sent = [make.append() for _ in range(50)]
    bench.send(*sent[:25])
    active.release()
    bench.send(*sent[25:])
    active.remove()
    through = [message for _, message in bench.through]
    assert len(set(map(id, through))) == len(through)
    assert len(through) + active.counters["lost"] == 50


def test_duplicate_delivers_twice_in_a_row(bench: Any, make: Any) -> None:
    active = bench.filter(on(Duplicate(1.0, Rng(1))))
    message = make.append()
    assert bench.send(message) == [message, message]
    assert active.counters["copied"] == 1


def test_replay_delivers_only_what_was_sent_before(bench: Any, make: Any) -> None:
    bench.filter(on(ReplayOld(0.3, Rng(2))))
    sent = [make.append() for _ in range(200)]
    through = bench.send(*sent)
    assert 230 < len(through) < 290
    sent_so_far = 0
    for message in through:
        at = next(n for n, one in enumerate(sent) if one is message)
        assert at <= sent_so_far
        sent_so_far += at == sent_so_far
    assert sent_so_far == 200


def test_capture_keeps_the_first_and_lets_it_through(bench: Any, make: Any) -> None:
    rule = Capture(1)
    bench.filter(on(rule, InstallSnapshot))
    first, second = make.chunk(), make.chunk(offset=4)
    assert bench.send(first, second) == [first, second]
    assert rule.captured == [first]


def test_notify_calls_after_the_message_went_on_also_behind_a_delay(bench: Any, make: Any) -> None:
    told: list[int] = []
    bench.filter(on(Notify(lambda message: told.append(len(bench.through))), AppendEntries))
    bench.filter(delay(100))
    bench.send(make.append(), make.beat())
    assert told == []
    bench.pass_time(100)
    assert told == [1]


def test_notify_is_silent_about_what_is_dropped_behind_it(bench: Any, make: Any) -> None:
    told: list[Message] = []
    bench.filter(on(Notify(told.append)))
    bench.filter(drop(AppendEntries))
    beat = make.beat()
    bench.send(make.append(), beat)
    assert told == [beat]


# Rules that rewrite.


def test_erase_commit_leaves_the_sender_s_message_as_it_was(bench: Any, make: Any) -> None:
    active = bench.filter(on(EraseCommit()))
    append, beat, plain = make.append(commit=7), make.beat(commit=7, read_round=3), make.beat()
    got = bench.send(append, beat, plain)
    assert [m.leader_commit for m in got] == [0, 0, 0]
    assert got[1].read_round == 3 and got[0].entries is append.entries
    assert append.leader_commit == beat.leader_commit == 7
    assert active.counters["replaced"] == 2 and active.counters["passed"] == 1


@pytest.mark.parametrize(("strip", "left"), [(True, [0, 0]), (False, [4, 0])])
def test_read_rounds_are_recorded_and_stripped(bench: Any, make: Any, strip: bool, left: list[int]) -> None:
    rule = ReadRounds(strip=strip)
    bench.filter(on(rule))
    assert [m.read_round for m in bench.send(make.beat(read_round=4), make.beat())] == left
    assert rule.rounds == [4]


def test_timeout_now_is_diverted_to_another_node(bench: Any, make: Any) -> None:
    bench.filter(on(DivertTimeoutNow(NodeId(3))))
    (diverted,) = bench.send(make.timeout_now(to=2))
    assert isinstance(diverted, TimeoutNow) and (diverted.sender, diverted.to) == (1, 3)
    meant_for_3, beat = make.timeout_now(to=3), make.beat()
    assert bench.send(meant_for_3, beat) == [meant_for_3, beat]


def test_votes_are_dropped_in_a_range_of_last_indexes(bench: Any, make: Any) -> None:
    bench.filter(on(DropVotes(5, 7)))
    asked = [make.vote(last_log_index=index) for index in range(4, 9)]
    assert bench.send(*asked) == [asked[0], asked[4]]


# Rules for snapshots.


def test_dropped_snapshots_are_reported_as_installed(bench: Any, make: Any) -> None:
    bench.filter(on(DropSnapshotsReportSuccess()))
    chunk, append = make.chunk(last=10), make.append()
    answer, passed = bench.send(chunk, append)
    assert passed is append
    assert isinstance(answer, InstallSnapshotResponse)
    assert (answer.sender, answer.to, answer.last_included_index, answer.next_offset) == (2, 1, 10, 8)


def test_collected_snapshots_go_together_and_repetitions_are_swallowed(bench: Any, make: Any) -> None:
    active = bench.filter(on(CollectSnapshots(2)))
    to_2, again, to_3 = make.chunk(), make.chunk(), make.chunk(to=3)
    assert bench.send(to_2, again) == []
    assert bench.send(to_3) == [to_2, to_3]
    assert active.counters["dropped"] == 1


@pytest.mark.parametrize("together", [True, False])
def test_a_leading_snapshot_waits_for_a_different_one(bench: Any, make: Any, together: bool) -> None:
    bench.filter(on(LeadingSnapshot(together=together)))
    old, again, new, append = make.chunk(last=10), make.chunk(last=10), make.chunk(last=20), make.append()
    assert bench.send(old, again, append) == [append]
    assert bench.send(new) == ([old, new] if together else [new])
    assert bench.send(append) == ([append] if together else [append, old])
    assert bench.send(old, append) == [old, append]


def test_snapshots_wait_for_an_append_which_goes_first(bench: Any, make: Any) -> None:
    bench.filter(on(HoldSnapshotsUntilAppend()))
    chunk, beat, append = make.chunk(), make.beat(), make.append()
    assert bench.send(chunk, make.chunk(), beat) == [beat]
    assert bench.send(append) == [append, chunk]


def test_a_stale_snapshot_arrives_in_the_place_of_a_new_one(bench: Any, make: Any) -> None:
    bench.filter(on(StaleSnapshot()))
    old, old_rest, new, new_rest, new_third = (
        make.chunk(last=10),
        make.chunk(last=10, offset=4),
        make.chunk(last=20),
        make.chunk(last=20, offset=4),
        make.chunk(last=20, offset=6),
    )
    assert bench.send(old, old_rest) == [old, old_rest]
    assert bench.send(new, new_rest, new_third) == [old, old_rest, old]

"""What a leader knows of a peer, and how much it may send."""

from __future__ import annotations

from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import Configuration, Snapshot, SnapshotMeta
from seatrial.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress, Window


def progress(*, match: int = 0, next_index: int = 10, messages: int = 3, size: int = 100) -> Progress:
    made = Progress(NodeId(2), next_index, 0, Window(messages, size))
    made.match_index = match
    return made


def replicating(match: int = 5, **settings: int) -> Progress:
    made = progress(match=match, **settings)
    made.become_replicate()
    return made


def test_probing_sends_one_message_and_waits() -> None:
    peer = progress()
    assert not peer.is_paused()
    peer.sent(12, 10)
    assert peer.is_paused()
    assert peer.next_index == 10, "nothing is assumed to have arrived"


def test_replicating_runs_ahead_as_far_as_the_window_allows() -> None:
    peer = replicating(messages=2)
    peer.sent(6, 10)
    assert (peer.next_index, peer.is_paused()) == (7, False)
    peer.sent(7, 10)
    assert (peer.next_index, peer.is_paused()) == (8, True)
    peer.acknowledged(6)
    assert not peer.is_paused()


def test_the_window_is_bounded_in_bytes_too() -> None:
    peer = replicating(size=100)
    peer.sent(6, 99)
    assert not peer.is_paused()
    peer.sent(7, 1)
    assert peer.is_paused()
    assert peer.window.bytes == 100
    peer.acknowledged(7)
    assert (peer.window.bytes, len(peer.window)) == (0, 0)


def test_an_acknowledgement_never_moves_back() -> None:
    peer = replicating(match=5)
    assert peer.acknowledged(8)
    assert not peer.acknowledged(6)
    assert (peer.match_index, peer.next_index) == (8, 9)


def test_a_refusal_moves_next_back_to_where_the_logs_may_agree() -> None:
    peer = progress(next_index=10)
    peer.sent(12, 1)
    assert peer.refused(9, 4)
    assert (peer.next_index, peer.state, peer.is_paused()) == (5, PROBE, False)


def test_a_refusal_never_moves_next_to_what_is_known_to_match() -> None:
    peer = progress(match=6)
    assert peer.refused(9, 2)
    assert peer.next_index == 7


def test_a_refusal_of_something_else_than_the_last_probe_is_out_of_date() -> None:
    assert not progress(next_index=10).refused(4, 1)
    assert not progress(next_index=10).refused(15, 1)
    assert not replicating(match=8).refused(8, 1)


def test_a_refusal_while_replicating_means_that_something_was_lost() -> None:
    peer = replicating(match=5)
    peer.sent(6, 1)
    peer.sent(7, 1)
    assert peer.refused(6, 5)
    assert (peer.state, peer.next_index, len(peer.window)) == (PROBE, 6, 0)


def test_sending_a_snapshot_holds_entries_back() -> None:
    peer = progress()
    snapshot = Snapshot(SnapshotMeta(Index(8), Term(1), Configuration([NodeId(1)])), b"")
    peer.become_snapshot(snapshot)
    assert (peer.state, peer.is_paused()) == (SNAPSHOT, True)
    assert not peer.refused(9, 2)
    peer.acknowledged(8)
    peer.become_probe()
    assert (peer.next_index, peer.snapshot, peer.is_paused()) == (9, None, False)


def test_a_new_window_is_empty_after_each_change_of_state() -> None:
    peer = replicating(messages=1)
    peer.sent(6, 10)
    peer.become_replicate()
    assert (peer.state, len(peer.window), peer.next_index) == (REPLICATE, 0, 6)

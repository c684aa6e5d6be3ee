"""Every anomaly is found in its smallest bad history, named and told, and not in that history's good twin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from seatrial.checkers.availability import Availability
from seatrial.checkers.base import Checker, Evidence, Validity
from seatrial.checkers.linearizability import Linearizability
from seatrial.checkers.partition_log import PartitionLog
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.checkers.sessions import Sessions
from seatrial.history import FaultEvent, History, Op, StatusSample, load_records

TESTDATA = Path(__file__).parent / "testdata"


@dataclass(frozen=True)
class Case:
    """What a checker should say of `<name>.bad.jsonl`."""

    checker: Checker
    anomaly: str
    message: str
    validity: Validity = Validity.INVALID
    kind: str | None = None


def nonlinearizable(kind: str, message: str) -> Case:
    return Case(Linearizability(), "nonlinearizable", message, kind=kind)


CASES = {
    "stale-read": nonlinearizable(
        "stale-read",
        "node 2 answered a linearizable read on key x with 7 although 9 had been written and acknowledged before the "
        "read began",
    ),
    "stale-read-after-newer-read": nonlinearizable(
        "stale-read",
        "node 2 answered a linearizable read on key x with 7 although an earlier read had already been answered by "
        "node 1 with the newer value 9 before the read began",
    ),
    "lost-acknowledged-write": nonlinearizable(
        "stale-read",
        "node 3 answered a linearizable read on key x with no value although 7 had been written and acknowledged "
        "before the read began",
    ),
    "phantom-value": nonlinearizable(
        "phantom-value", "node 1 answered a linearizable read on key x with 8, which nobody ever tried to write"
    ),
    "observed-failed-write": nonlinearizable(
        "observed-failed-write",
        "node 1 answered a linearizable read on key x with 8, although the only write of it had been refused as surely "
        "not done",
    ),
    "read-from-the-future": nonlinearizable(
        "read-from-the-future",
        "node 1 answered a linearizable read on key x with 7, which was written only after the read had ended",
    ),
    "stale-read-beside-a-fresh-one": nonlinearizable(
        "stale-read",
        "node 2 answered a linearizable read on key x with 1 while at the same time client 2 read 2 at node 1, and no "
        "write that was under way then explains both",
    ),
    "lost-update": nonlinearizable(
        "lost-update",
        "client 2 was given success for a compare-and-set on key x from 1 to 3 although a compare-and-set from 1 to 2 "
        "succeeded too, and 1 was written only once",
    ),
    "wrong-mismatch": nonlinearizable(
        "wrong-mismatch",
        "client 1 was given a mismatch for a compare-and-set on key x that expected 1, although the value was 1 and "
        "nothing that could have changed it fits in between",
    ),
    "stale-read-of-a-reused-value": nonlinearizable(
        "stale-read",
        "node 3 answered a linearizable read on key x with 1 although 2 had been written and acknowledged before the "
        "read began",
    ),
    "impossible-order": nonlinearizable(
        "impossible-order",
        "no order of these operations on key x respects real time and explains every answer, from whichever value: "
        "client 1 read 1 at node 1; client 1 read 2 at node 1; client 2 read 1 at node 2; client 2 read 2 at node 2",
    ),
    "lost-write": Case(
        PartitionLog(),
        "lost-write",
        "1 was acknowledged at offset 0 of topic/0, and nobody was ever given it, although consumers read beyond that "
        "offset",
    ),
    "lost-write-on-a-node": Case(
        PartitionLog(),
        "lost-write",
        "1 was acknowledged at offset 0 of topic/0, and is missing from the final read of node 2",
    ),
    "inconsistent-offsets": Case(
        PartitionLog(),
        "inconsistent-offsets",
        "offset 5 of topic/0 held different records: 2 (read at node 1) and 3 (read at node 2)",
    ),
    "duplicate": Case(PartitionLog(), "duplicate", "1 was sent once and stands at 2 offsets of topic/0: 0, 1"),
    "nonmonotonic-poll": Case(
        PartitionLog(), "nonmonotonic-poll", "consumer 1 of topic/0 went back: from offset 0 to 0"
    ),
    "poll-skip": Case(PartitionLog(), "poll-skip", "consumer 1 of topic/0 jumped over records: from offset 0 to 4"),
    "int-nonmonotonic-poll": Case(
        PartitionLog(), "int-nonmonotonic-poll", "consumer 1 of topic/0 went back: from offset 1 to 0"
    ),
    "int-poll-skip": Case(
        PartitionLog(), "int-poll-skip", "consumer 1 of topic/0 jumped over records: from offset 0 to 2"
    ),
    "nonmonotonic-send": Case(
        PartitionLog(),
        "nonmonotonic-send",
        "client 0 appended 1 and then 2 to topic/0, and they were given the offsets 1 and 0",
    ),
    "G0-realtime": Case(
        PartitionLog(),
        "G0-realtime",
        "the append of 1 to topic/0 was over before that of 2 began, and yet it stands behind it",
    ),
    "G1a": Case(PartitionLog(), "G1a", "a read of topic/0 returned 2 at offset 1; its append had surely failed"),
    "phantom": Case(PartitionLog(), "phantom", "a read of topic/0 returned 2 at offset 1, which nobody had sent"),
    "unseen": Case(
        PartitionLog(),
        "unseen",
        "acknowledged records of topic/0 were never read: 1, the first is 2",
        Validity.UNKNOWN,
    ),
    "unread-node": Case(
        PartitionLog(), "unread-node", "no final read of topic/0 on node 2 was complete", Validity.UNKNOWN
    ),
    "monotonic-reads": Case(
        Sessions(), "monotonic-reads", "client 1 read 2, and its later read of key x from node 2 returned the older 1"
    ),
    "read-your-writes": Case(
        Sessions(), "read-your-writes", "client 1 wrote 2, and its later read of key x from node 2 returned the older 1"
    ),
    "two-leaders-in-one-term": Case(
        RaftInvariants(), "two-leaders-in-one-term", "nodes 1 and 2 both led group kv in term 2"
    ),
    "term-went-back": Case(RaftInvariants(), "term-went-back", "the term of node 1 in group kv fell from 3 to 2"),
    "commit-index-went-back": Case(
        RaftInvariants(), "commit-index-went-back", "the commit index of node 1 in group kv fell from 5 to 4"
    ),
    "applied-index-went-back": Case(
        RaftInvariants(), "applied-index-went-back", "the applied index of node 1 in group kv fell from 5 to 4"
    ),
    "applied-beyond-commit": Case(
        RaftInvariants(), "applied-beyond-commit", "node 1 of group kv had applied up to 5 with only 4 committed"
    ),
    "commit-beyond-log": Case(
        RaftInvariants(), "commit-beyond-log", "node 1 of group kv had 6 committed in a log that ends at 5"
    ),
    "leader-log-shrank": Case(
        RaftInvariants(),
        "leader-log-shrank",
        "node 1 led group kv in term 2, and its log shrank from 9 to 8",
    ),
    "leader-lacks-committed": Case(
        RaftInvariants(),
        "leader-lacks-committed",
        "node 2 led group kv in term 2 with a log that ends at 8, though node 1 knew 9 as committed in term 1",
    ),
    "replica-divergence": Case(
        ReplicaEquality(),
        "replica-divergence",
        "nodes 1 and 2 had different states of group kv after applying the same 5 entries",
    ),
    "replica-behind": Case(
        ReplicaEquality(),
        "replica-behind",
        "node 2 of group kv had applied 4 entries at the end where another node had applied 5",
        Validity.UNKNOWN,
    ),
    "unavailable": Case(
        Availability(gap_max_s=3.0),
        "unavailable",
        "registers: nothing was acknowledged for 5.00 s although a majority of nodes was up and connected (limit 3 s)",
    ),
}


def evidence_from(path: Path, scratch: Path) -> Evidence:
    """Records of all three kinds, told apart by a field that only one kind has."""
    lines = path.read_text().splitlines()
    files = {}
    for field in ("f", "group", "fault"):
        files[field] = scratch / f"{field}.jsonl"
        files[field].write_text("\n".join(line for line in lines if field in json.loads(line)))
    evidence = Evidence(
        history=History(load_records(files["f"], Op)),
        statuses=load_records(files["group"], StatusSample),
        faults=load_records(files["fault"], FaultEvent),
    )
    assert len(evidence.history) + len(evidence.statuses) + len(evidence.faults) == len(lines)
    return evidence


@pytest.mark.parametrize("name", CASES)
def test_smallest_bad_history_is_caught_and_told(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    evidence = evidence_from(TESTDATA / f"{name}.bad.jsonl", tmp_path)
    verdict = case.checker.check(evidence)
    assert verdict.validity is case.validity, verdict.reason
    found = {anomaly.name: anomaly for anomaly in verdict.anomalies}
    assert list(found) == [case.anomaly], "the smallest bad history shows one kind of anomaly"
    anomaly = found[case.anomaly]
    assert anomaly.message == case.message
    assert case.kind is None or anomaly.detail["kind"] == case.kind
    assert all(index < len(evidence.history) for index in anomaly.ops)


@pytest.mark.parametrize("name", CASES)
def test_good_twin_is_valid(name: str, tmp_path: Path) -> None:
    verdict = CASES[name].checker.check(evidence_from(TESTDATA / f"{name}.good.jsonl", tmp_path))
    assert verdict.validity is Validity.VALID, verdict


def test_every_history_in_testdata_is_a_case_with_its_twin() -> None:
    files = {path.name for path in TESTDATA.glob("*.jsonl")}
    assert files == {f"{name}.{side}.jsonl" for name in CASES for side in ("bad", "good")}


def test_two_leaders_are_no_anomaly_where_statuses_are_read_piece_by_piece() -> None:
    """etcd reads leader and term one after the other: its new leader was seen to claim the term of the one before."""
    torn = [
        StatusSample(time_ns=1, node=1, group="etcd", role="leader", term=9, last_applied=5, commit_index=4),
        StatusSample(time_ns=2, node=2, group="etcd", role="leader", term=9),
    ]
    evidence = Evidence(history=History(), statuses=torn, nodes=(1, 2))
    assert RaftInvariants().check(evidence).validity is Validity.INVALID
    assert RaftInvariants(atomic=False).check(evidence).validity is Validity.VALID


def test_what_goes_back_is_an_anomaly_also_where_statuses_are_read_piece_by_piece() -> None:
    fell = [StatusSample(time_ns=t, node=1, group="etcd", role="follower", term=term) for t, term in ((1, 9), (2, 8))]
    verdict = RaftInvariants(atomic=False).check(Evidence(history=History(), statuses=fell, nodes=(1,)))
    assert [anomaly.name for anomaly in verdict.anomalies] == ["term-went-back"]

"""One test for each claim of the Raft paper (extended version) and of Ongaro's dissertation.

"Reference" names the section.  The list of claims follows etcd's raft_paper_test.go, and goes on where that ends.
"""

from __future__ import annotations

import pytest
from raft_network import Network, entries_of

from seatrial.raft import Role
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import (
    COMMAND,
    NOOP,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    Heartbeat,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)

ONE, TWO, THREE, FOUR = NodeId(1), NodeId(2), NodeId(3), NodeId(4)


def plain(nodes: int = 3, **settings: object) -> Network:
    """A cluster with the paper's algorithm alone: without PreVote and CheckQuorum."""
    return Network(nodes, **{"pre_vote": False, "check_quorum": False, **settings})  # type: ignore[arg-type]


def append(
    term: int, prev: tuple[int, int], entries: list[Entry], *, commit: int = 0, sender: NodeId = TWO, to: NodeId = ONE
) -> AppendEntries:
    """`prev` is (index, term)."""
    return AppendEntries(sender, to, Term(term), Index(prev[0]), Term(prev[1]), Index(commit), entries)


def step(network: Network, message: Message) -> list[Message]:
    """What the receiver sends in answer."""
    network.drop()
    network.deliver_one(message)
    return network.drop()


# -- 5.1 Raft basics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_a_later_term_in_a_message_is_adopted_and_makes_a_follower(role: Role) -> None:
    """Reference: §5.1 "If a candidate or leader discovers that its term is out of date, it immediately reverts"."""
    network = in_role(role)
    later = network[1].node.term + 1
    step(network, append(later, (0, 0), []))
    assert (network[1].node.role, network[1].node.term, network[1].node.leader) == (Role.FOLLOWER, later, TWO)


def in_role(role: Role) -> Network:
    network = Network(3, pre_vote=role == Role.PRE_CANDIDATE, terms={1: 1, 2: 1, 3: 1})
    if role == Role.LEADER:
        network.elect(1)
    elif role != Role.FOLLOWER:
        network[1].node.campaign(network.now_us)
        network[1].pump()
    assert network[1].node.role == role
    return network


def test_a_stale_term_is_refused_with_the_current_one() -> None:
    """Reference: §5.1 "If a server receives a request with a stale term number, it rejects the request"."""
    network = plain(terms={1: 5})
    (answer,) = step(network, append(4, (0, 0), entries_of([4])))
    assert isinstance(answer, AppendEntriesResponse)
    assert (answer.success, answer.term) == (False, 5)
    (answer,) = step(network, RequestVote(TWO, ONE, Term(4), Index(9), Term(4), False))
    assert isinstance(answer, RequestVoteResponse)
    assert (answer.vote_granted, answer.term) == (False, 5)
    assert network[1].node.last_index == 0


# -- 5.2 Leader election -----------------------------------------------------------------------------------------------


def test_servers_start_as_followers() -> None:
    """Reference: §5.2 "When servers start up, they begin as followers"."""
    assert [host.node.role for host in plain().hosts.values()] == [Role.FOLLOWER] * 3


def test_a_leader_sends_heartbeats_to_all_at_every_interval() -> None:
    """Reference: §5.2 "Leaders send periodic heartbeats … to all followers in order to maintain their authority"."""
    network = plain()
    leader = network.elect(1)
    for _ in range(3):
        network.drop()
        network.now_us += leader.config.heartbeat_us
        leader.node.tick(network.now_us)
        leader.pump()
        beats = [m for m in network.drop() if isinstance(m, Heartbeat)]
        assert sorted(m.to for m in beats) == [TWO, THREE]


@pytest.mark.parametrize("candidate_before", [False, True])
def test_an_election_timeout_starts_a_candidacy_in_a_new_term(candidate_before: bool) -> None:
    """Reference: §5.2 "increments its current term and transitions to candidate state … votes for itself and issues
    RequestVote RPCs in parallel"; "each candidate will time out and start a new election"."""
    network = plain()
    for _ in range(1 + candidate_before):
        network.drop()
        network.now_us = network[1].node.next_deadline()
        network[1].node.tick(network.now_us)
        network[1].pump()
    status = network[1].node.status()
    assert (status.role, status.term, status.voted_for) == (Role.CANDIDATE, 1 + candidate_before, ONE)
    requests = [m for m in network.drop() if isinstance(m, RequestVote)]
    assert [(m.to, m.term) for m in requests] == [(TWO, status.term), (THREE, status.term)]


@pytest.mark.parametrize(
    ("size", "grants", "refusals", "role"),
    [
        (1, 0, 0, Role.LEADER),
        (3, 2, 0, Role.LEADER),
        (3, 1, 0, Role.LEADER),
        (5, 4, 0, Role.LEADER),
        (5, 2, 0, Role.LEADER),
        (3, 0, 2, Role.FOLLOWER),
        (5, 0, 4, Role.FOLLOWER),
        (5, 1, 3, Role.FOLLOWER),
        (3, 0, 0, Role.CANDIDATE),
        (5, 1, 0, Role.CANDIDATE),
        (5, 1, 2, Role.CANDIDATE),
    ],
)
def test_a_candidate_wins_with_votes_of_a_majority(size: int, grants: int, refusals: int, role: Role) -> None:
    """Reference: §5.2 "A candidate wins an election if it receives votes from a majority of the servers"."""
    network = plain(size)
    network[1].node.campaign(network.now_us)
    network[1].pump()
    for number in range(grants + refusals):
        voter = NodeId(2 + number)
        network.deliver_one(RequestVoteResponse(voter, ONE, Term(1), vote_granted=number < grants))
    assert (network[1].node.role, network[1].node.term) == (role, 1)


@pytest.mark.parametrize(("voted_for", "asks", "granted"), [(None, 2, True), (2, 2, True), (3, 2, False)])
def test_a_follower_votes_once_in_a_term_first_come_first_served(
    voted_for: int | None, asks: int, granted: bool
) -> None:
    """Reference: §5.2 "Each server will vote for at most one candidate in a given term"."""
    network = plain()
    if voted_for is not None:
        step(network, RequestVote(NodeId(voted_for), ONE, Term(1), Index(0), Term(0), False))
    (answer,) = step(network, RequestVote(NodeId(asks), ONE, Term(1), Index(0), Term(0), False))
    assert isinstance(answer, RequestVoteResponse)
    assert answer.vote_granted == granted


def test_a_vote_is_not_given_again_after_a_restart() -> None:
    """Reference: figure 2 "Persistent state on all servers (updated on stable storage before responding)"."""
    network = plain()
    (answer,) = step(network, RequestVote(TWO, ONE, Term(1), Index(0), Term(0), False))
    assert isinstance(answer, RequestVoteResponse) and answer.vote_granted
    network[1].crash()
    network[1].start()
    (answer,) = step(network, RequestVote(THREE, ONE, Term(1), Index(0), Term(0), False))
    assert isinstance(answer, RequestVoteResponse) and not answer.vote_granted


def test_a_vote_is_not_sent_before_it_is_saved() -> None:
    """Reference: figure 2, as above."""
    network = plain()
    network[1].auto_sync = False
    assert step(network, RequestVote(TWO, ONE, Term(1), Index(0), Term(0), False)) == []
    network[1].sync()
    assert len(network.under_way) == 1


def test_a_candidate_counts_its_own_vote_only_once_it_is_saved() -> None:
    """Reference: figure 2, as above: a lone node that crashed before the save would vote in that term again."""
    network = plain(1)
    network[1].auto_sync = False
    network[1].node.campaign(network.now_us)
    network[1].pump()
    assert network[1].node.role == Role.CANDIDATE
    network[1].sync()
    assert network[1].node.role == Role.LEADER


def test_a_candidate_asks_for_votes_only_once_its_term_and_log_are_saved() -> None:
    """Reference: figure 2, as above: else it could ask twice in a term, the second time with a shorter log."""
    network = plain(logs={1: [1], 2: [1], 3: [1]})
    network[1].auto_sync = False
    network.deliver_one(append(1, (1, 1), entries_of([1], 2)))
    network[1].node.campaign(network.now_us)
    network[1].pump()
    assert not any(isinstance(m, RequestVote) for m in network.under_way)
    network[1].sync()
    assert [m.last_log_index for m in network.under_way if isinstance(m, RequestVote)] == [2, 2]


@pytest.mark.parametrize("later", [0, 1])
def test_a_candidate_falls_back_when_a_leader_of_its_term_or_a_later_one_speaks(later: int) -> None:
    """Reference: §5.2 "If the leader's term … is at least as large as the candidate's current term, then the candidate
    recognizes the leader as legitimate and returns to follower state"."""
    network = plain()
    network[1].node.campaign(network.now_us)
    network[1].pump()
    step(network, append(1 + later, (0, 0), []))
    assert (network[1].node.role, network[1].node.term) == (Role.FOLLOWER, 1 + later)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
def test_election_timeouts_are_random_in_a_fixed_interval(role: Role) -> None:
    """Reference: §5.2 "election timeouts are chosen randomly from a fixed interval"."""
    network = plain()
    node, timeout = network[1].node, network[1].config.election_timeout_us
    waits = set()
    for term in range(1, 200):
        if role == Role.FOLLOWER:
            node.campaign(network.now_us)
            node.step(append(node.term, (0, 0), []), network.now_us)
        else:
            node.campaign(network.now_us)
        assert (node.role, node.term) == (role, term)
        waits.add((node.next_deadline() - network.now_us) // (timeout // 10))
    assert waits == set(range(10, 20))


def test_split_votes_are_rare_because_timeouts_are_random() -> None:
    """Reference: §5.2 "to ensure that split votes are rare and that they are resolved quickly"."""
    clashes = 0
    for seed in range(300):
        network = plain(5, seed=seed)
        deadlines = sorted(host.node.next_deadline() for host in network.hosts.values())
        clashes += deadlines[1] - deadlines[0] < 5_000
    assert clashes < 300 * 0.15


# -- 5.3 Log replication -----------------------------------------------------------------------------------------------


def test_a_leader_appends_a_command_and_sends_it_to_all() -> None:
    """Reference: §5.3 "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in
    parallel … includes the index and term of the entry … that immediately precedes the new entries"."""
    network = plain()
    network.elect(1)
    network.drop()
    entry_id = network.propose(b"x")
    assert entry_id == (1, 2)
    sent = [m for m in network.drop() if isinstance(m, AppendEntries)]
    assert sorted(m.to for m in sent) == [TWO, THREE]
    for message in sent:
        assert (message.prev_log_index, message.prev_log_term, message.leader_commit) == (1, 1, 1)
        assert list(message.entries) == [Entry(Term(1), Index(2), COMMAND, b"x")]


@pytest.mark.parametrize(
    ("size", "acknowledge", "commits"),
    [
        (1, [], True),
        (3, [], False),
        (3, [2], True),
        (3, [2, 3], True),
        (5, [2], False),
        (5, [2, 3], True),
        (5, [2, 3, 4], True),
    ],
)
def test_an_entry_is_committed_once_a_majority_has_it(size: int, acknowledge: list[int], commits: bool) -> None:
    """Reference: §5.3 "A log entry is committed once the leader … has replicated it on a majority of the servers"."""
    network = plain(size)
    leader = network.elect(1)
    leader.node.propose(b"x", network.now_us)
    leader.pump()
    network.deliver(lambda m: m.to in acknowledge or m.sender in acknowledge)
    assert leader.commands() == ([b"x"] if commits else [])


def test_committing_an_entry_commits_all_before_it() -> None:
    """Reference: §5.3 "This also commits all preceding entries in the leader's log, including entries created by
    previous leaders"."""
    for log in ([], [2], [1, 2], [1]):
        network = plain(logs=dict.fromkeys((1, 2, 3), log), terms=dict.fromkeys((1, 2, 3), 2))
        leader = network.elect(1)
        network.propose(b"x")
        network.deliver()
        expected = [*entries_of(log), Entry(Term(3), Index(len(log) + 1), NOOP, b"")]
        assert leader.applied == [*expected, Entry(Term(3), Index(len(log) + 2), COMMAND, b"x")]


def test_a_follower_applies_an_entry_once_it_learns_that_it_is_committed() -> None:
    """Reference: §5.3 "Once a follower learns that a log entry is committed, it applies the entry (in log order)"."""
    network = plain(3)
    step(network, append(1, (0, 0), entries_of([1, 1, 1])))
    assert network[1].applied == []
    step(network, append(1, (3, 1), [], commit=2))
    assert network[1].applied == entries_of([1, 1])


def test_an_entry_that_is_not_durable_here_is_not_applied_here() -> None:
    """Reference: departs from §5.3 on the safe side: a machine never runs ahead of its own disk."""
    network = plain(3)
    network[1].auto_sync = False
    step(network, append(1, (0, 0), entries_of([1, 1]), commit=2))
    assert (network[1].node.commit_index, network[1].applied) == (2, [])
    network[1].sync()
    assert network[1].applied == entries_of([1, 1])


@pytest.mark.parametrize(
    ("prev", "success"),
    [((0, 0), True), ((1, 1), True), ((2, 2), True), ((1, 2), False), ((2, 1), False), ((3, 3), False)],
)
def test_the_consistency_check_refuses_what_does_not_follow(prev: tuple[int, int], success: bool) -> None:
    """Reference: §5.3 "If the follower does not find an entry in its log with the same index and term, then it refuses
    the new entries"."""
    network = plain(logs={1: [1, 2]})
    (answer,) = step(network, append(2, prev, []))
    assert isinstance(answer, AppendEntriesResponse)
    assert answer.success == success


@pytest.mark.parametrize(
    ("prev", "new", "result"),
    [
        ((2, 2), [3], [1, 2, 3]),
        ((1, 1), [3, 4], [1, 3, 4]),
        ((0, 0), [1], [1, 2]),
        ((0, 0), [3], [3]),
    ],
)
def test_conflicting_entries_are_overwritten_and_equal_ones_kept(
    prev: tuple[int, int], new: list[int], result: list[int]
) -> None:
    """Reference: §5.3 and figure 2 "If an existing entry conflicts with a new one (same index but different terms),
    delete the existing entry and all that follow it"."""
    network = plain(logs={1: [1, 2]})
    step(network, append(4, prev, entries_of(new, prev[0] + 1)))
    assert [entry_id.term for entry_id in network[1].log()] == result
    assert [entry.term for entry in network[1].disk.durable.entries] == result


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("follower", FIGURE_7)
def test_figure_7_a_leader_brings_any_log_into_line_with_its_own(follower: str) -> None:
    """Reference: §5.3 figure 7 "by forcing the followers' logs to duplicate its own"."""
    network = plain(logs={1: FIGURE_7_LEADER, 2: FIGURE_7[follower], 3: [1]}, terms={1: 7, 2: 7, 3: 7})
    network.elect(1)
    network.advance(200_000)
    assert network[2].log() == network[1].log() == network[3].log()
    assert network[2].applied == network[1].applied
    assert network[1].node.commit_index == 11


def test_a_refusal_skips_whole_terms_not_single_entries() -> None:
    """Reference: §5.3, end: "the protocol can be optimized to reduce the number of rejected AppendEntries RPCs"."""
    network = plain(logs={1: [1, 1, *[3] * 50], 2: [1, 1, *[2] * 80], 3: [1]}, terms={1: 3, 2: 3, 3: 3})
    leader = network.elect(1)
    assert leader.log() == network[2].log()
    refusals = [m for ready in network[2].readys for m in ready.messages if isinstance(m, AppendEntriesResponse)]
    assert 1 <= len(refusals) <= 2


# -- 5.4 Safety --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "last_index", "last_term", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 2, 1, True),
        ([1, 1], 1, 1, False),
        ([1], 1, 2, True),
        ([1], 2, 2, True),
        ([1, 1], 1, 2, True),
        ([2], 1, 1, False),
        ([2], 2, 1, False),
        ([2, 2], 1, 1, False),
    ],
)
def test_a_voter_refuses_a_candidate_whose_log_is_behind_its_own(
    own: list[int], last_index: int, last_term: int, granted: bool
) -> None:
    """Reference: §5.4.1 "the voter denies its vote if its own log is more up-to-date than that of the candidate"."""
    network = plain(logs={1: own})
    (answer,) = step(network, RequestVote(TWO, ONE, Term(3), Index(last_index), Term(last_term), False))
    assert isinstance(answer, RequestVoteResponse)
    assert answer.vote_granted == granted
    (answer,) = step(network, PreVote(THREE, ONE, Term(4), Index(last_index), Term(last_term)))
    assert isinstance(answer, PreVoteResponse)
    assert answer.vote_granted == granted


def test_a_request_for_a_vote_tells_how_up_to_date_the_log_is() -> None:
    """Reference: §5.4.1 "the RPC includes information about the candidate's log"."""
    network = plain(logs={1: [1, 2, 2]})
    network[1].node.campaign(network.now_us)
    network[1].pump()
    requests = [m for m in network.drop() if isinstance(m, RequestVote)]
    assert [(m.last_log_index, m.last_log_term) for m in requests] == [(3, 2), (3, 2)]


@pytest.mark.parametrize(("acknowledged", "commit_index"), [(1, 0), (2, 0), (3, 3)])
def test_only_entries_of_the_own_term_are_committed_by_counting(acknowledged: int, commit_index: int) -> None:
    """Reference: §5.4.2 "Raft never commits log entries from previous terms by counting replicas"."""
    network = plain(logs={1: [1, 2]}, terms={1: 2})
    network[1].node.campaign(network.now_us)
    network[1].pump()
    network.deliver_one(RequestVoteResponse(TWO, ONE, Term(3), vote_granted=True))
    assert network[1].node.is_leader
    network.deliver_one(AppendEntriesResponse(TWO, ONE, Term(3), True, Index(acknowledged), Index(0), Term(0)))
    assert network[1].node.commit_index == commit_index


def test_figure_8_an_old_entry_on_a_majority_can_be_overwritten_and_was_not_committed() -> None:
    """Reference: §5.4.2 figure 8, (a) to (d)."""
    # (a), (b): S1 led term 2 and left its entry on S2; S5 led term 3 and has another one at the same index.
    logs = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
    network = plain(5, logs=logs, terms=dict.fromkeys(range(1, 6), 3))
    # (c): S1 leads term 4 and replicates the entry of term 2 to S3; its own, of term 4, reaches nobody.
    network.isolate(5)
    leader = network[1]
    leader.node.campaign(network.now_us)
    leader.pump()
    network.deliver(lambda m: isinstance(m, RequestVote | RequestVoteResponse))
    assert leader.node.is_leader and leader.node.term == 4
    network.drop()
    for message in (
        append(4, (1, 1), entries_of([2], 2), sender=ONE, to=THREE),
        AppendEntriesResponse(TWO, ONE, Term(4), True, Index(2), Index(0), Term(0)),
    ):
        network.deliver_one(message)
    network.deliver(lambda m: m.to == ONE)
    assert network[3].log() == [(1, 1), (2, 2)]
    assert leader.node.commit_index == 0, "on S1, S2 and S3, but of an earlier term"
    # (d): S1 crashes, S5 leads term 5 and overwrites it everywhere.
    network.drop()
    leader.crash()
    network.heal()
    network[5].node.campaign(network.now_us)  # in term 4, of which it learns so
    network[5].pump()
    network.deliver()
    network.elect(5)
    network.advance(300_000)
    assert [entry_id.term for entry_id in network[2].log()] == [1, 3, 5]
    assert [entry_id.term for entry_id in network[3].log()] == [1, 3, 5]


def test_figure_8_an_old_entry_is_committed_together_with_one_of_the_leaders_term() -> None:
    """Reference: §5.4.2 figure 8 (e)."""
    logs = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
    network = plain(5, logs=logs, terms=dict.fromkeys(range(1, 6), 3))
    network.isolate(5)
    network.elect(1)
    assert network[1].node.commit_index == 3
    network[1].crash()
    network.heal()
    network.now_us += 400_000
    network[5].node.campaign(network.now_us)
    network[5].pump()
    network.deliver()
    assert not network[5].node.is_leader, "S2, S3 and S4 are more up-to-date"


# -- 5.5, 6, 7, 8 ------------------------------------------------------------------------------------------------------


def test_a_repeated_append_changes_nothing_and_is_acknowledged_again() -> None:
    """Reference: §5.5 "Raft RPCs are idempotent"."""
    network = plain()
    message = append(1, (0, 0), entries_of([1, 1]))
    first, again = step(network, message), step(network, message)
    assert network[1].log() == [(1, 1), (1, 2)]
    for (answer,) in (first, again):
        assert isinstance(answer, AppendEntriesResponse)
        assert (answer.success, answer.match_index) == (True, 2)


def test_a_late_shorter_append_does_not_truncate() -> None:
    """Reference: §5.5 and figure 2: only a conflict deletes entries."""
    network = plain()
    step(network, append(1, (0, 0), entries_of([1, 1, 1])))
    step(network, append(1, (0, 0), entries_of([1])))
    assert network[1].node.last_index == 3


def test_servers_ignore_votes_asked_for_while_a_leader_is_alive() -> None:
    """Reference: §6 "if a server receives a RequestVote RPC within the minimum election timeout of hearing from a
    current leader, it does not update its term or grant its vote"."""
    network = Network(3)
    network.elect(1)
    network.drop()
    term = network[2].node.term
    message = RequestVote(THREE, TWO, Term(term + 5), Index(99), Term(term + 5), False)
    assert step(network, message) == []
    assert network[2].node.term == term
    network.now_us += network[2].config.election_timeout_us
    (answer,) = step(network, message)
    assert isinstance(answer, RequestVoteResponse) and answer.vote_granted


def test_a_lagging_follower_gets_a_snapshot_when_its_entries_are_gone() -> None:
    """Reference: §7 "the leader … send[s] snapshots to followers that lag behind"."""
    network = Network(3)
    network.elect(1)
    network.isolate(3)
    for number in range(20):
        network.propose(b"%d" % number)
        network.deliver()
    network[1].make_snapshot()
    network.heal()
    network.advance(500_000)
    assert network[3].commands() == [b"%d" % number for number in range(20)]
    assert network[3].node.status().snapshot_index == 21


def test_a_snapshot_of_a_prefix_keeps_the_entries_that_follow() -> None:
    """Reference: §7 "If instead the follower receives a snapshot that describes a prefix of its log … entries following
    the snapshot are still valid and must be retained"."""
    network = plain(logs={1: [1] * 8})
    meta = SnapshotMeta(Index(6), Term(1), Configuration([ONE, TWO, THREE]))
    (answer,) = step(network, InstallSnapshot(TWO, ONE, Term(1), meta, 0, 3, b"abc"))
    assert isinstance(answer, InstallSnapshotResponse)
    assert answer.next_offset == 3
    assert (network[1].node.last_index, network[1].node.commit_index) == (8, 6)
    assert network[1].applied == entries_of([1] * 6), "from the log, not from the snapshot"


def test_a_new_leader_commits_an_entry_of_its_own_term_at_once() -> None:
    """Reference: §8 "by having each leader commit a blank no-op entry into the log at the start of its term"."""
    network = plain()
    leader = network.elect(1)
    assert leader.applied == [Entry(Term(1), Index(1), NOOP, b"")]


# -- the dissertation --------------------------------------------------------------------------------------------------


def test_a_pre_vote_changes_nobodys_term() -> None:
    """Reference: dissertation §9.6 "a candidate only increments its term if it first learns from a majority of the
    cluster that they would be willing to grant the candidate their votes"."""
    network = Network(3, logs={1: [1], 2: [1, 1], 3: [1, 1]})
    for _ in range(5):
        network[1].node.campaign(network.now_us)
        network[1].pump()
        network.deliver()
    assert [host.node.term for host in network.hosts.values()] == [1, 1, 1]


def test_a_node_that_rejoins_does_not_disturb_its_cluster() -> None:
    """Reference: dissertation §9.6 "the Pre-Vote algorithm solves the issue of a partitioned server disrupting the
    cluster when it rejoins"."""
    network = Network(3)
    network.run_until(network.has_leader)
    leader = network.leader().node.node_id
    (away, _) = [i for i in network.hosts if i != leader]
    term = network[leader].node.term
    network.isolate(away)
    network.advance(5_000_000)
    network.heal()
    network.advance(5_000_000)
    assert [(host.node.term, host.node.leader) for host in network.hosts.values()] == [(term, leader)] * 3


def test_a_leader_steps_down_when_it_cannot_reach_a_majority() -> None:
    """Reference: dissertation §6.2 "A leader in Raft steps down if an election timeout elapses without a successful
    round of heartbeats to a majority of its cluster"."""
    network = Network(3)
    leader = network.elect(1)
    network.isolate(1)
    network.advance(leader.config.election_timeout_us + 2 * leader.config.heartbeat_us)
    assert leader.node.role != Role.LEADER


def test_leadership_transfer_makes_the_target_campaign_at_once() -> None:
    """Reference: dissertation §3.10: the target is caught up, then told to time out; its votes ignore stickiness."""
    network = Network(3)
    network.elect(1)
    network.propose(b"x")
    network.drop(lambda m: m.to == TWO)
    network[1].node.transfer_leadership(TWO, network.now_us)
    network[1].pump()
    assert not any(isinstance(m, TimeoutNow) for m in network.under_way), "node 2 lacks an entry"
    network.advance(3 * network[1].config.heartbeat_us)
    assert network[2].node.is_leader
    assert network[2].node.term == 2


def test_a_read_waits_for_a_round_of_heartbeats_and_for_an_entry_of_the_term() -> None:
    """Reference: dissertation §6.4 "the leader … issues a new round of heartbeats and waits for their acknowledgments
    from a majority of the cluster"; "if the leader has not yet marked an entry from its current term committed, it
    waits"."""
    network = plain(logs={1: [1], 2: [1], 3: [1]})
    leader = network[1]
    leader.node.campaign(network.now_us)
    leader.pump()
    network.deliver(lambda m: isinstance(m, RequestVote | RequestVoteResponse))
    leader.node.read_index(7, network.now_us)
    leader.pump()
    network.deliver(lambda m: isinstance(m, Heartbeat) or (m.to == ONE and not isinstance(m, AppendEntriesResponse)))
    assert leader.reads == [], "nothing of term 2 is committed yet"
    network.deliver(lambda m: isinstance(m, AppendEntries | AppendEntriesResponse))
    assert leader.reads == [], "no round of heartbeats was answered yet"
    network.deliver()
    assert leader.reads == [(7, 2)]

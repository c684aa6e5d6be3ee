"""Which of the rare events that the code names were never reached: a search proves nothing about what it never got to.

Rule: the names are the literal texts in the source of the packages that a level runs; there is no second list of them.
Each mark has one owner: the Raft core's are the core level's, which runs ten times as many seeds; the rest are the full
level's, but for those that a test brings about.
Knows nothing of what the events mean.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Final

import seatrial
from seatrial.sim.case import Level

# What runs at a level; the core level has a state machine and storage of its own.
PACKAGES: Final[Mapping[Level, tuple[str, ...]]] = {
    "core": ("raft",),
    "full": ("raft", "storage", "transport", "machines", "kafka", "server"),
}

_MEMBERS: Final = "tests/machines/test_members.py::test_"
_RARE: Final = "tests/server/test_rare_events.py::test_"
_HTTP: Final = "tests/server/test_http_connections.py::test_"
_BURDENS: Final = "tests/transport/test_contract_burdens.py::test_"
_NO_SIZE: Final = "simulated disks are full or not, of no size"
_MANY: Final = "it takes more groups than CAMPAIGNS_MAX on a node, and a case has a dozen"
_NEW_ID: Final = "a wiped node comes back under a new id in simulation"
_CLASSIC: Final = "tests/kafka/test_classic_group.py::test_"
_COORDINATOR: Final = "tests/server/test_group_coordinator.py::test_"
_GROUPS: Final = "no client of the swarm is in a consumer group: those cases are a family of the hunt for mutants"
_REPEATED: Final = "nothing in a case asks again for what has just been changed"
# What a search gets to seldom or never: why, and the test that brings it about and fails where it is not reached.
OWNED_BY_TESTS: Final[Mapping[str, tuple[str, str]]] = {
    "an order to campaign was ignored": (
        "leaders order nobody but voters that follow them; none of 5,000 core cases had one who could not obey",
        "tests/raft/test_transfer.py::test_a_timeout_now_is_ignored_where_it_makes_no_sense",
    ),
    "a removed leader stepped down without an heir": (
        "a quorum must hear of its removal and then be silent for an election timeout",
        "tests/raft/test_reconfiguring.py::test_a_removed_leader_without_an_heir_steps_down_after_an_election_timeout",
    ),
    "no snapshot that helps a follower was there yet": (
        "no driver here forgets entries before the snapshot that covers them is durable",
        "tests/raft/test_snapshots.py::test_a_leader_without_a_usable_snapshot_waits_for_one",
    ),
    "a client was waited for long enough": (
        "simulated clients are unmodified, and none rests for ten minutes or sends half a request",
        "tests/server/test_patience.py::test_a_half_frame_costs_its_own_connection_after_its_time",
    ),
    "an HTTP client was waited for long enough": (
        "as with Kafka clients: those of a case are in order",
        f"{_HTTP}a_half_request_costs_its_own_connection_after_its_time",
    ),
    "an HTTP client sent a head without end": (
        "clients of a case are in order",
        f"{_HTTP}a_head_without_end_is_refused_and_a_large_one_is_not",
    ),
    "a peer was waited for long enough": (
        "a simulated node sends whole frames, and links bring them or break",
        f"{_BURDENS}a_frame_is_not_held_to_the_time_of_the_one_before",
    ),
    "there were too many connections from peers": (
        "nobody but nodes calls nodes in a case",
        f"{_BURDENS}strangers_have_room_for_each_other_alone_and_never_push_a_peer_out",
    ),
    "a peer took none of the answers to it": (
        "simulated nodes read what they are sent, unless they are paused and ask nothing",
        f"{_BURDENS}a_peer_that_takes_none_of_its_answers_is_hung_up_on",
    ),
    "records were refused because the disk was nearly full": (
        _NO_SIZE,
        "tests/server/test_disk_room.py::test_they_are_taken_again_as_soon_as_there_is_room",
    ),
    "records of a leader were not taken because the disk was nearly full": (
        _NO_SIZE,
        "tests/server/test_disk_room.py::"
        "test_what_leaders_send_is_taken_until_half_of_the_reserve_is_left_and_each_change_is_told_once",
    ),
    "records were refused because a majority's disks were nearly full": (
        _NO_SIZE,
        "tests/server/test_room.py::test_a_leader_takes_records_as_long_as_a_majority_has_room_for_them",
    ),
    "a leader handed over because its disk was nearly full": (
        _NO_SIZE,
        "tests/server/test_room.py::test_a_leader_without_room_hands_over_to_a_voter_that_has_some_and_has_all",
    ),
    "a follower did not take the records of an append, for want of room": (
        _NO_SIZE,
        "tests/server/test_room.py::test_a_follower_takes_records_of_its_leader_until_half_of_the_reserve_is_left",
    ),
    "an election was postponed because too many were under way": (
        _MANY,
        f"{_RARE}no_more_groups_stand_for_election_at_once_than_a_node_can_bear",
    ),
    "a quiet group's follower was told of a commit that it had missed": (
        "one of 900 full cases: the last heartbeat before the silence must be lost",
        f"{_RARE}a_quiet_follower_is_told_of_a_commit_that_it_missed_by_its_own_leader_alone",
    ),
    "a node came back with another data directory and was refused": (
        _NEW_ID,
        f"{_MEMBERS}a_node_that_comes_back_with_an_empty_directory_is_refused_with_what_to_do",
    ),
    "a node was told that it had lost its data directory": (
        _NEW_ID,
        f"{_RARE}a_node_whose_directory_is_another_ends_and_is_told_what_to_do",
    ),
    "a replica was refused on a node that had held it, while old replicas lingered": (
        _REPEATED,
        f"{_MEMBERS}a_node_that_left_comes_back_only_when_all_old_replicas_are_gone",
    ),
    "a partition's leader reported a target that had been changed meanwhile": (
        _REPEATED,
        f"{_MEMBERS}a_late_report_of_an_earlier_target_settles_nothing",
    ),
    "a replica was reported gone for a target that had been changed meanwhile": (
        _REPEATED,
        f"{_MEMBERS}a_replica_reported_gone_before_the_target_changed_does_not_count",
    ),
    "a replica was wanted while its old files were still being deleted": (
        _REPEATED,
        f"{_RARE}a_replica_that_is_wanted_while_its_files_are_deleted_is_opened_afterwards",
    ),
    "a founder that had never come up was removed": (
        "all nodes of a case come up at its beginning",
        f"{_MEMBERS}a_founder_that_never_registered_leaves_by_what_is_known_of_it_and_one_that_did_by_what_it_said",
    ),
    "a session was so old that its answer was forgotten": (
        "clients of a case ask one thing at a time, so no session of theirs is so far behind",
        f"{_RARE}a_write_of_a_session_that_is_too_old_is_not_told_as_failed",
    ),
    "a snapshot was installed over an open proposal": (
        "a leader that was cut off gives its proposals up before it is so far behind",
        f"{_RARE}a_snapshot_over_an_open_proposal_hides_its_fate_and_leaves_later_ones_open",
    ),
    "a group was closed with a proposal open": (
        "replicas are deleted when they lead no more, and a simulated process ends without closing anything",
        f"{_RARE}a_proposal_that_is_open_when_its_group_is_closed_has_an_unknown_fate",
    ),
    "a read index was never answered, and was given up": (
        "a leader that answers no read index is replaced before two seconds have passed",
        f"{_RARE}a_read_index_that_nobody_answers_is_given_up_when_the_next_is_asked_for",
    ),
    "a coordinator went on with a rebalance that another one had begun": (
        _GROUPS,
        f"{_CLASSIC}a_rebalance_that_was_half_done_goes_on_at_another_coordinator",
    ),
    "a member's session ended without a heartbeat": (
        _GROUPS,
        f"{_CLASSIC}a_session_lasts_as_long_as_heartbeats_come",
    ),
    "members that never asked for their assignment were removed from the group": (
        _GROUPS,
        f"{_CLASSIC}members_that_never_ask_for_their_assignment_are_removed",
    ),
    "a rebalance went on without a member that did not join in time": (
        _GROUPS,
        f"{_CLASSIC}members_that_do_not_join_in_time_are_left_out",
    ),
    "a static member came back and the group went on without a rebalance": (
        _GROUPS,
        f"{_CLASSIC}a_static_member_that_comes_back_takes_its_place_without_a_rebalance",
    ),
    "a coordinator lost its lead while somebody waited for it": (
        _GROUPS,
        f"{_COORDINATOR}whoever_waits_is_told_when_the_lead_is_lost_and_the_next_coordinator_goes_on",
    ),
    "a group's record had to wait until Raft could take it": (
        _GROUPS,
        f"{_COORDINATOR}records_that_raft_is_too_full_for_keep_their_order",
    ),
    "offsets that nobody needs any more were forgotten": (
        _GROUPS,
        f"{_COORDINATOR}a_group_goes_with_its_last_offset_but_not_under_a_member_that_just_joins",
    ),
    "a coordinator of consumer groups ended with its lead": (
        _GROUPS,
        f"{_COORDINATOR}a_coordinator_begins_when_its_lead_is_established_and_ends_with_its_term",
    ),
    "a leader that nobody vouched for answered no fetch": (
        "no client of the swarm demands linearizable reads; a node without a majority for so long is asked by few",
        "tests/kafka/test_fresh_fetches.py::test_a_leader_that_nobody_vouches_for_does_not_say_that_there_is_no_more",
    ),
    "a leader handed over to the preferred replica because a client had asked for it": (
        "no client of the swarm asks for elections",
        "tests/server/test_members.py::test_a_leader_hands_over_to_the_preferred_replica_when_a_client_asks_for_it",
    ),
    "a read index was answered after it had been given up": (
        "a leader that answers no read index is replaced before two seconds have passed",
        f"{_RARE}an_answer_to_a_read_that_was_given_up_ends_no_other_read",
    ),
}


@functools.cache
def marks_in_code(level: Level) -> Mapping[str, str]:
    """Every mark that this level could reach, with where it stands ("raft/log.py:238"), in the order of the code."""
    root = Path(seatrial.__file__).parent
    return {
        name: f"{path.relative_to(root)}:{line}"
        for package in PACKAGES[level]
        for path in sorted((root / package).rglob("*.py"))
        for name, line in _marks_of(path)
    }


def _marks_of(path: Path) -> Iterator[tuple[str, int]]:
    text = path.read_text()
    if "seatrial.marks" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
            argument = node.args[0]
            if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                raise ValueError(f"{path}:{node.lineno}: a mark must be named by its literal text, to be listed")
            yield argument.value, node.lineno


def owner(name: str) -> str:
    """Who must get to this mark: a level ("core" for all that its own search runs, or "full"), or a test, by its id."""
    if name in OWNED_BY_TESTS:
        return OWNED_BY_TESTS[name][1]
    return "core" if name in marks_in_code("core") else "full"


def never_reached(level: Level, reached: Container[str]) -> list[str]:
    """The marks that this level owns and that are not among those reached, each with where it stands."""
    return [
        f"{name}  ({where})"
        for name, where in marks_in_code(level).items()
        if name not in reached and owner(name) == level
    ]

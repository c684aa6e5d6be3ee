"""How many groups may stand for election at once: fewer where votes come too late, more where elections are won."""

from __future__ import annotations

from seatrial.raft.ids import GroupId
from seatrial.raft.roles import Role
from seatrial.server.campaigns import CAMPAIGNS_FIRST, CAMPAIGNS_MAX, CAMPAIGNS_MIN, Campaigns


def stand(campaigns: Campaigns, first: int = 0) -> list[GroupId]:
    """As many candidates as there is room for, from this number on."""
    standing = []
    while campaigns.has_room:
        group = GroupId(first + len(standing))
        campaigns.look(group, Role.CANDIDATE)
        standing.append(group)
    return standing


def test_a_won_election_makes_room_for_another_and_for_one_more() -> None:
    campaigns = Campaigns()
    standing = stand(campaigns)
    assert len(standing) == CAMPAIGNS_FIRST
    campaigns.look(standing[0], Role.LEADER)
    assert len(stand(campaigns, first=100)) == 2


def test_however_many_elections_are_won_there_is_a_limit() -> None:
    campaigns = Campaigns()
    for number in range(10 * CAMPAIGNS_MAX):
        campaigns.look(GroupId(number), Role.CANDIDATE)
        campaigns.look(GroupId(number), Role.LEADER)
    assert campaigns.limit == CAMPAIGNS_MAX


def test_a_flock_that_gets_no_votes_in_time_halves_the_limit_once() -> None:
    campaigns = Campaigns()
    for group in stand(campaigns):
        campaigns.ran_out_of_time(group, Role.CANDIDATE)
    assert campaigns.limit == CAMPAIGNS_FIRST // 2


def test_the_next_flock_without_votes_halves_it_again_down_to_a_few() -> None:
    campaigns = Campaigns()
    for _ in range(10):
        for group in stand(campaigns):
            campaigns.ran_out_of_time(group, Role.CANDIDATE)
    assert campaigns.limit == CAMPAIGNS_MIN
    assert campaigns.has_room


def test_pre_candidates_that_hear_nothing_make_room_and_leave_the_limit_alone() -> None:
    """Their peers are out of reach; that says nothing of the disks, and must not keep out those that can win."""
    campaigns = Campaigns()
    for number in range(CAMPAIGNS_FIRST):
        campaigns.look(GroupId(number), Role.PRE_CANDIDATE)
    assert not campaigns.has_room
    for number in range(CAMPAIGNS_FIRST):
        campaigns.ran_out_of_time(GroupId(number), Role.PRE_CANDIDATE)
    assert campaigns.limit == CAMPAIGNS_FIRST
    assert len(stand(campaigns, first=100)) == CAMPAIGNS_FIRST


def test_a_follower_whose_timeout_passes_says_nothing_of_elections() -> None:
    campaigns = Campaigns()
    campaigns.ran_out_of_time(GroupId(1), Role.FOLLOWER)
    assert campaigns.limit == CAMPAIGNS_FIRST


def test_a_group_that_finds_a_leader_or_is_closed_makes_room() -> None:
    campaigns = Campaigns()
    standing = stand(campaigns)
    campaigns.look(standing[0], Role.FOLLOWER)
    campaigns.ended(standing[1])
    assert len(campaigns) == CAMPAIGNS_FIRST - 2
    assert campaigns.limit == CAMPAIGNS_FIRST

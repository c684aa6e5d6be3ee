"""Families of cases at the core level, that lead where a bug of Raft can show.

In steered families elections happen when the plan says so (`campaign`), because timers are long and nothing else
unseats a leader.
Rule: a family is still a search by seed: it fixes what its bug needs, and draws the rest; every case is within budget.
Knows nothing of how cases are run.
"""

from __future__ import annotations

from typing import Final

import msgspec

from seatrial.env import Rng
from seatrial.sim.case import Case, Disk, Fault, Level, Load, Network, Raft
from seatrial.sim.mutants_plans import (
    between,
    campaign,
    change,
    cut,
    cut_one_way,
    cut_power,
    in_order,
    into,
    isolate,
    kill,
    out_of,
    transfer,
)

_STEERED: Final = Raft(pre_vote=False, check_quorum=False, election_timeout_us=2_000_000, heartbeat_us=50_000)
_EVEN_NETWORK: Final = Network(delay_us=(900, 1_100), tail=0.0)
_QUICK_DISK: Final = Disk(sync_us=(100, 150), unsynced="lost")


def rival_leaders(seed: int, level: Level) -> Case:
    """Again and again a node is cut off, leader or not, and another is made leader: the old one knows nothing of it."""
    rng = Rng(seed).child("rival leaders")
    nodes = rng.choice((3, 3, 5))
    faults = [campaign(5_000, 1)]
    at_us = 200_000
    while at_us < 2_600_000:
        node = rng.integer(1, nodes)
        lasting_us = rng.integer(60_000, 500_000)
        faults.append(isolate(at_us, lasting_us, node, nodes))
        rival = 1 + (node + rng.integer(0, nodes - 2)) % nodes
        faults.append(campaign(at_us + rng.integer(1_000, 20_000), rival))
        if rng.chance(0.3):
            faults.append(kill(at_us + rng.integer(0, lasting_us), 20_000, rng.integer(1, nodes)))
        at_us += lasting_us + rng.integer(20_000, 200_000)
    return Case(
        level=level,
        seed=seed,
        nodes=nodes,
        duration_us=3_000_000,
        network=_EVEN_NETWORK,
        disk=Disk(sync_us=(100, rng.choice((200, 5_000))), unsynced="lost"),
        raft=Raft(
            pre_vote=False,
            check_quorum=False,
            election_timeout_us=1_000_000,
            heartbeat_us=rng.integer(50_000, 300_000),
            max_message_bytes=rng.choice((64, 256, 1 << 20)),
        ),
        load=Load(clients=6, rate=200, reads=rng.choice((0.2, 0.6)), keys=3),
        faults=in_order(faults),
    )


def leases(seed: int, level: Level) -> Case:
    """Reads by lease at a leader that is cut off, clocks that differ as much as they may, and rivals that hurry."""
    rng = Rng(seed).child("leases")
    timeout_us, leader = 1_000_000, 1
    faults = [campaign(5_000, leader)]
    for at_us in range(500_000, 7_000_000, 2_000_000):
        others = [other for other in (1, 2, 3) if other != leader]
        way = rng.choice(("drift", "restart", "transfer"))
        deafness = isolate(at_us, 1_300_000, leader, 3)
        if way == "transfer":
            faults.append(transfer(at_us, others[0]))
            deafness = cut_one_way(at_us + 200, 1_300_000, into(leader, 3))
        elif way == "restart":
            faults += [kill(at_us + 2_000, 5_000, other) for other in others]
            faults += [campaign(at_us + delay_us, others[0]) for delay_us in range(20_000, 400_000, 50_000)]
        else:
            rates = [(leader, -45_000), *((other, 45_000) for other in others)]
            faults += [
                Fault(at_us=at_us - 200_000, kind="clock-drift", duration_us=1_500_000, nodes=(node,), value=ppm)
                for node, ppm in rates
            ]
            faults += [campaign(at_us + delay_us, others[0]) for delay_us in range(940_000, 1_060_000, 10_000)]
        faults.append(deafness)
        leader = others[0]
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=7_500_000,
        network=Network(delay_us=(100, 200), tail=0.0),
        disk=_QUICK_DISK,
        raft=Raft(lease_reads=True, election_timeout_us=timeout_us, heartbeat_us=20_000),
        load=Load(clients=6, rate=300, reads=0.75, keys=2),
        faults=in_order(faults),
    )


def figure_8(seed: int, level: Level) -> Case:
    """The five servers of Raft's figure 8, step by step, with the moments of the cuts drawn."""
    rng = Rng(seed).child("figure 8")
    jitter = rng.child("moments").integer
    second, third, fourth = 400_000, 700_000, 1_000_000
    again = third + 10_000  # in its first attempt node 1 meets the term of node 5's election
    faults = [
        campaign(5_000, 1),
        # (a, b) The leader's entries reach node 2 alone; nodes 3 and 4 elect node 5, whose entries reach nobody.
        cut(300_000, 900_000, between((1, 2), (5,))),
        cut(300_000, 390_000, between((1, 2), (3, 4))),
        campaign(second, 5),
        cut(second + jitter(1_300, 2_000), 280_000, ((5, 3), (5, 4))),
        isolate(second + 200_000, 350_000, 5, 5),
        kill(500_000, 50_000, 1),
        kill(800_000, 50_000, 5),
        # (c) Node 1 leads again; an entry of its first term reaches node 3, and none of this term does.
        campaign(third, 1),
        campaign(again, 1),
        cut(third - 20_000, 800_000, between((1, 2), (4,))),
        cut(again + jitter(4_000, 7_000), 800_000, ((1, 2), (1, 3), (1, 4))),
        # (d) Nodes 3 and 4 elect node 5 once more.
        cut(fourth - 60_000, 600_000, between((1, 2), (3, 4, 5))),
        *(campaign(fourth + attempt * 20_000, 5) for attempt in range(3)),
    ]
    return Case(
        level=level,
        seed=seed,
        nodes=5,
        duration_us=1_500_000,
        network=Network(delay_us=(1_000, 1_010), tail=0.0),
        disk=_QUICK_DISK,
        raft=Raft(
            pre_vote=False,
            check_quorum=False,
            election_timeout_us=2_000_000,
            heartbeat_us=100_000,
            max_message_bytes=1,
        ),
        load=Load(clients=4, rate=40, reads=0.0),
        faults=in_order(faults),
    )


def many_chunks(seed: int, level: Level) -> Case:
    """Snapshots of many chunks, over a network that repeats and loses, to nodes that crash and leaders that change."""
    rng = Rng(seed).child("many chunks")
    nodes = 3
    faults = [campaign(5_000, 1)]
    at_us = 150_000
    while at_us < 2_700_000:
        node = rng.integer(1, nodes)
        lasting_us = rng.integer(50_000, 300_000)
        faults.append(isolate(at_us, lasting_us, node, nodes))
        ended_us = at_us + lasting_us
        if rng.chance(0.5):
            faults.append(cut_power(ended_us + rng.integer(1_000, 60_000), 20_000, node))
        if rng.chance(0.4):
            faults.append(campaign(ended_us + rng.integer(1_000, 60_000), 1 + node % nodes))
        at_us = ended_us + rng.integer(50_000, 200_000)
    return Case(
        level=level,
        seed=seed,
        nodes=nodes,
        duration_us=3_000_000,
        network=Network(delay_us=(500, 3_000), tail=0.02, loss=rng.choice((0.0, 0.05)), duplicate=0.1),
        disk=Disk(sync_us=(1_000, rng.choice((2_000, 20_000))), unsynced="lost"),
        raft=Raft(
            pre_vote=rng.chance(0.5),
            election_timeout_us=300_000,
            heartbeat_us=20_000,
            snapshot_entries=rng.integer(4, 20),
            keep_entries=1,
            snapshot_chunk_bytes=rng.integer(8, 64),
        ),
        load=Load(clients=4, rate=150, reads=0.1, keys=10),
        faults=in_order(faults),
    )


def split_changes(seed: int, level: Level) -> Case:
    """Changes of members at a leader cut off with the new nodes, while the others elect a leader of their own."""
    rng = Rng(seed).child("split changes")
    faults = [
        campaign(5_000, 1),
        change(150_000, 300_000, "add-learner", 4),
        change(300_000, 300_000, "add-learner", 5),
    ]
    at_us = 600_000
    while at_us < 2_500_000:
        leader = rng.integer(1, 3)
        others = [node for node in (1, 2, 3) if node != leader]
        faults.append(campaign(at_us, leader))
        cut_us = at_us + 100_000 + rng.integer(0, 10_000)
        spared = rng.choice(((4, 5), (4,), (5,), ()))
        rest = [*others, *(node for node in (4, 5) if node not in spared)]
        faults.append(cut(cut_us, 350_000, between((leader, *spared), rest)))
        way = rng.integer(0, 4)
        if way == 0:
            faults.append(change(cut_us + rng.integer(-4_000, 4_000), 60_000, "replace", rng.choice(others), 4))
        elif way == 1:
            faults += [change(cut_us + 2_000, 40_000, "promote", 4), change(cut_us + 10_000, 40_000, "promote", 5)]
        elif way == 2:
            faults += [change(cut_us + 2_000, 40_000, "remove", other) for other in others]
        elif way == 3:
            faults.append(change(cut_us + rng.integer(-4_000, 4_000), 60_000, "joint-explicit", rng.choice(others)))
        else:
            faults.append(change(cut_us + rng.integer(-4_000, 4_000), 60_000, "add-voter", rng.choice((4, 5))))
        faults += [campaign(cut_us + 80_000, rng.choice(others)), campaign(cut_us + 200_000, leader)]
        if rng.chance(0.5):
            faults.append(kill(cut_us + 150_000, 20_000, leader))  # or it goes on leading, and cannot be elected anew
        if rng.chance(0.3):
            faults.append(kill(cut_us + 370_000, 20_000, rng.integer(1, 5)))
        at_us = cut_us + 450_000
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        spares=2,
        duration_us=3_000_000,
        network=_EVEN_NETWORK,
        disk=_QUICK_DISK,
        raft=msgspec.structs.replace(_STEERED, snapshot_entries=rng.choice((10, 200)), keep_entries=2),
        load=Load(clients=4, rate=100, reads=0.2),
        faults=in_order(faults),
    )


def late_hand_over(seed: int, level: Level) -> Case:
    """The order to take over is under way for so long that it was given up, and more was committed meanwhile."""
    rng = Rng(seed).child("late hand-over")
    faults = [campaign(5_000, 1)]
    for at_us in range(500_000, 4_500_000, 1_000_000):
        heir = rng.integer(1, 3)
        faults.append(Fault(at_us=at_us, kind="clog", duration_us=600_000, links=into(heir, 3)))
        faults.append(transfer(at_us + 1_000, heir))
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=5_000_000,
        network=_EVEN_NETWORK,
        disk=_QUICK_DISK,
        raft=Raft(election_timeout_us=200_000, heartbeat_us=30_000),
        load=Load(clients=3, rate=20, reads=0.1),
        faults=in_order(faults),
    )


def lost_campaigns(seed: int, level: Level) -> Case:
    """A node is told to take over, and nobody hears it ask for votes: it is in a later term than all others."""
    rng = Rng(seed).child("lost campaigns")
    nodes = rng.choice((3, 3, 5))
    faults = [campaign(5_000, 1)]
    for at_us in range(500_000, 4_500_000, 800_000):
        heir = rng.integer(1, nodes)
        cut_us = at_us + rng.integer(0, 3_000)
        faults.append(transfer(at_us, heir))
        faults.append(cut_one_way(cut_us, rng.integer(20_000, 150_000), out_of(heir, nodes)))
    return Case(
        level=level,
        seed=seed,
        nodes=nodes,
        duration_us=5_000_000,
        network=_EVEN_NETWORK,
        disk=_QUICK_DISK,
        raft=Raft(election_timeout_us=250_000, heartbeat_us=30_000),
        load=Load(clients=3, rate=20, reads=0.1),
        faults=in_order(faults),
    )


def single_change(seed: int, level: Level) -> Case:
    """The bug of single-server changes: two leaders change one member each, of the same four."""
    rng = Rng(seed).child("single change")
    jitter = rng.child("moments").integer
    second, third = 700_000, 1_100_000
    faults = [
        campaign(5_000, 1),
        change(200_000, 300_000, "add-learner", 5),
        # Node 1 makes 5 a voter, and only 5 hears of it.
        cut(600_000, 400_000, between((1, 5), (2, 3, 4))),
        change(605_000, 20_000, "promote", 5),
        # Node 2 is elected by 2, 3 and 4, and removes 1 before it has committed anything; 4 hears nothing of it.
        campaign(second, 2),
        cut(second + jitter(1_300, 1_900), 1_500_000, between((2, 3), (4,))),
        change(second + jitter(2_200, 5_000), 20_000, "remove", 1),
        # Node 1 is elected by 1, 4 and 5.
        cut(1_000_000, 1_500_000, between((1, 4, 5), (2, 3))),
        *(campaign(third + step * 50_000, 1) for step in range(4)),
    ]
    return Case(
        level=level,
        seed=seed,
        nodes=4,
        spares=1,
        duration_us=2_000_000,
        network=Network(delay_us=(1_000, 1_010), tail=0.0),
        disk=_QUICK_DISK,
        raft=_STEERED,
        load=Load(clients=2, rate=20, reads=0.2),
        faults=in_order(faults),
    )

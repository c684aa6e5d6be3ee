"""Families of cases at the full level, that lead where a bug of the disk, of a retry or of the server can show.

Rule: a family is still a search by seed: it fixes what its bug needs, and draws the rest; every case is within budget.
Knows nothing of how cases are run.
"""

from __future__ import annotations

import msgspec

from seatrial.env import Rng
from seatrial.sim.case import Case, Disk, Fault, Level, Load, Network, Raft
from seatrial.sim.mutants_plans import cut_one_way, cut_power, into, isolate, kill, transfer


def power_cuts(seed: int, level: Level) -> Case:
    """The power fails, for one machine or for all of them, again and again, under load; some syncs fail before."""
    rng = Rng(seed).child("power cuts")
    faults: list[Fault] = []
    at_us = rng.integer(200_000, 600_000)
    while at_us < 2_800_000:
        way = rng.random()
        nodes = (1, 2, 3) if way < 0.45 else (rng.integer(1, 3),)
        if way > 0.8:
            faults.append(Fault(at_us=at_us, kind="io-error", duration_us=60_000, nodes=nodes, mode="sync"))
            at_us += 100_000
        elif way > 0.65:
            faults.append(kill(at_us, 30_000, nodes[0]))
            at_us += rng.integer(31_000, 60_000)
        faults.append(cut_power(at_us, 60_000, *nodes))
        at_us += rng.integer(300_000, 600_000)
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=3_000_000,
        network=Network(delay_us=(100, 500), tail=0.0),
        disk=Disk(sync_us=(500, rng.choice((1_000, 15_000))), unsynced=rng.choice(("lost", "some"))),
        raft=Raft(
            election_timeout_us=120_000, heartbeat_us=25_000, snapshot_entries=rng.integer(10, 60), keep_entries=5
        ),
        load=Load(clients=4, rate=40, reads=0.2, keys=3, kafka_rate=60, partitions=1),
        faults=tuple(faults),
    )


def replays(seed: int, level: Level) -> Case:
    """Messages of every kind arrive again, among them the writes that followers pass on to the leader."""
    rng = Rng(seed).child("replays")
    links = tuple(link for node in (1, 2, 3) for link in into(node, 3))
    fault = Fault(
        at_us=500_000,
        kind="filter",
        mode="replay-messages",
        links=links,
        value=rng.choice((0.1, 0.3)),
        duration_us=3_000_000,
    )
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=4_000_000,
        network=Network(delay_us=(200, 800), tail=0.0),
        load=Load(clients=4, rate=60, reads=0.4, keys=1, kafka_rate=10, partitions=1),
        faults=(fault,),
    )


def kills(seed: int, level: Level) -> Case:
    """One process after the other is killed while answers are under way on a slow network, so that clients repeat."""
    rng = Rng(seed).child("kills")
    order = [1, 2, 3]
    rng.shuffle(order)
    faults = []
    for turn, at_us in enumerate(range(500_000, 3_740_000, 270_000)):
        begin_us = at_us + rng.integer(0, 60_000)
        faults.append(kill(begin_us, rng.integer(40_000, 150_000), order[turn % 3]))
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=4_000_000,
        network=Network(delay_us=(3_000, 6_000), tail=0.0),
        disk=Disk(sync_us=(100, 400)),
        raft=Raft(
            election_timeout_us=150_000, heartbeat_us=40_000, snapshot_entries=rng.integer(4, 12), keep_entries=1
        ),
        load=Load(clients=6, rate=100, reads=0.4, keys=2, kafka_rate=100, partitions=1),
        faults=tuple(faults),
    )


def deaf_leaders(seed: int, level: Level) -> Case:
    """One node after the other hears nothing of the others, who hear it: a leader then acts without knowing it."""
    rng = Rng(seed).child("deaf leaders")
    order = [1, 2, 3]
    rng.shuffle(order)
    faults = []
    for turn, node in enumerate(order):
        at_us = 500_000 + turn * 2_800_000 + rng.integer(0, 100_000)
        faults.append(cut_one_way(at_us, 2_400_000, into(node, 3)))
        if rng.chance(0.5):
            others = [other for other in (1, 2, 3) if other != node]
            faults.append(kill(at_us + rng.integer(150_000, 450_000), 30_000, others[turn % 2]))
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=9_000_000,
        network=Network(delay_us=(200, 800), tail=0.0),
        raft=Raft(
            election_timeout_us=rng.choice((200_000, 700_000)),
            heartbeat_us=60_000,
            snapshot_entries=rng.choice((3, 200)),
            keep_entries=1,
        ),
        load=Load(clients=4, rate=40, reads=0.4, keys=1, kafka_rate=10, partitions=1),
        faults=tuple(faults),
    )


def torn_writes(seed: int, level: Level) -> Case:
    """One machine after the other loses its power in the middle of slow writes, of which some sectors stay."""
    rng = Rng(seed).child("torn writes")
    faults = [
        cut_power(at_us + rng.integer(0, 60_000), 20_000, node)
        for at_us, node in zip(range(400_000, 2_800_000, 200_000), [1, 2, 3] * 4, strict=True)
    ]
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=3_000_000,
        network=Network(delay_us=(100, 500), tail=0.0),
        disk=Disk(sync_us=(5_000, 12_000), unsynced="some"),
        raft=Raft(election_timeout_us=250_000, heartbeat_us=40_000, snapshot_entries=500),
        load=Load(clients=6, rate=100, reads=0.0, keys=3, kafka_rate=120, partitions=1),
        faults=tuple(faults),
    )


def quiet_groups(seed: int, level: Level) -> Case:
    """As hand-overs, with little to do, and groups that fall quiet as soon as they may."""
    case = hand_overs(seed, level)
    rng = Rng(seed).child("quiet groups")
    return msgspec.structs.replace(
        case,
        raft=msgspec.structs.replace(case.raft, quiet_groups=1, quiet_beats=rng.integer(1, 3)),
        load=msgspec.structs.replace(case.load, rate=6, kafka_rate=4, partitions=3),
    )


def hand_overs(seed: int, level: Level) -> Case:
    """Leaders are cut off, killed, paused, told to hand over, again and again, under load; snapshots are frequent."""
    rng = Rng(seed).child("hand-overs")
    faults: list[Fault] = []
    at_us = rng.integer(300_000, 700_000)
    while at_us < 3_600_000:
        node = rng.integer(1, 3)
        lasting_us = rng.integer(100_000, 900_000)
        way = rng.choice(("cut", "cut", "one-way", "kill", "pause", "transfer"))
        if way == "cut":
            faults.append(isolate(at_us, lasting_us, node, 3))
        elif way == "one-way":
            faults.append(cut_one_way(at_us, lasting_us, into(node, 3)))
        elif way == "kill":
            lasting_us //= 4
            faults.append(kill(at_us, lasting_us, node))
        elif way == "pause":
            faults.append(Fault(at_us=at_us, kind="pause", duration_us=lasting_us, nodes=(node,)))
        else:
            lasting_us = 50_000
            faults.append(transfer(at_us, node))
        at_us += lasting_us + rng.integer(50_000, 400_000)
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=4_000_000,
        network=Network(delay_us=(200, rng.choice((800, 5_000))), tail=0.02, split=0.3),
        raft=Raft(
            election_timeout_us=150_000,
            heartbeat_us=30_000,
            check_quorum=rng.chance(0.5),
            snapshot_entries=rng.integer(5, 30),
            keep_entries=2,
        ),
        load=Load(clients=4, rate=60, reads=rng.choice((0.2, 0.5)), keys=2, kafka_rate=60, partitions=1),
        faults=tuple(faults),
    )


def large_values(seed: int, level: Level) -> Case:
    """As hand-overs, half as often, where one value and one record in twenty are larger than one read of a socket."""
    case = hand_overs(seed, level)
    raft = msgspec.structs.replace(case.raft, snapshot_chunk_bytes=64 << 10)
    load = msgspec.structs.replace(case.load, rate=20, kafka_rate=20, large_bytes=600_000)
    return msgspec.structs.replace(case, faults=case.faults[::2], raft=raft, load=load)


def group_hand_overs(seed: int, level: Level) -> Case:
    """As hand-overs, where all that clients do is what members of a consumer group do."""
    load = Load(clients=1, rate=4, keys=1, kafka_rate=0, partitions=1, members=2, group_rate=60)
    return msgspec.structs.replace(hand_overs(seed, level), load=load)


def deletions(seed: int, level: Level) -> Case:
    """As power cuts, half as often, in topics of which little is kept: by size, or as clients ask for it."""
    rng = Rng(seed).child("deletions")
    case = power_cuts(seed, level)
    load = msgspec.structs.replace(case.load, rate=4, kafka_rate=150, payload_bytes=40)
    if rng.chance(0.7):
        load = msgspec.structs.replace(load, retention_bytes=rng.integer(300, 2_500))
    else:
        load = msgspec.structs.replace(load, deletions=3.0)
    return msgspec.structs.replace(
        case,
        duration_us=2 * case.duration_us,
        faults=tuple(msgspec.structs.replace(fault, at_us=2 * fault.at_us) for fault in case.faults),
        raft=msgspec.structs.replace(case.raft, snapshot_entries=rng.integer(5, 20)),
        load=load,
    )

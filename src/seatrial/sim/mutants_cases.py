"""How the cases of a mutant's hunt are drawn: the swarm's own, or a family that leads where its bug can show.

Random search is no proof, and some bugs need what most seeds do not have: two leaders that both serve, a snapshot of
many chunks, a partition in the very milliseconds of a change.  A family is still a search by seed: it fixes what its
bug needs, and draws the rest.  In steered families elections happen when the plan says so (`campaign`), because timers
are long and nothing else unseats a leader.
Rule: the table of mutants says which family found each of them; every case is within the swarm's budget.
Knows nothing of how cases are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

import msgspec

from seatrial.env import Rng
from seatrial.sim.case import Case, Disk, Fault, Level, Load, Network, Raft
from seatrial.sim.swarm import draw_case

Draw: TypeAlias = Callable[[int, Level], Case]
Links: TypeAlias = tuple[tuple[int, int], ...]

_STEERED: Final = Raft(pre_vote=False, check_quorum=False, election_timeout_us=2_000_000, heartbeat_us=50_000)
_EVEN_NETWORK: Final = Network(delay_us=(900, 1_100), tail=0.0)
_QUICK_DISK: Final = Disk(sync_us=(100, 150), unsynced="lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Cases by seed.  meaning: what they have in common, as a sentence for the table."""

    meaning: str
    draw: Draw


def _between(some: Iterable[int], others: Iterable[int]) -> Links:
    """Every link between the two groups, both ways."""
    pairs = list(product(some, others))
    return tuple(sorted([*pairs, *((b, a) for a, b in pairs)]))


def _cut(at_us: int, duration_us: int, links: Links) -> Fault:
    return Fault(at_us=at_us, kind="cut", duration_us=duration_us, links=links, mode="partition")


def _isolate(at_us: int, duration_us: int, node: int, nodes: int) -> Fault:
    others = [other for other in range(1, nodes + 1) if other != node]
    return Fault(at_us=at_us, kind="cut", duration_us=duration_us, links=_between([node], others), mode="isolate")


def _campaign(at_us: int, node: int) -> Fault:
    return Fault(at_us=at_us, kind="campaign", nodes=(node,))


def _kill(at_us: int, duration_us: int, node: int) -> Fault:
    return Fault(at_us=at_us, kind="crash", duration_us=duration_us, nodes=(node,), mode="kill")


def _change(at_us: int, duration_us: int, mode: str, *nodes: int) -> Fault:
    return Fault(at_us=at_us, kind="membership", duration_us=duration_us, nodes=nodes, mode=mode)


def _in_order(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


def rival_leaders(seed: int, level: Level) -> Case:
    """Again and again a node is cut off, leader or not, and another is made leader: the old one knows nothing of it."""
    rng = Rng(seed).child("rival leaders")
    nodes = rng.choice((3, 3, 5))
    faults = [_campaign(5_000, 1)]
    at_us = 200_000
    while at_us < 2_600_000:
        node = rng.integer(1, nodes)
        lasting_us = rng.integer(60_000, 500_000)
        faults.append(_isolate(at_us, lasting_us, node, nodes))
        rival = 1 + (node + rng.integer(0, nodes - 2)) % nodes
        faults.append(_campaign(at_us + rng.integer(1_000, 20_000), rival))
        if rng.chance(0.3):
            faults.append(_kill(at_us + rng.integer(0, lasting_us), 20_000, rng.integer(1, nodes)))
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
        faults=_in_order(faults),
    )


def leases(seed: int, level: Level) -> Case:
    """Reads by lease at a leader that is cut off, clocks that differ as much as they may, and rivals that hurry."""
    rng = Rng(seed).child("leases")
    timeout_us, leader = 1_000_000, 1
    faults = [_campaign(5_000, leader)]
    for at_us in range(500_000, 7_000_000, 2_000_000):
        others = [other for other in (1, 2, 3) if other != leader]
        way = rng.choice(("drift", "restart", "transfer"))
        cut = _isolate(at_us, 1_300_000, leader, 3)
        if way == "transfer":
            faults.append(Fault(at_us=at_us, kind="transfer", nodes=(others[0],)))
            into = tuple((other, leader) for other in others)
            cut = Fault(at_us=at_us + 200, kind="cut", duration_us=1_300_000, links=into, mode="one-way")
        elif way == "restart":
            faults += [_kill(at_us + 2_000, 5_000, other) for other in others]
            faults += [_campaign(at_us + delay_us, others[0]) for delay_us in range(20_000, 400_000, 50_000)]
        else:
            rates = [(leader, -45_000), *((other, 45_000) for other in others)]
            faults += [
                Fault(at_us=at_us - 200_000, kind="clock-drift", duration_us=1_500_000, nodes=(node,), value=ppm)
                for node, ppm in rates
            ]
            faults += [_campaign(at_us + delay_us, others[0]) for delay_us in range(940_000, 1_060_000, 10_000)]
        faults.append(cut)
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
        faults=_in_order(faults),
    )


def figure_8(seed: int, level: Level) -> Case:
    """The five servers of Raft's figure 8, step by step, with the moments of the cuts drawn."""
    rng = Rng(seed).child("figure 8")
    jitter = rng.child("moments").integer
    second, third, fourth = 400_000, 700_000, 1_000_000
    again = third + 10_000  # in its first attempt node 1 meets the term of node 5's election
    faults = [
        _campaign(5_000, 1),
        # (a, b) The leader's entries reach node 2 alone; nodes 3 and 4 elect node 5, whose entries reach nobody.
        _cut(300_000, 900_000, _between((1, 2), (5,))),
        _cut(300_000, 390_000, _between((1, 2), (3, 4))),
        _campaign(second, 5),
        _cut(second + jitter(1_300, 2_000), 280_000, ((5, 3), (5, 4))),
        _isolate(second + 200_000, 350_000, 5, 5),
        _kill(500_000, 50_000, 1),
        _kill(800_000, 50_000, 5),
        # (c) Node 1 leads again; an entry of its first term reaches node 3, and none of this term does.
        _campaign(third, 1),
        _campaign(again, 1),
        _cut(third - 20_000, 800_000, _between((1, 2), (4,))),
        _cut(again + jitter(4_000, 7_000), 800_000, ((1, 2), (1, 3), (1, 4))),
        # (d) Nodes 3 and 4 elect node 5 once more.
        _cut(fourth - 60_000, 600_000, _between((1, 2), (3, 4, 5))),
        *(_campaign(fourth + attempt * 20_000, 5) for attempt in range(3)),
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
        faults=_in_order(faults),
    )


def many_chunks(seed: int, level: Level) -> Case:
    """Snapshots of many chunks, over a network that repeats and loses, to nodes that crash and leaders that change."""
    rng = Rng(seed).child("many chunks")
    nodes = 3
    faults = [_campaign(5_000, 1)]
    at_us = 150_000
    while at_us < 2_700_000:
        node = rng.integer(1, nodes)
        lasting_us = rng.integer(50_000, 300_000)
        faults.append(_isolate(at_us, lasting_us, node, nodes))
        ended_us = at_us + lasting_us
        if rng.chance(0.5):
            power = Fault(
                at_us=ended_us + rng.integer(1_000, 60_000),
                kind="crash",
                duration_us=20_000,
                nodes=(node,),
                mode="power",
            )
            faults.append(power)
        if rng.chance(0.4):
            faults.append(_campaign(ended_us + rng.integer(1_000, 60_000), 1 + node % nodes))
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
        faults=_in_order(faults),
    )


def split_changes(seed: int, level: Level) -> Case:
    """Changes of members at a leader cut off with the new nodes, while the others elect a leader of their own."""
    rng = Rng(seed).child("split changes")
    faults = [
        _campaign(5_000, 1),
        _change(150_000, 300_000, "add-learner", 4),
        _change(300_000, 300_000, "add-learner", 5),
    ]
    at_us = 600_000
    while at_us < 2_500_000:
        leader = rng.integer(1, 3)
        others = [node for node in (1, 2, 3) if node != leader]
        faults.append(_campaign(at_us, leader))
        cut_us = at_us + 100_000 + rng.integer(0, 10_000)
        spared = rng.choice(((4, 5), (4,), (5,), ()))
        rest = [*others, *(node for node in (4, 5) if node not in spared)]
        faults.append(_cut(cut_us, 350_000, _between((leader, *spared), rest)))
        way = rng.integer(0, 4)
        if way == 0:
            faults.append(_change(cut_us + rng.integer(-4_000, 4_000), 60_000, "replace", rng.choice(others), 4))
        elif way == 1:
            faults += [_change(cut_us + 2_000, 40_000, "promote", 4), _change(cut_us + 10_000, 40_000, "promote", 5)]
        elif way == 2:
            faults += [_change(cut_us + 2_000, 40_000, "remove", other) for other in others]
        elif way == 3:
            faults.append(_change(cut_us + rng.integer(-4_000, 4_000), 60_000, "joint-explicit", rng.choice(others)))
        else:
            faults.append(_change(cut_us + rng.integer(-4_000, 4_000), 60_000, "add-voter", rng.choice((4, 5))))
        faults += [_campaign(cut_us + 80_000, rng.choice(others)), _campaign(cut_us + 200_000, leader)]
        if rng.chance(0.5):
            faults.append(_kill(cut_us + 150_000, 20_000, leader))  # or it goes on leading, and cannot be elected anew
        if rng.chance(0.3):
            faults.append(_kill(cut_us + 370_000, 20_000, rng.integer(1, 5)))
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
        faults=_in_order(faults),
    )


def late_hand_over(seed: int, level: Level) -> Case:
    """The order to take over is under way for so long that it was given up, and more was committed meanwhile."""
    rng = Rng(seed).child("late hand-over")
    faults = [_campaign(5_000, 1)]
    for at_us in range(500_000, 4_500_000, 1_000_000):
        heir = rng.integer(1, 3)
        into = tuple((other, heir) for other in (1, 2, 3) if other != heir)
        faults.append(Fault(at_us=at_us, kind="clog", duration_us=600_000, links=into))
        faults.append(Fault(at_us=at_us + 1_000, kind="transfer", nodes=(heir,)))
    return Case(
        level=level,
        seed=seed,
        nodes=3,
        duration_us=5_000_000,
        network=_EVEN_NETWORK,
        disk=_QUICK_DISK,
        raft=Raft(election_timeout_us=200_000, heartbeat_us=30_000),
        load=Load(clients=3, rate=20, reads=0.1),
        faults=_in_order(faults),
    )


def single_change(seed: int, level: Level) -> Case:
    """The bug of single-server changes: two leaders change one member each, of the same four."""
    rng = Rng(seed).child("single change")
    jitter = rng.child("moments").integer
    second, third = 700_000, 1_100_000
    faults = [
        _campaign(5_000, 1),
        _change(200_000, 300_000, "add-learner", 5),
        # Node 1 makes 5 a voter, and only 5 hears of it.
        _cut(600_000, 400_000, _between((1, 5), (2, 3, 4))),
        _change(605_000, 20_000, "promote", 5),
        # Node 2 is elected by 2, 3 and 4, and removes 1 before it has committed anything; 4 hears nothing of it.
        _campaign(second, 2),
        _cut(second + jitter(1_300, 1_900), 1_500_000, _between((2, 3), (4,))),
        _change(second + jitter(2_200, 5_000), 20_000, "remove", 1),
        # Node 1 is elected by 1, 4 and 5.
        _cut(1_000_000, 1_500_000, _between((1, 4, 5), (2, 3))),
        *(_campaign(third + step * 50_000, 1) for step in range(4)),
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
        faults=_in_order(faults),
    )


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
            faults.append(_kill(at_us, 30_000, nodes[0]))
            at_us += rng.integer(31_000, 60_000)
        faults.append(Fault(at_us=at_us, kind="crash", duration_us=60_000, nodes=nodes, mode="power"))
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


def kills(seed: int, level: Level) -> Case:
    """One process after the other is killed while answers are under way on a slow network, so that clients repeat."""
    rng = Rng(seed).child("kills")
    order = [1, 2, 3]
    rng.shuffle(order)
    faults = []
    for turn, at_us in enumerate(range(500_000, 3_740_000, 270_000)):
        begin_us = at_us + rng.integer(0, 60_000)
        faults.append(_kill(begin_us, rng.integer(40_000, 150_000), order[turn % 3]))
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
        into = tuple((other, node) for other in (1, 2, 3) if other != node)
        at_us = 500_000 + turn * 2_800_000 + rng.integer(0, 100_000)
        faults.append(Fault(at_us=at_us, kind="cut", duration_us=2_400_000, links=into, mode="one-way"))
        if rng.chance(0.5):
            faults.append(_kill(at_us + rng.integer(150_000, 450_000), 30_000, into[turn % 2][0]))
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
        Fault(at_us=at_us + rng.integer(0, 60_000), kind="crash", duration_us=20_000, nodes=(node,), mode="power")
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
            faults.append(_isolate(at_us, lasting_us, node, 3))
        elif way == "one-way":
            into = tuple((other, node) for other in (1, 2, 3) if other != node)
            faults.append(Fault(at_us=at_us, kind="cut", duration_us=lasting_us, links=into, mode="one-way"))
        elif way == "kill":
            lasting_us //= 4
            faults.append(_kill(at_us, lasting_us, node))
        elif way == "pause":
            faults.append(Fault(at_us=at_us, kind="pause", duration_us=lasting_us, nodes=(node,)))
        else:
            lasting_us = 50_000
            faults.append(Fault(at_us=at_us, kind="transfer", nodes=(node,)))
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


FAMILIES: Final[Mapping[str, Family]] = {
    "swarm": Family(meaning="The simulator's own cases.", draw=draw_case),
    "rival-leaders": Family(
        meaning="a node is cut off again and again while another is made leader, with many clients.", draw=rival_leaders
    ),
    "leases": Family(
        meaning="reads by lease at a leader that is cut off; clocks at the limit, restarts and transfers.", draw=leases
    ),
    "figure-8": Family(
        meaning="the five servers of Raft's figure 8; the moments of the cuts are drawn.", draw=figure_8
    ),
    "many-chunks": Family(
        meaning="snapshots of many small chunks to nodes that lag, crash and see leaders change.", draw=many_chunks
    ),
    "split-changes": Family(
        meaning="members change at a leader that is cut off while the others elect their own.", draw=split_changes
    ),
    "late-hand-over": Family(
        meaning="a transfer is given up, and its order to campaign arrives after more was committed.",
        draw=late_hand_over,
    ),
    "power-cuts": Family(
        meaning="machines lose their power again and again, one or all of them, and some syncs fail.", draw=power_cuts
    ),
    "deaf-leaders": Family(
        meaning="one node after the other hears nothing of the others, who hear it, and may be killed.",
        draw=deaf_leaders,
    ),
    "kills": Family(
        meaning="processes are killed while answers are under way on a slow network, so that clients repeat.",
        draw=kills,
    ),
    "torn-writes": Family(
        meaning="machines lose their power in the middle of writes, of which some sectors stay.", draw=torn_writes
    ),
    "hand-overs": Family(
        meaning="leaders are cut off, killed, paused or hand over again and again; snapshots are frequent.",
        draw=hand_overs,
    ),
    "single-change": Family(
        meaning="two leaders change one member each, as in the bug of single-server changes of 2015.",
        draw=single_change,
    ),
}

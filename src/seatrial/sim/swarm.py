"""Cases drawn from seeds in the manner of swarm testing: each seed switches kinds of fault on and off, and picks how
hard each of them strikes, log-uniformly, within `budget`.  PURE.

    case = draw_case(4711, "core")

Randomising the environment of each seed first found planted bugs 13 times as often as one fixed environment did
(swarm testing: Groce et al., ISSTA 2012).
Rule: the same arguments give the same case; every fault is drawn from the stream of its own number, and every concern
(topology, network, disk, …) from one of its own.  Knows nothing of how a case is run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from seatrial.env import Rng
from seatrial.sim import budget
from seatrial.sim.case import Case, Disk, Fault, Level, Load, Network, Raft
from seatrial.sim.faults import KINDS
from seatrial.sim.strikes import Population, draw_fault, log_uniform

SECOND_US: Final = 1_000_000
DURATION_US: Final = 10 * SECOND_US
# How often a cluster has so many nodes, in percent.
SIZES: Final[dict[Level, dict[int, int]]] = {
    "core": {3: 50, 5: 28, 7: 7, 4: 6, 2: 5, 1: 4},
    "full": {3: 72, 5: 20, 4: 3, 2: 3, 1: 2},
}
# Faults a virtual second: (least, most).
PACE: Final[dict[Level, tuple[float, float]]] = {"core": (0.2, 8.0), "full": (0.1, 2.0)}
# At the full level heartbeats of every 10 ms would be half of what a seed costs, and at 50 ms they are a third.
HEARTBEAT_US_MIN: Final[dict[Level, int]] = {"core": 1, "full": 30_000}
BEATS_IN_A_TIMEOUT: Final[dict[Level, tuple[float, float]]] = {"core": (3, 12), "full": (3, 8)}  # (fewest, most)
# A machine's state at the core level is a few hundred bytes, and is to be sent in more than one chunk.
CHUNK_BYTES_MIN: Final[dict[Level, int]] = {"core": 16, "full": 256}
LASTING: Final = (0.1, 4.0)  # election timeouts: (least, most)
FAULTS_MAX: Final = 400
RESTING: Final = 0.15  # share of full cases in which idle groups fall quiet, although a case has few of them
QUIET: Final = 0.02  # share of cases without any fault: the fast path deserves a search too
# How likely it is that a seed has a kind at all; the rest have the last.
OFTEN: Final = {"cut": 0.6, "crash": 0.7, "pause": 0.5, "membership": 0.4, "filter": 0.25}
SELDOM: Final = 0.3
GROUPING: Final = 0.1  # share of the full level's cases in which a consumer group reads
LARGE: Final = 0.15  # share of the full level's cases in which some values are large
LARGE_BYTES: Final = (2_000, 500_000)
DELETING: Final = 0.45  # share of the full level's cases in which records are deleted


def draw_case(
    seed: int,
    level: Level,
    *,
    duration_us: int | None = None,
    nodes: int | None = None,
    kinds: Collection[str] | None = None,
) -> Case:
    """The case of a seed.

    nodes: instead of a drawn number.  kinds: only these kinds of fault, each of them on, where the number of nodes and
    the level allow it.  Raises ValueError for a kind that there is not.
    """
    for kind in kinds or ():
        if kind not in KINDS:
            raise ValueError(f"there is no kind of fault {kind!r}; there are: {', '.join(KINDS)}")
    rng = Rng(seed).child("swarm")
    size = nodes if nodes is not None else _weighted(rng.child("nodes"), SIZES[level])
    possible = _possible_kinds(level, size)
    enabled = (
        _enabled_kinds(rng, possible)
        if kinds is None
        else dict.fromkeys((kind for kind in possible if kind in frozenset(kinds)), 1.0)
    )
    spares = rng.child("spares").integer(1, 2) if "membership" in enabled else 0
    duration = duration_us if duration_us is not None else DURATION_US
    case = Case(
        level=level,
        seed=seed,
        nodes=size,
        spares=spares,
        duration_us=duration,
        drift_ppm=_sometimes(rng.child("drift"), 0.5, 10, 30_000),
        wall_offset_us=_sometimes(rng.child("wall"), 0.5, 1_000, 3_600 * SECOND_US),
        network=_network(rng.child("network"), level),
        disk=_disk(rng.child("disk")),
        raft=_raft(rng.child("raft"), level),
        load=_load(rng.child("load"), level),
    )
    if level == "full":
        load = _with_deletions(rng.child("deletions"), case.load)
        load = _with_group(rng.child("group"), _with_large_values(rng.child("large"), load))
        case = msgspec.structs.replace(case, load=load)
    case = _within_budget(case)
    return _with_honest_clocks(msgspec.structs.replace(case, faults=_faults(rng, case, enabled)))


def _weighted(rng: Rng, weights: dict[int, int]) -> int:
    left = rng.random() * sum(weights.values())
    for value, weight in weights.items():
        left -= weight
        if left < 0:
            return value
    return next(iter(weights))


def _sometimes(rng: Rng, probability: float, low: float, high: float) -> int:
    return round(log_uniform(rng, low, high)) if rng.chance(probability) else 0


def _possible_kinds(level: Level, size: int) -> list[str]:
    """The kinds that make sense at this level for so many nodes."""
    possible = []
    for name, kind in KINDS.items():
        lonely = size < 2 and (kind.scope == "links" or name in ("swizzle-clog", "transfer", "membership"))
        if level in kind.levels and not lonely and not (kind.damaging and size < 3):
            possible.append(name)
    return possible


def _enabled_kinds(rng: Rng, possible: list[str]) -> dict[str, float]:
    """Which kinds are on, and how much each weighs."""
    if rng.child("quiet").chance(QUIET):
        return {}
    enabled = {}
    for name in possible:
        own = rng.child(f"kind {name}")
        if own.chance(OFTEN.get(name, SELDOM)):
            enabled[name] = log_uniform(own, 0.2, 5)
    return enabled


def _faults(rng: Rng, case: Case, enabled: dict[str, float]) -> tuple[Fault, ...]:
    if not enabled:
        return ()
    everyone = tuple(range(1, case.nodes + case.spares + 1))
    first = everyone[: case.nodes]
    damaging = any(KINDS[name].damaging for name in enabled)
    fragile = tuple(sorted(rng.child("fragile").sample(first, (case.nodes - 1) // 2))) if damaging else ()
    population = Population(
        first=first,
        spares=everyone[case.nodes :],
        fragile=fragile,
        may_leave=fragile if damaging else first,
    )
    pace = log_uniform(rng.child("pace"), *PACE[case.level])
    count = min(FAULTS_MAX, max(1, round(pace * case.duration_us / SECOND_US)))
    # About the middle of this seed's durations, in election timeouts: most of what goes wrong, goes wrong because a
    # leader is away for about as long as it takes to elect another.
    lasting_us = log_uniform(rng.child("lasting"), *LASTING) * case.raft.election_timeout_us
    bursts_us = _bursts(rng.child("bursts"), count, case.duration_us)
    drawn = [
        draw_fault(
            rng.child(f"fault {number}"),
            case.level,
            population,
            weights=enabled,
            duration_us=case.duration_us,
            lasting_us=lasting_us,
            bursts_us=bursts_us,
        )
        for number in range(count)
    ]
    return tuple(sorted((fault for fault in drawn if fault is not None), key=lambda fault: fault.at_us))


def _bursts(rng: Rng, count: int, duration_us: int) -> list[int]:
    """When so many faults strike, several at a time, as one trouble brings another; in half of the seeds whenever."""
    if rng.chance(0.5):
        return []
    return [int(rng.random() * duration_us) for _ in range(max(1, count // rng.integer(2, 8)))]


def _network(rng: Rng, level: Level) -> Network:
    least = round(log_uniform(rng, 50, 2_000))
    most = round(least * log_uniform(rng, 1.2, 20))
    tail = round(log_uniform(rng, 0.001, 0.1), 4) if rng.chance(0.6) else 0.0
    loss = round(log_uniform(rng, 0.001, 0.2), 4) if rng.chance(0.5) else 0.0
    duplicate = round(log_uniform(rng, 0.001, 0.2), 4) if rng.chance(0.5) else 0.0
    split = round(log_uniform(rng, 0.02, 1), 2) if rng.chance(0.5) else 0.0  # each cut is one more event
    if level == "core":
        return Network(delay_us=(least, most), tail=tail, loss=loss, duplicate=duplicate)
    return Network(delay_us=(least, most), tail=tail, loss=loss / 4, split=split)


def _disk(rng: Rng) -> Disk:
    least = round(log_uniform(rng, 50, 20_000))
    most = round(least * log_uniform(rng, 1.1, 5))
    return Disk(
        sync_us=(least, most), unsynced=rng.choice(("lost", "lost", "prefix", "prefix", "some", "some", "kept"))
    )


def _raft(rng: Rng, level: Level) -> Raft:
    election_us = round(log_uniform(rng, 100_000, 1_000_000))
    check_quorum = rng.chance(0.85)
    resting = rng.child("resting")
    rests = level == "full" and resting.chance(RESTING)
    return Raft(
        election_timeout_us=election_us,
        heartbeat_us=max(round(election_us / rng.uniform(*BEATS_IN_A_TIMEOUT[level])), HEARTBEAT_US_MIN[level]),
        pre_vote=rng.chance(0.85),
        check_quorum=check_quorum,
        lease_reads=check_quorum and rng.chance(0.3),
        max_message_bytes=round(log_uniform(rng, 128, 1 << 20)),
        max_inflight_messages=round(log_uniform(rng, 1, 256)),
        max_uncommitted_bytes=round(log_uniform(rng, 64, 1 << 20)),
        snapshot_entries=round(log_uniform(rng, 5, 1_000)),
        keep_entries=round(log_uniform(rng, 1, 200)),
        snapshot_chunk_bytes=round(log_uniform(rng, CHUNK_BYTES_MIN[level], 64 << 10)),
        quiet_groups=1 if rests else Raft().quiet_groups,
        quiet_beats=resting.integer(1, 8) if rests else Raft().quiet_beats,
    )


def _load(rng: Rng, level: Level) -> Load:
    rate = log_uniform(rng, 5, 200) if level == "core" else log_uniform(rng, 2, 20)
    return Load(
        clients=rng.integer(1, 6) if level == "core" else rng.integer(1, 4),
        rate=round(rate, 1),
        reads=round(rng.uniform(0.05, 0.7), 2),
        keys=rng.integer(1, 10),
        payload_bytes=round(log_uniform(rng, 1, 1_000)),
        kafka_rate=round(log_uniform(rng, 3, 30), 1),
        topics=rng.integer(1, 2),
        partitions=rng.integer(1, 3),
    )


def _with_deletions(rng: Rng, load: Load) -> Load:
    """In some cases records are deleted, in one way: by size, by age, or because a client asks for it."""
    way = rng.random()
    if way < DELETING / 3:
        return msgspec.structs.replace(load, retention_bytes=round(log_uniform(rng, 500, 20_000)))
    if way < DELETING * 2 / 3:
        return msgspec.structs.replace(load, retention_ms=round(log_uniform(rng, 500, 10_000)))
    if way < DELETING:
        return msgspec.structs.replace(load, deletions=round(log_uniform(rng, 0.3, 3), 2))
    return load


def _with_large_values(rng: Rng, load: Load) -> Load:
    if not rng.chance(LARGE):
        return load
    return msgspec.structs.replace(load, large_bytes=round(log_uniform(rng, *LARGE_BYTES)))


def _with_group(rng: Rng, load: Load) -> Load:
    if not rng.chance(GROUPING):
        return load
    return msgspec.structs.replace(load, members=rng.integer(1, 3), group_rate=round(log_uniform(rng, 10, 60), 1))


def _within_budget(case: Case) -> Case:
    """The case with its settings moved as far as the budget asks: slow disks and links get patient nodes."""
    raft, load = case.raft, case.load
    least = budget.ROUNDS_IN_A_TIMEOUT * budget.round_us(case)
    if raft.election_timeout_us < least:
        stretch = least / raft.election_timeout_us
        raft = msgspec.structs.replace(
            raft, election_timeout_us=least + 1, heartbeat_us=round(raft.heartbeat_us * stretch)
        )
    entries = max(1, raft.max_message_bytes // (load.payload_bytes + budget.ENTRY_OVERHEAD_BYTES))
    messages = budget.CATCH_UP_FACTOR * load.rate * budget.round_us(case) / SECOND_US / entries
    state_bytes = load.keys * max(load.payload_bytes, load.large_bytes) + load.clients * budget.ENTRY_OVERHEAD_BYTES
    raft = msgspec.structs.replace(
        raft,
        max_inflight_messages=max(raft.max_inflight_messages, int(messages) + 1),
        snapshot_chunk_bytes=max(raft.snapshot_chunk_bytes, state_bytes // 16),
    )
    return msgspec.structs.replace(case, raft=raft)


def _with_honest_clocks(case: Case) -> Case:
    """The case with rates that no two nodes differ in by more than leases allow, where it reads by lease."""
    if not case.raft.lease_reads:
        return case
    most = budget.LEASE_DRIFT_PPM // 5  # a node's own drift and a fault's, on two nodes: below the whole
    faults = tuple(
        msgspec.structs.replace(fault, value=max(-most, min(most, fault.value)))
        if fault.kind == "clock-drift"
        else fault
        for fault in case.faults
    )
    return msgspec.structs.replace(case, drift_ppm=min(case.drift_ppm, most), faults=faults)

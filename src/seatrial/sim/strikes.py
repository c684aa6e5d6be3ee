"""One fault drawn from a stream: what it hits, when, for how long and how hard.  PURE.

Rule: all of it comes from the stream that is given, whatever else is drawn.
Knows nothing of budgets but this: damaging kinds hit only the fragile nodes, and only `may_leave` leave the members.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seatrial.env import Rng
from seatrial.sim.case import Fault, Level
from seatrial.sim.faults import KINDS
from seatrial.transport.filters.table import RULES

Link = tuple[int, int]
PLAIN_RULES: Final = ("drop-", "lose-", "delay-", "reorder-", "hold-", "duplicate-", "replay-")
BURST_US_MIN: Final = 500
LASTING_MAX_US: Final = 5_000_000
FAIR_RULES: Final = tuple(name for name, rule in RULES.items() if rule.fair)
# The rules that are about more than one kind of message: few, so drawn for themselves as well.
SCENES: Final = tuple(name for name in FAIR_RULES if not name.startswith(PLAIN_RULES))
SPREAD: Final = 6.0  # a duration is up to so many times shorter or longer than the middle


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who may be hit.  fragile: by damaging kinds; may_leave: by changes that remove a first member."""

    first: tuple[int, ...]
    spares: tuple[int, ...]
    fragile: tuple[int, ...]
    may_leave: tuple[int, ...]

    @property
    def everyone(self) -> tuple[int, ...]:
        return self.first + self.spares


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Between low and high, every order of magnitude as likely as any other."""
    return low * math.exp(rng.random() * math.log(high / low))


def draw_fault(
    rng: Rng,
    level: Level,
    population: Population,
    *,
    weights: Mapping[str, float],
    duration_us: int,
    lasting_us: float,
    bursts_us: Sequence[int] = (),
) -> Fault | None:
    """One fault of a kind drawn by weight; None where the draw has nothing to hit.

    lasting_us: about the middle of the durations.  bursts_us: behind which times it strikes; none: whenever.
    """
    name = _kind(rng, weights)
    kind = KINDS[name]
    at_us = _when(rng, duration_us, lasting_us, bursts_us)
    lasting = log_uniform(rng, lasting_us / SPREAD, lasting_us * SPREAD) if kind.lasting else 0
    mode = _mode(rng, name, population)
    links: tuple[Link, ...] = ()
    nodes: tuple[int, ...] = ()
    if kind.scope == "links":
        links = _cut(rng, mode, population.everyone) if name == "cut" else _some_links(rng, population.everyone)
    else:
        nodes = _nodes(rng, name, mode, population)
    if not links and not nodes:
        return None
    return Fault(
        at_us=at_us,
        kind=name,
        duration_us=min(LASTING_MAX_US, int(lasting)),
        nodes=nodes,
        links=links,
        value=_value(rng, name, mode),
        mode=mode,
    )


def _when(rng: Rng, duration_us: int, lasting_us: float, bursts_us: Sequence[int]) -> int:
    at_us = int(rng.random() * duration_us)
    if not bursts_us:
        return at_us
    return min(duration_us - 1, rng.choice(bursts_us) + int(log_uniform(rng, BURST_US_MIN, BURST_US_MIN + lasting_us)))


def _kind(rng: Rng, weights: Mapping[str, float]) -> str:
    left = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return next(iter(weights))


def _mode(rng: Rng, name: str, population: Population) -> str:
    modes = KINDS[name].modes
    if name == "filter":
        return rng.choice(SCENES if rng.chance(0.4) else FAIR_RULES)
    if name == "cut":
        possible = [mode for mode, least in CUT_NODES_MIN.items() if len(population.everyone) >= least]
        return rng.choice(possible)
    return rng.choice(modes) if modes else ""


# links


def both_ways(pairs: Sequence[Link]) -> tuple[Link, ...]:
    """The directed links of these pairs, each way, in order, once."""
    return tuple(sorted({link for one, other in pairs for link in ((one, other), (other, one))}))


def all_links(nodes: Sequence[int]) -> tuple[Link, ...]:
    return tuple((one, other) for one in nodes for other in nodes if one != other)


def _shuffled(rng: Rng, nodes: Sequence[int]) -> list[int]:
    shuffled = list(nodes)
    rng.shuffle(shuffled)
    return shuffled


def _groups(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    """A partition into two groups, or three: nothing passes from one to another."""
    shuffled = _shuffled(rng, nodes)
    count = 3 if len(nodes) >= 3 and rng.chance(0.2) else 2
    ends = sorted(rng.sample(range(1, len(nodes)), count - 1))
    group = {node: sum(place >= end for end in ends) for place, node in enumerate(shuffled)}
    return tuple(link for link in all_links(nodes) if group[link[0]] != group[link[1]])


def _isolate(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    alone = rng.choice(nodes)
    return tuple(link for link in all_links(nodes) if alone in link)


def _one_way(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    """A group is not heard, or does not hear."""
    group = frozenset(rng.sample(nodes, rng.integer(1, max(1, len(nodes) // 2))))
    mute = rng.chance(0.5)
    return tuple(
        (one, other)
        for one, other in all_links(nodes)
        if (one in group and other not in group if mute else other in group and one not in group)
    )


def _bridge(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    """Two halves that see each other only through one node, which sees both."""
    _, *rest = _shuffled(rng, nodes)
    half = len(rest) // 2
    return both_ways([(one, other) for one in rest[:half] for other in rest[half:]])


def _majorities_ring(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    """Each node sees a majority, and no two of them the same one: a ring of neighbours (Jepsen's)."""
    ring = _shuffled(rng, nodes)
    count = len(ring)
    near = (count // 2 + 1) // 2  # with so many neighbours on each side a node sees a majority
    apart = []
    for place in range(count):
        for step in range(near + 1, count - near):
            apart.append((ring[place], ring[(place + step) % count]))
    return both_ways(apart)


def _link(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    one, other = rng.sample(nodes, 2)
    return ((one, other),) if rng.chance(0.5) else both_ways([(one, other)])


CUT_NODES_MIN: Final = {"partition": 2, "isolate": 2, "one-way": 2, "bridge": 3, "majorities-ring": 4, "link": 2}
_CUTS: Final[Mapping[str, Callable[[Rng, Sequence[int]], tuple[Link, ...]]]] = {
    "partition": _groups,
    "isolate": _isolate,
    "one-way": _one_way,
    "bridge": _bridge,
    "majorities-ring": _majorities_ring,
    "link": _link,
}


def _cut(rng: Rng, mode: str, nodes: Sequence[int]) -> tuple[Link, ...]:
    return _CUTS[mode](rng, nodes)


def _some_links(rng: Rng, nodes: Sequence[int]) -> tuple[Link, ...]:
    """The links that a fault other than a cut hits: one, a pair, all of a node, those to or from it, or all."""
    shape = rng.choice(("link", "link", "isolate", "one-way", "all"))
    return all_links(nodes) if shape == "all" else _CUTS[shape](rng, nodes)


# nodes


def _nodes(rng: Rng, name: str, mode: str, population: Population) -> tuple[int, ...]:
    everyone = population.everyone
    if name == "membership":
        return _members(rng, mode, population)
    if KINDS[name].damaging:
        return (rng.choice(population.fragile),) if population.fragile else ()
    if name == "swizzle-clog":
        return tuple(_shuffled(rng, everyone)[: rng.integer(1, len(everyone))])
    one_only = ("crash-at", "transfer", "campaign", "snapshot", "io-error")
    if name in one_only or rng.chance(0.75):
        return (rng.choice(everyone),)
    if rng.chance(0.25):
        return everyone
    return tuple(sorted(rng.sample(everyone, rng.integer(1, len(everyone)))))


def _members(rng: Rng, mode: str, population: Population) -> tuple[int, ...]:
    """Whom a change is about: (node,); (leaves, comes) for a replacement and an explicit joint change."""
    may_come = population.spares if population.spares and rng.chance(0.8) else population.everyone
    comes = rng.choice(may_come)
    if mode in ("add-learner", "add-voter", "promote"):
        return (comes,)
    may_leave = tuple(node for node in population.may_leave + population.spares if node != comes)
    if mode == "remove":
        may_leave = population.may_leave + population.spares
    if not may_leave:
        return ()
    leaves = rng.choice(may_leave)
    return (leaves,) if mode == "remove" else (leaves, comes)


# values


def _signed(rng: Rng, number: float) -> float:
    return number if rng.chance(0.5) else -number


def _probability(rng: Rng) -> float:
    return round(log_uniform(rng, 0.01, 0.9), 3)


def _place(rng: Rng) -> float:
    """Somewhere in a file: at either end as often as between."""
    return round(rng.random(), 3) if rng.chance(0.5) else float(rng.choice((0, 1)))


_VALUES: Final[Mapping[str, Callable[[Rng], float]]] = {
    "delay": lambda rng: round(log_uniform(rng, 1_000, 300_000)),
    "loss": _probability,
    "duplicate": _probability,
    "reorder": lambda rng: round(log_uniform(rng, 1_000, 100_000)),
    "bandwidth": lambda rng: round(log_uniform(rng, 2_000, 1_000_000)),
    "split": lambda rng: 1 if rng.chance(0.3) else round(log_uniform(rng, 1, 500)),
    "crash-at": lambda rng: round(log_uniform(rng, 5_000, 1_000_000)),
    "slow-sync": lambda rng: round(log_uniform(rng, 1_000, 300_000)),
    "bit-rot": _place,
    "misdirected-write": _place,
    "truncate-file": _place,
    "clock-drift": lambda rng: _signed(rng, round(log_uniform(rng, 10, 100_000))),
    "clock-jump": lambda rng: _signed(rng, round(log_uniform(rng, 1_000, 86_400_000_000))),
}


def _value(rng: Rng, name: str, mode: str) -> float:
    if name == "filter":
        return round(RULES[mode].draw(rng), 3)
    make = _VALUES.get(name)
    return make(rng) if make is not None else 0

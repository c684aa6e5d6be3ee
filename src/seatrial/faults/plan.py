"""Plans: when which fault strikes, as data made from a seed.  PURE.

A plan names kinds, target words and settings; which nodes they hit is decided when they strike, from the stream of the
fault's own number, so that leaving one fault out moves no other.

Rule: the same kinds, nodes, duration and seed give the same plan; a plan can be written as JSON or TOML and read back.
Knows nothing of how faults are carried out: the simulator and the real cluster each do it their way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from seatrial.env import Rng
from seatrial.faults.targets import LEAVE_NO_MAJORITY, Target

MILLISECOND_US = 1_000
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFault:
    """One fault of a plan.  Times in microseconds since the run began; `settings` are the fault's fields.

    `over_budget`: it may take out more nodes than a minority, because it was asked for by name.
    """

    at_us: int
    duration_us: int
    kind: str
    target: Target
    settings: Mapping[str, Any] = field(default_factory=dict)
    over_budget: bool = False


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Faults in the order in which they strike."""

    faults: tuple[PlannedFault, ...] = ()

    def to_data(self) -> list[dict[str, Any]]:
        """Lists, dicts, strings, numbers and booleans, for JSON or TOML."""
        return [
            {**asdict(fault), "target": fault.target.value, "settings": dict(fault.settings)} for fault in self.faults
        ]

    @classmethod
    def from_data(cls, data: Iterable[Mapping[str, Any]]) -> Self:
        """Read a plan back.  Raises ValueError that names the fault and what is wrong with it."""
        faults = [_read(number, raw) for number, raw in enumerate(data)]
        return cls(tuple(sorted(faults, key=lambda fault: fault.at_us)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long faults last and how long it is calm between them: (least, most) in microseconds."""

    on_us: tuple[int, int]
    calm_us: tuple[int, int]

    def quickened(self, share: float) -> Pace:
        """With this share of the times."""
        on, calm = self.on_us, self.calm_us
        return Pace(
            on_us=(int(on[0] * share), int(on[1] * share)), calm_us=(int(calm[0] * share), int(calm[1] * share))
        )


STEADY = Pace(on_us=(1_200_000, 1_800_000), calm_us=(600_000, 1_000_000))
# Crashes alone, about one a second: what it takes to hit a bug between two writes to a disk.
RAPID = Pace(on_us=(200_000, 500_000), calm_us=(500_000, 800_000))
FIRST_AT_US = (500_000, 1_000_000)
QUICKEST = 0.5  # of a pace's times: what is shorter hardly shows


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRule:
    """What a plan needs to know of a kind of fault."""

    targets: tuple[Target, ...]  # drawn from evenly
    settings: Callable[[Rng], dict[str, Any]] = lambda rng: {}
    nodes_min: int = 1
    on_us: tuple[int, int] | None = None  # instead of the pace's
    over_budget: bool = False
    crash: bool = False


def _cut_mode(rng: Rng) -> dict[str, Any]:
    return {"mode": "reset" if rng.chance(0.2) else "hold"}


def _one_way(rng: Rng) -> dict[str, Any]:
    return {"direction": rng.choice(("out", "in")), **_cut_mode(rng)}


def _latency(rng: Rng) -> dict[str, Any]:
    latency_ms = rng.integer(10, 80)
    return {"latency_ms": latency_ms, "jitter_ms": rng.integer(0, latency_ms // 2)}


# Rules that show within a second or two of ordinary traffic, and the least and most of each one's number.
MESSAGE_RULES: Sequence[tuple[str, float, float]] = (
    ("drop-appends", 0, 10),
    ("lose-messages", 0.1, 0.6),
    ("lose-append-answers", 0.2, 0.9),
    ("lose-heartbeats", 0.3, 0.9),
    ("delay-messages", 5_000, 100_000),
    ("reorder-messages", 5_000, 100_000),
    ("hold-appends", 0, 0),
    ("hold-append-answers", 0, 0),
    ("duplicate-messages", 0.2, 1.0),
    ("replay-messages", 0.05, 0.4),
    ("random-latency", 0.2, 0.7),
    ("heartbeat-before-append", 0, 0),
    ("erase-commit", 0, 0),
)


def _messages(rng: Rng) -> dict[str, Any]:
    rule, least, most = rng.choice(MESSAGE_RULES)
    return {
        "rule": rule,
        "value": round(rng.uniform(least, most), 3 if most < 2 else 0),
        # Appends leave leaders, and answers followers: a node need not be either for a group that has traffic.
        "direction": "both" if "append" in rule or "commit" in rule else rng.choice(("in", "out", "both")),
    }


_ANY = (Target.LEADER, Target.ONE)
_SIDES = (Target.LEADER, Target.HALF, Target.MINORITY)

KINDS: Mapping[str, KindRule] = {
    "partition": KindRule(targets=_SIDES, settings=_cut_mode, nodes_min=2),
    "isolate": KindRule(targets=_ANY, settings=_cut_mode, nodes_min=2),
    "cut": KindRule(targets=_ANY, settings=_one_way, nodes_min=2),
    "latency": KindRule(targets=(*_ANY, Target.ALL), settings=_latency, nodes_min=2),
    "bandwidth": KindRule(
        targets=_ANY, settings=lambda rng: {"kilobytes_per_second": rng.integer(16, 256)}, nodes_min=2
    ),
    "timeout": KindRule(targets=_SIDES, nodes_min=2),
    "reset": KindRule(targets=_ANY, nodes_min=2, on_us=(50_000, 200_000)),
    "flapping": KindRule(targets=_SIDES, settings=lambda rng: {"period_ms": rng.integer(100, 400)}, nodes_min=2),
    "bridge": KindRule(targets=(Target.HALF,), settings=_cut_mode, nodes_min=3),
    "majorities-ring": KindRule(targets=(Target.ALL,), settings=_cut_mode, nodes_min=4, over_budget=True),
    "kill": KindRule(targets=_ANY, crash=True),
    "kill-all": KindRule(targets=(Target.ALL,), over_budget=True, crash=True),
    "terminate": KindRule(targets=_ANY),
    "pause": KindRule(targets=_ANY),
    "restart": KindRule(targets=_ANY, on_us=(0, 0)),
    # However quick the others: what these show takes traffic.
    "messages": KindRule(targets=_ANY, settings=_messages, nodes_min=2, on_us=(2_000_000, 3_000_000)),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind, and the target it was asked to have (None: one of its own)."""

    kind: str
    target: Target | None = None


ALL_KINDS = "all"  # said instead of a list of kinds


def every_kind(*, nodes: int, messages: bool) -> tuple[str, ...]:
    """The kinds that a cluster of so many nodes can suffer.  messages: whether its nodes filter single messages."""
    return tuple(kind for kind, rule in KINDS.items() if nodes >= rule.nodes_min and (messages or kind != "messages"))


def parse_kinds(text: str) -> tuple[Choice, ...]:
    """Read "partition,kill:leader,pause".  Raises ValueError that says what there is to choose from."""
    choices = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        kind, _, target = word.partition(":")
        if kind not in KINDS:
            raise ValueError(f"there is no fault {kind!r}; there are: {', '.join(KINDS)}")
        if target and target not in set(Target):
            raise ValueError(f"there is no target {target!r} for {kind}; there are: {', '.join(Target)}")
        choices.append(Choice(kind, Target(target) if target else None))
    return tuple(choices)


def pace_of(choices: Sequence[Choice]) -> Pace:
    """Rapid where all there is are crashes, else steady."""
    return RAPID if choices and all(KINDS[choice.kind].crash for choice in choices) else STEADY


def generate(
    choices: Sequence[Choice], *, nodes: int, duration_us: int, seed: int, pace: Pace | None = None
) -> FaultPlan:
    """A plan for a run of this length: one fault after the other, every kind about equally often, in shuffled order.

    The last fault ends before the run does.  Where a kind would have no place, faults come and go more quickly, up to
    twice as quickly.  Raises ValueError for a kind that needs more nodes than there are.
    """
    for choice in choices:
        needed = KINDS[choice.kind].nodes_min
        if nodes < needed:
            raise ValueError(f"{choice.kind} needs at least {needed} nodes; the cluster has {nodes}")
    if not choices:
        return FaultPlan()
    pace = pace or pace_of(choices)
    plan = _generate(choices, duration_us, seed, pace)
    if len(plan.faults) >= len(choices):
        return plan
    own_us = [rule.on_us[1] for rule in (KINDS[choice.kind] for choice in choices) if rule.on_us is not None]
    paced_us = (len(choices) - len(own_us)) * pace.on_us[1] + len(choices) * pace.calm_us[1]
    share = (duration_us - FIRST_AT_US[1] - sum(own_us)) / paced_us
    return _generate(choices, duration_us, seed, pace.quickened(max(share, QUICKEST)))


def _generate(choices: Sequence[Choice], duration_us: int, seed: int, pace: Pace) -> FaultPlan:
    rng = Rng(seed).child("plan")
    faults: list[PlannedFault] = []
    bag: list[Choice] = []
    at_us = rng.integer(*FIRST_AT_US)
    while True:
        if not bag:
            bag = list(choices)
            rng.shuffle(bag)
        fault = _plan_one(bag.pop(), at_us, pace, rng.child(f"fault/{len(faults)}"))
        if fault.at_us + fault.duration_us > duration_us:
            return FaultPlan(tuple(faults))
        faults.append(fault)
        at_us += fault.duration_us + rng.integer(*pace.calm_us)


def _plan_one(choice: Choice, at_us: int, pace: Pace, rng: Rng) -> PlannedFault:
    rule = KINDS[choice.kind]
    target = choice.target or rng.choice(rule.targets)
    asked_for = choice.target in LEAVE_NO_MAJORITY
    return PlannedFault(
        at_us=at_us,
        duration_us=rng.integer(*(rule.on_us or pace.on_us)),
        kind=choice.kind,
        target=target,
        settings=rule.settings(rng),
        over_budget=rule.over_budget or asked_for,
    )


def _read(number: int, raw: Mapping[str, Any]) -> PlannedFault:
    where = f"fault {number} of the plan"
    names = {"at_us", "duration_us", "kind", "target", "settings", "over_budget"}
    unknown = sorted(set(raw) - names)
    missing = sorted({"at_us", "duration_us", "kind", "target"} - set(raw))
    if unknown or missing:
        wrong = [f"has no key {key!r}" for key in unknown] + [f"needs {key!r}" for key in missing]
        raise ValueError(f"{where} {', '.join(wrong)}: {dict(raw)!r}")
    if raw["kind"] not in KINDS:
        raise ValueError(f"{where}: there is no fault {raw['kind']!r}; there are: {', '.join(KINDS)}")
    if raw["target"] not in set(Target):
        raise ValueError(f"{where}: there is no target {raw['target']!r}; there are: {', '.join(Target)}")
    for key in ("at_us", "duration_us"):
        if not isinstance(raw[key], int) or raw[key] < 0:
            raise ValueError(f"{where}: {key} has to be a whole number of microseconds, not {raw[key]!r}")
    if not isinstance(raw.get("settings", {}), Mapping):
        raise ValueError(f"{where}: settings has to be a table, not {raw['settings']!r}")
    if not isinstance(raw.get("over_budget", False), bool):
        raise ValueError(f"{where}: over_budget has to be true or false, not {raw['over_budget']!r}")
    return PlannedFault(**{**raw, "target": Target(raw["target"]), "settings": dict(raw.get("settings", {}))})

"""The rules that have a name and one number, so that a case, a plan or a request can ask for them as data.

Rule: a rule that is `fair` does nothing that a network with an honest peer could not do, so Raft must live through it;
the others are for directed tests.  Everything random comes from the stream that the maker is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from seatrial.env import Rng
from seatrial.raft.ids import NodeId
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from seatrial.transport.filters.rewriting import DivertTimeoutNow, DropVotes, EraseCommit, ReadRounds
from seatrial.transport.filters.rules import (
    DelayEach,
    Drop,
    DropRandomly,
    Duplicate,
    HoldAll,
    Leading,
    RandomLatency,
    ReorderEach,
    ReplayOld,
    Rule,
)
from seatrial.transport.filters.scope import Filter, Side, of_types
from seatrial.transport.filters.snapshots import (
    CollectSnapshots,
    DropSnapshotsReportSuccess,
    HoldSnapshotsUntilAppend,
    LeadingSnapshot,
    StaleSnapshot,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRule:
    """A rule by name; calling it with the number and a stream makes one.

    value: what the number means, "" where it is not used; `least` to `most`: what is worth trying (both included).
    types: the messages that it is for; () all.  shared: one rule for all links, because it compares what it sees.
    """

    meaning: str
    make: Callable[[float, Rng], Rule]
    value: str = ""
    least: float = 0
    most: float = 0
    whole: bool = True
    types: tuple[type[Message], ...] = ()
    shared: bool = False
    fair: bool = True

    def __call__(self, value: float, rng: Rng) -> Rule:
        return self.make(value, rng)

    def draw(self, rng: Rng) -> float:
        """A number worth trying."""
        return rng.integer(int(self.least), int(self.most)) if self.whole else rng.uniform(self.least, self.most)


KINDS: Final[Mapping[str, tuple[type[Message], ...]]] = {
    "messages": (),
    "appends": (AppendEntries,),
    "append-answers": (AppendEntriesResponse,),
    "heartbeats": (Heartbeat,),
    "heartbeat-answers": (HeartbeatResponse,),
    "votes": (RequestVote, PreVote),
    "vote-answers": (RequestVoteResponse, PreVoteResponse),
    "snapshots": (InstallSnapshot,),
    "snapshot-answers": (InstallSnapshotResponse,),
    "reads": (ReadIndexRequest, ReadIndexResponse),
    "timeout-now": (TimeoutNow,),
}


def _for_each_kind() -> dict[str, NamedRule]:
    """drop-appends, delay-votes, …: what can be done to messages of any kind, for each kind."""
    rules: dict[str, NamedRule] = {}
    for kind, types in KINDS.items():
        rules[f"drop-{kind}"] = NamedRule(
            meaning=f"Let the first {kind} pass, and drop all that follow.",
            make=lambda value, rng: Drop(allow=int(value)),
            value="how many pass first",
            most=20,
            types=types,
        )
        rules[f"lose-{kind}"] = NamedRule(
            meaning=f"Drop {kind} at random.",
            make=DropRandomly,
            value="probability",
            least=0.05,
            most=0.9,
            whole=False,
            types=types,
        )
        rules[f"delay-{kind}"] = NamedRule(
            meaning=f"Let {kind} arrive later, all by the same time.",
            make=lambda value, rng: DelayEach(int(value)),
            value="µs",
            least=1_000,
            most=500_000,
            types=types,
        )
        rules[f"reorder-{kind}"] = NamedRule(
            meaning=f"Let {kind} arrive later, each by a random time of its own.",
            make=lambda value, rng: ReorderEach(int(value), rng),
            value="most µs",
            least=1_000,
            most=500_000,
            types=types,
        )
        rules[f"hold-{kind}"] = NamedRule(
            meaning=f"Hold {kind}, and let them go in one burst at the end.",
            make=lambda value, rng: HoldAll(),
            types=types,
        )
        rules[f"duplicate-{kind}"] = NamedRule(
            meaning=f"Let {kind} arrive twice.",
            make=Duplicate,
            value="probability",
            least=0.05,
            most=1.0,
            whole=False,
            types=types,
        )
        rules[f"replay-{kind}"] = NamedRule(
            meaning=f"Let old {kind} arrive again.",
            make=ReplayOld,
            value="probability",
            least=0.02,
            most=0.5,
            whole=False,
            types=types,
        )
    return rules


RULES: Final[Mapping[str, NamedRule]] = {
    **_for_each_kind(),
    "random-latency": NamedRule(
        meaning="Keep messages back at random, rolling anew for each whenever one comes: late, reordered or lost.",
        make=RandomLatency,
        value="probability of waiting on",
        least=0.1,
        most=0.8,
        whole=False,
    ),
    "drop-votes-up-to": NamedRule(
        meaning="Drop votes and pre-votes asked for with a last log index up to this.",
        make=lambda value, rng: DropVotes(0, int(value)),
        value="last log index",
        least=1,
        most=500,
    ),
    "heartbeat-before-append": NamedRule(
        meaning="Hold AppendEntries until a heartbeat comes, which goes behind the first of them.",
        make=lambda value, rng: Leading(of_types(AppendEntries), of_types(Heartbeat)),
    ),
    "vote-before-append": NamedRule(
        meaning="Hold AppendEntries until the sender asks for a vote, which goes behind the first of them.",
        make=lambda value, rng: Leading(of_types(AppendEntries), of_types(RequestVote, PreVote)),
    ),
    "erase-commit": NamedRule(
        meaning="Set the leader's commit index to 0 in appends and heartbeats.", make=lambda value, rng: EraseCommit()
    ),
    "strip-read-rounds": NamedRule(
        meaning="Take the read round off heartbeats, so that nobody answers them.",
        make=lambda value, rng: ReadRounds(strip=True),
        types=(Heartbeat,),
    ),
    "divert-timeout-now": NamedRule(
        meaning="Send each TimeoutNow to another node.",
        make=lambda value, rng: DivertTimeoutNow(NodeId(int(value))),
        value="node",
        least=1,
        most=3,
        types=(TimeoutNow,),
    ),
    "collect-snapshots": NamedRule(
        meaning="Hold snapshots' chunks until so many different ones wait, and let them go at once.",
        make=lambda value, rng: CollectSnapshots(int(value)),
        value="chunks",
        least=2,
        most=3,
        types=(InstallSnapshot,),
        shared=True,
    ),
    "two-snapshots-together": NamedRule(
        meaning="Hold the first chunk of a snapshot until a different one comes, and deliver both.",
        make=lambda value, rng: LeadingSnapshot(together=True),
    ),
    "old-snapshot-later": NamedRule(
        meaning="Hold the first chunk of a snapshot until a different one comes, and deliver the old one behind it.",
        make=lambda value, rng: LeadingSnapshot(together=False),
    ),
    "snapshot-after-append": NamedRule(
        meaning="Hold snapshots' chunks until AppendEntries come.",
        make=lambda value, rng: HoldSnapshotsUntilAppend(),
        shared=True,
    ),
    "stale-snapshot": NamedRule(
        meaning="Deliver the first snapshot in the place of every later one.",
        make=lambda value, rng: StaleSnapshot(),
        types=(InstallSnapshot,),
    ),
    "claim-snapshot-success": NamedRule(
        meaning="Drop snapshots, and tell the leader that they are installed: a lie.",
        make=lambda value, rng: DropSnapshotsReportSuccess(),
        types=(InstallSnapshot,),
        fair=False,
    ),
}


def named(
    name: str,
    value: float,
    rng: Rng,
    *,
    links: frozenset[tuple[int, int]] | None = None,
    senders: frozenset[int] | None = None,
    receivers: frozenset[int] | None = None,
    side: Side = "send",
    types: tuple[type[Message], ...] = (),
) -> Filter:
    """The filter of this name, ready to attach: a rule, with a stream of its own, for each group and link.

    types: fewer than it is for.  Raises ValueError that says which names there are.
    """
    kind = RULES.get(name)
    if kind is None:
        raise ValueError(f"there is no message filter {name!r}; there are: {', '.join(RULES)}")
    made = kind
    return Filter(
        make=lambda key: made(value, rng.child(key)),
        per="all" if kind.shared else "link",
        types=types or kind.types,
        senders=senders,
        receivers=receivers,
        links=links,
        side=side,
    )

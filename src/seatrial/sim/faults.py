"""The kinds of fault that a case may hold: where each is possible, what it hits, and what its numbers mean.  PURE data.

Rule: both levels carry out a kind in the same sense; one that a level cannot do is not in that level's cases.  A
`damaging` kind destroys what was durable, so only the nodes of one fixed minority of a case may suffer any of them:
a majority of good copies is left, and a violation is always a bug.
Knows nothing of how faults are carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Scope = Literal["links", "nodes"]
BOTH: Final = frozenset({"core", "full"})
CORE: Final = frozenset({"core"})
FULL: Final = frozenset({"full"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of fault.

    meaning: one sentence.  value, modes: what `Fault.value` and `Fault.mode` are; "" and () where they are not used.
    lasting: it has a duration, and ends.  takes_out: its nodes do not answer while it lasts.
    """

    family: str
    scope: Scope
    levels: frozenset[str]
    meaning: str
    value: str = ""
    modes: tuple[str, ...] = ()
    lasting: bool = True
    takes_out: bool = False
    damaging: bool = False


CRASH_POINTS: Final = ("before-save", "after-save", "before-send", "after-apply", "during-snapshot")
MEMBERSHIP_CHANGES: Final = ("add-learner", "add-voter", "promote", "remove", "replace", "joint-explicit")

KINDS: Final[Mapping[str, Kind]] = {
    # network
    "cut": Kind(
        family="network",
        scope="links",
        levels=BOTH,
        meaning="Nothing passes: messages are lost (core), a connection's bytes wait for the end (full).",
        modes=("partition", "isolate", "one-way", "bridge", "majorities-ring", "link"),
    ),
    "clog": Kind(
        family="network",
        scope="links",
        levels=BOTH,
        meaning="What is sent is held, and released in one burst at the end.",
    ),
    "swizzle-clog": Kind(
        family="network",
        scope="nodes",
        levels=BOTH,
        meaning="The nodes' links are clogged one node after the other, and unclogged in another order.",
    ),
    "delay": Kind(
        family="network", scope="links", levels=BOTH, meaning="Everything takes longer.", value="µs more, each way"
    ),
    "loss": Kind(
        family="network",
        scope="links",
        levels=BOTH,
        meaning="Messages are lost (core); segments are, and are sent again after a timeout (full).",
        value="probability",
    ),
    "duplicate": Kind(
        family="network", scope="links", levels=CORE, meaning="Messages arrive twice.", value="probability"
    ),
    "reorder": Kind(
        family="network",
        scope="links",
        levels=CORE,
        meaning="Each message is late by a random time of its own.",
        value="most µs late",
    ),
    "bandwidth": Kind(
        family="network", scope="links", levels=BOTH, meaning="The link is slow.", value="bytes a second"
    ),
    "half-open": Kind(
        family="network",
        scope="links",
        levels=FULL,
        meaning="The connections from the first to the second are forgotten by the second, and the first is not told.",
        lasting=False,
    ),
    "reset": Kind(
        family="network", scope="links", levels=FULL, meaning="Open connections are reset on both sides.", lasting=False
    ),
    "split": Kind(
        family="network",
        scope="links",
        levels=FULL,
        meaning="Every segment arrives in pieces.",
        value="most bytes in a piece; 1 cuts at every byte",
    ),
    # processes
    "crash": Kind(
        family="process",
        scope="nodes",
        levels=BOTH,
        meaning="The node stops without a word; it starts again when the fault ends.",
        modes=("kill", "power"),  # the process alone; the machine, with the writes that were not synced (Disk.unsynced)
        takes_out=True,
    ),
    "crash-at": Kind(
        family="process",
        scope="nodes",
        levels=BOTH,
        meaning="As crash (power), the next time that the node comes to the named point while the fault lasts.",
        value="µs until it starts again",
        modes=CRASH_POINTS,
        takes_out=True,
    ),
    "pause": Kind(
        family="process",
        scope="nodes",
        levels=BOTH,
        meaning="The node stands still, its clock does not, and its connections stay open.",
        takes_out=True,
    ),
    "wipe": Kind(
        family="process",
        scope="nodes",
        levels=BOTH,
        meaning="The node is removed from the members, loses its disk, and comes back as a learner that is promoted.",
        takes_out=True,
        damaging=True,
    ),
    # disks
    "slow-sync": Kind(family="disk", scope="nodes", levels=BOTH, meaning="Syncs are slow.", value="µs a sync"),
    "stall-sync": Kind(
        family="disk", scope="nodes", levels=BOTH, meaning="No sync ends before the fault does.", takes_out=True
    ),
    "io-error": Kind(
        family="disk",
        scope="nodes",
        levels=BOTH,
        meaning="The next operation fails with EIO, which ends the node; it starts again when the fault ends.",
        modes=("write", "sync", "read"),
        takes_out=True,
    ),
    "disk-full": Kind(
        family="disk",
        scope="nodes",
        levels=BOTH,
        meaning="Writes fail with ENOSPC, which ends the node; it starts again when the fault ends.",
        takes_out=True,
    ),
    "bit-rot": Kind(
        family="disk",
        scope="nodes",
        levels=FULL,
        meaning="One bit of what is durable flips.",
        value="where: 0 the oldest byte, 1 the newest",
        lasting=False,
        damaging=True,
    ),
    "lost-write": Kind(
        family="disk",
        scope="nodes",
        levels=FULL,
        meaning="The next write is acknowledged and synced, and is not there after a crash.",
        lasting=False,
        damaging=True,
    ),
    "misdirected-write": Kind(
        family="disk",
        scope="nodes",
        levels=FULL,
        meaning="The next write lands on another place of its file.",
        value="where: 0 the beginning of the file, 1 its end",
        lasting=False,
        damaging=True,
    ),
    "truncate-file": Kind(
        family="disk",
        scope="nodes",
        levels=FULL,
        meaning="With a crash: a file is cut shorter.",
        value="how much of it is left: 0 nothing, 1 all",
        takes_out=True,
        damaging=True,
    ),
    "roll-back-file": Kind(
        family="disk",
        scope="nodes",
        levels=FULL,
        meaning="With a crash: a file is what it was at an earlier sync.",
        takes_out=True,
        damaging=True,
    ),
    # clocks
    "clock-drift": Kind(
        family="clock", scope="nodes", levels=BOTH, meaning="The clock runs at another rate.", value="ppm, either sign"
    ),
    "clock-jump": Kind(
        family="clock",
        scope="nodes",
        levels=BOTH,
        meaning="The wall clock is set, and set back at the end.",
        value="µs, either sign",
    ),
    # the cluster's own operations
    "transfer": Kind(
        family="cluster",
        scope="nodes",
        levels=BOTH,
        meaning="Whoever leads is asked to hand over to the node.",
        lasting=False,
    ),
    "campaign": Kind(
        family="cluster", scope="nodes", levels=CORE, meaning="The node stands for election now.", lasting=False
    ),
    "snapshot": Kind(
        family="cluster",
        scope="nodes",
        levels=BOTH,
        meaning="The node makes a snapshot and compacts its log.",
        lasting=False,
    ),
    "membership": Kind(
        family="cluster",
        scope="nodes",
        levels=BOTH,
        # nodes: (who,); for replace and joint-explicit (who leaves, who comes), the latter left only when asked to
        meaning="Whoever leads is asked to change the members; tried again until it is done or the fault ends.",
        modes=MEMBERSHIP_CHANGES,
    ),
    # messages
    "filter": Kind(
        family="messages",
        scope="links",
        levels=BOTH,
        meaning="A message filter of `seatrial.transport.filters.RULES`, by its name.",
        value="the rule's number",
        modes=(),  # the names of the rules
    ),
}

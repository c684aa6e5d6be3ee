"""How the cases of a mutant's hunt are drawn: the swarm's own, or a family that leads where its bug can show.

Random search is no proof, and some bugs need what most seeds do not have: two leaders that both serve, a snapshot of
many chunks, a partition in the very milliseconds of a change.
Rule: the table of mutants says which family found each of them.  Knows nothing of how cases are run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from seatrial.sim import mutants_cases_core as core
from seatrial.sim import mutants_cases_full as full
from seatrial.sim.case import Case, Level
from seatrial.sim.swarm import draw_case

Draw: TypeAlias = Callable[[int, Level], Case]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Cases by seed.  meaning: what they have in common, as a sentence for the table."""

    meaning: str
    draw: Draw


FAMILIES: Final[Mapping[str, Family]] = {
    "swarm": Family(meaning="The simulator's own cases.", draw=draw_case),
    "rival-leaders": Family(
        meaning="a node is cut off again and again while another is made leader, with many clients.",
        draw=core.rival_leaders,
    ),
    "leases": Family(
        meaning="reads by lease at a leader that is cut off; clocks at the limit, restarts and transfers.",
        draw=core.leases,
    ),
    "figure-8": Family(
        meaning="the five servers of Raft's figure 8; the moments of the cuts are drawn.", draw=core.figure_8
    ),
    "many-chunks": Family(
        meaning="snapshots of many small chunks to nodes that lag, crash and see leaders change.", draw=core.many_chunks
    ),
    "split-changes": Family(
        meaning="members change at a leader that is cut off while the others elect their own.", draw=core.split_changes
    ),
    "late-hand-over": Family(
        meaning="a transfer is given up, and its order to campaign arrives after more was committed.",
        draw=core.late_hand_over,
    ),
    "lost-campaigns": Family(
        meaning="a node is told to take over, and nobody hears it ask for votes.", draw=core.lost_campaigns
    ),
    "power-cuts": Family(
        meaning="machines lose their power again and again, one or all of them, and some syncs fail.",
        draw=full.power_cuts,
    ),
    "deaf-leaders": Family(
        meaning="one node after the other hears nothing of the others, who hear it, and may be killed.",
        draw=full.deaf_leaders,
    ),
    "replays": Family(
        meaning="what nodes say to each other arrives again, now and then and much later.", draw=full.replays
    ),
    "kills": Family(
        meaning="processes are killed while answers are under way on a slow network, so that clients repeat.",
        draw=full.kills,
    ),
    "torn-writes": Family(
        meaning="machines lose their power in the middle of writes, of which some sectors stay.", draw=full.torn_writes
    ),
    "hand-overs": Family(
        meaning="leaders are cut off, killed, paused or hand over again and again; snapshots are frequent.",
        draw=full.hand_overs,
    ),
    "quiet-groups": Family(
        meaning="as hand-overs, with little to do, and groups that fall quiet as soon as they may.",
        draw=full.quiet_groups,
    ),
    "large-values": Family(
        meaning="as hand-overs, half as often, with values and records of up to 600 KB among small ones.",
        draw=full.large_values,
    ),
    "group-hand-overs": Family(
        meaning="as hand-overs, where members of a consumer group consume, commit, leave and join.",
        draw=full.group_hand_overs,
    ),
    "deletions": Family(
        meaning="as power cuts, half as often, where records are deleted as soon as there are more than a few.",
        draw=full.deletions,
    ),
    "single-change": Family(
        meaning="two leaders change one member each, as in the bug of single-server changes of 2015.",
        draw=core.single_change,
    ),
}

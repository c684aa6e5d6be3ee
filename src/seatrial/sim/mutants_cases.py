"""How the cases of a mutant's hunt are drawn: the swarm's own, or a family that leads where its bug can show.

Random search is no proof, and some bugs need settings that most seeds do not have (leases, many groups, …).  A family
is still a search by seed: it fixes what its bug needs, and leaves the rest to the swarm.
Rule: the table of mutants says which family found each of them.  Knows nothing of how cases are run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

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
}

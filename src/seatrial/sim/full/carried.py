"""What carrying out a fault gives back: how to end it, and whether there is evidence that it did anything.

Rule: nothing is undone twice, and evidence is asked for when the fault has ended or, of what has no end, when the run
has.
Knows nothing of any one fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from seatrial.sim.case import Fault
from seatrial.sim.full.cluster import Cluster


def nothing() -> None:
    """The end of what has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """bit: whether there is evidence that it did something.  end: undo it.

    late: what it does goes on after its end, so evidence is asked for when the run is over.
    """

    bit: Callable[[], bool]
    end: Callable[[], None] = nothing
    late: bool = False


Carrier: TypeAlias = Callable[[Cluster, Fault], Carried]
Carriers: TypeAlias = Mapping[str, Carrier]

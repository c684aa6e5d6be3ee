"""A case that fails on sound code, for it lies beyond the budget: leases, and a leader whose clock is far too slow."""

from __future__ import annotations

from seatrial.sim.case import Case, Fault, Load, Raft
from seatrial.sim.strikes import all_links

SECOND_US = 1_000_000
LEADER = 2  # under this seed


def stale_lease(*, drift_ppm: int = -900_000) -> Case:
    """The leader is cut off while its lease, by its own clock, has hardly begun: its clients read what is stale."""
    alone = tuple(link for link in all_links((1, 2, 3)) if LEADER in link)
    return Case(
        level="core",
        seed=0,
        duration_us=4 * SECOND_US,
        raft=Raft(lease_reads=True),
        load=Load(rate=200, clients=3, reads=0.5, keys=1),
        faults=(
            Fault(at_us=500_000, kind="clock-drift", duration_us=2 * SECOND_US, nodes=(LEADER,), value=drift_ppm),
            Fault(at_us=550_000, kind="cut", mode="isolate", duration_us=2 * SECOND_US, links=alone),
            Fault(at_us=600_000, kind="pause", duration_us=100_000, nodes=(3,)),
        ),
    )

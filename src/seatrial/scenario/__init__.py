"""What a scenario test holds in its hands: a cluster, its clients, its faults and its history, in any environment."""

from seatrial.scenario.cluster import ScenarioCluster
from seatrial.scenario.errors import BrokenPromise, CheckFailed, NotDone, NotHere, Refused, Unavailable
from seatrial.scenario.local import local
from seatrial.scenario.patience import NeverSo, eventually, retry
from seatrial.scenario.simulated import Simulation, simulated
from seatrial.sim.full.warm import warm

__all__ = [
    "BrokenPromise",
    "CheckFailed",
    "NeverSo",
    "NotDone",
    "NotHere",
    "Refused",
    "ScenarioCluster",
    "Simulation",
    "Unavailable",
    "eventually",
    "local",
    "retry",
    "simulated",
    "warm",
]

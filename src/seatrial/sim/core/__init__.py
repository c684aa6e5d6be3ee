"""The core level of the simulator: Raft nodes on simulated disks, clocks and links, messages as objects."""

from seatrial.sim.core.adapter import ConsensusCore, CoreView, LogView
from seatrial.sim.core.cluster import CoreCluster, NotReached
from seatrial.sim.core.ledger import SafetyViolation
from seatrial.sim.core.run import run_case

__all__ = ["ConsensusCore", "CoreCluster", "CoreView", "LogView", "NotReached", "SafetyViolation", "run_case"]

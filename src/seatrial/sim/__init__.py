"""The simulator: any asyncio program, and our own server, on virtual time, decided by one seed, replayed exactly."""

from seatrial.sim.case import Network
from seatrial.sim.escape import SimEscape
from seatrial.sim.hosts import SimHost
from seatrial.sim.network import SimNetwork, run
from seatrial.sim.program import NotFinished, Simulated, simulate
from seatrial.sim.trace import Trace, compare_traces
from seatrial.sim.world import EventStorm, World

__all__ = [
    "EventStorm",
    "Network",
    "NotFinished",
    "SimEscape",
    "SimHost",
    "SimNetwork",
    "Simulated",
    "Trace",
    "World",
    "compare_traces",
    "run",
    "simulate",
]

"""The full level: the server as shipped and unmodified third-party clients, on simulated hosts, disks and network."""

from seatrial.sim.full.run import run_case

__all__ = ["run_case"]

"""State machines that the server replicates."""

from seatrial.machines.base import StateMachine

__all__ = ["StateMachine"]

"""What clients do to a cluster, how it is recorded, and how each workload's operations are judged."""

from seatrial.workloads.base import (
    Client,
    Completion,
    Endpoint,
    Generator,
    Request,
    SetupFailed,
    Unsupported,
    Workload,
)
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.registry import UnknownWorkload, by_name, by_names, names
from seatrial.workloads.runner import FinalOutcome, run_final, run_workload

__all__ = [
    "Client",
    "Completion",
    "Endpoint",
    "FinalOutcome",
    "Generator",
    "Recorder",
    "Request",
    "SetupFailed",
    "UnknownWorkload",
    "Unsupported",
    "Workload",
    "by_name",
    "by_names",
    "names",
    "run_final",
    "run_workload",
]

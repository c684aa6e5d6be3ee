"""What the environments do each in their own way: power, disks, clocks, logs, HTTP clients, new nodes.

Rule: what cannot be had raises NotHere on entering, before anything was done, and says where it can be had.  What is
done by a context is undone by it, and the injection says whether it bit.
Knows nothing of particular environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from seatrial.env import Clock, Rng
from seatrial.faults.base import Injection

Environment = Literal["sim", "local"]
Fault = AbstractAsyncContextManager[Injection]
DAMAGES = ("torn-tail", "truncate", "bit-flip")


class Surroundings(Protocol):
    """One environment, for one cluster."""

    @property
    def env(self) -> Environment: ...

    @property
    def clock(self) -> Clock:
        """That of the test and its clients."""

    def open_http(self) -> Any:
        """A new HTTP client: httpx's, or one that answers and raises as it does."""

    def open_load_http(self) -> Any:
        """As `open_http`, for the workloads' clients: it waits for an answer as long as they are used to."""

    def log_tail(self, node: int, lines: int) -> str:
        """The end of what the node wrote to its log."""

    async def power_failure(self, nodes: Sequence[int]) -> None:
        """These nodes, which all run, lose their power at once; they stay down."""

    def disk_full(self, node: int) -> Fault: ...

    def slow_disk(self, node: int, delay_ms: float) -> Fault: ...

    def clock_skew(self, node: int, *, offset_ms: float, drift_ppm: int) -> Fault: ...

    async def damage(self, node: int, kind: str, rng: Rng) -> str:
        """Damage what a node that is down has stored; what was done, in a line.  kind: one of DAMAGES."""

    async def add_node(self, node: int) -> dict[str, str]:
        """Make and start a node that the cluster never had, on empty storage: it waits to be made a member.

        Its addresses, as `POST /api/v1/members` takes them.
        """

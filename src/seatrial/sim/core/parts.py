"""What one simulated node is made of: its core, clock, disk and machine, and what is under way between them.

Rule: data alone; what is done with it is in `host`.  It is kept in slots, for a dictionary of so many names is slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from seatrial.raft.config import RaftConfig
from seatrial.raft.messages import Configuration
from seatrial.raft.node import RaftNode
from seatrial.raft.ready import Ready
from seatrial.sim.clocks import HostClock
from seatrial.sim.core.adapter import MakeCore
from seatrial.sim.core.disk import RecordDisk
from seatrial.sim.core.ledger import Ledger, Watch
from seatrial.sim.core.machine import Command
from seatrial.sim.core.outbox import Outbox
from seatrial.sim.core.service import Service
from seatrial.sim.core.trace import TIME_BITS, Digest
from seatrial.sim.world import World
from seatrial.transport.filters import FilterSet


class HostParts:
    """Everything that a `Host` knows."""

    __slots__ = (
        "_armed_us",
        "_backlog",
        "_digest",
        "_make_core",
        "_now_us",
        "_out",
        "_raft",
        "_random",
        "_received_code",
        "_record",
        "_saved_code",
        "_saving",
        "_ticked_code",
        "_timer",
        "clock",
        "config",
        "configuration",
        "core",
        "crash_mode",
        "crash_point",
        "crashed_at",
        "decoded",
        "disk",
        "filters",
        "keep_entries",
        "kept_down",
        "ledger",
        "messages_while_out",
        "node",
        "node_id",
        "outbox",
        "paused",
        "service",
        "snapshot_entries",
        "starts",
        "trace",
        "up",
        "watch",
        "world",
    )

    def __init__(
        self,
        world: World,
        config: RaftConfig,
        configuration: Configuration,
        disk: RecordDisk,
        clock: HostClock,
        ledger: Ledger,
        filters: FilterSet,
        decoded: dict[bytes, Command],
        digest: Digest,
        make_core: MakeCore,
    ) -> None:
        self.world = world
        self.node_id: int = config.node_id
        self.config = config
        self.configuration = configuration
        self.disk = disk
        self.clock = clock
        self.ledger = ledger
        self.decoded = decoded
        self.filters = filters
        self.outbox = Outbox(Watch(self.node_id, disk), ledger, filters, {})
        self.kept_down = 0  # how many faults keep it from starting again
        self.watch = Watch(self.node_id, disk)
        ledger.watches[self.node_id] = self.watch
        self.trace: Callable[[str], None] | None = None
        self.snapshot_entries = 0
        self.keep_entries = 0
        self.crash_mode = "prefix"
        self.crash_point = ""
        self.crashed_at: Callable[[str], None] | None = None  # told when a crash point was met
        self.node: Any = None
        self.core: Any = None
        self._raft: RaftNode | None = None  # the node, where it is Seatrial's own: calls are native in a compiled build
        self.service = Service(self.watch, ledger, decoded, 0)
        self.up = False
        self.paused = False
        self.messages_while_out = 0
        self.starts = 0
        self._make_core = make_core
        self._digest = digest
        self._record = digest.numbers.append
        self._received_code = self.node_id << TIME_BITS
        self._ticked_code = self._received_code | 1 << TIME_BITS + 8
        self._saved_code = self._received_code | 2 << TIME_BITS + 8
        self._out = True  # down or paused
        self._now_us = 0  # on its own clock, when it was last called
        self._random = world.stream(f"node {self.node_id}").random
        self._backlog: list[tuple[Callable[[Any], None], Any]] = []
        self._saving: deque[Ready] = deque()  # on their way to the disk, and what waits behind them
        self._timer = 0  # number of the one timer that counts
        self._armed_us: int | None = None  # on the node's own clock

"""A simulated disk with a storage on it, and a way to let its virtual time pass under a plain event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import Configuration, Entry, HardState, Snapshot, SnapshotMeta
from seatrial.sim.case import Disk
from seatrial.sim.disk import SimDisk
from seatrial.sim.world import World
from seatrial.storage import SegmentStorage


class Bench:
    """One world with one disk; `storage()` begins a life of the process that uses it."""

    def __init__(self, seed: int = 1, **settings: Any) -> None:
        self.world = World(seed)
        self.disk = SimDisk(self.world, "1", Disk(**settings))
        self.fatal: list[BaseException] = []
        self.reports: list[str] = []

    def storage(self, **options: Any) -> SegmentStorage:
        settings: dict[str, Any] = {"node_id": NodeId(1), "cluster_id": "test", "segment_bytes": 4096, **options}
        files = self.disk.mount()
        return SegmentStorage(files, "data", on_fatal=self.fatal.append, report=self.reports.append, **settings)

    async def step(self) -> bool:
        """One event of the world, and what the loop does of it; False where there was none."""
        for _ in range(3):
            await asyncio.sleep(0)
        due = self.world.next_us()
        if due is None:
            return False
        self.world.run(due)
        return True

    async def settle(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until so, or until nothing is left to happen."""
        while not until() and await self.step():
            pass

    async def save(self, group: Any, entries: Sequence[Entry] = (), state: HardState | None = None) -> None:
        done: list[bool] = []
        group.save(hard_state=state, entries=entries, snapshot=None, done=lambda: done.append(True))
        await self.settle(lambda: bool(done))
        assert done, "the save never ended"

    @staticmethod
    def run(scenario: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(scenario, 60))

    @staticmethod
    def entries(first: int, last: int, term: int = 1, size: int = 10) -> list[Entry]:
        return [
            Entry(Term(term), Index(i), 0, (b"%d/%d " % (i, term)).ljust(size, b".")) for i in range(first, last + 1)
        ]

    @staticmethod
    def snapshot(index: int, term: int) -> Snapshot:
        configuration = Configuration([NodeId(1), NodeId(2), NodeId(3)])
        return Snapshot(SnapshotMeta(Index(index), Term(term), configuration), b"machine at %d" % index * 20)

    @staticmethod
    def log(group: Any) -> dict[int, Entry]:
        at, found = int(group.first_index), dict[int, Entry]()
        while at <= group.last_index:
            for entry in group.entries(Index(at), group.last_index, 1 << 30):
                found[at] = entry
                at += 1
        return found


@pytest.fixture
def bench() -> Callable[..., Bench]:
    return Bench

"""Durable Raft logs: `SegmentStorage` on files, `MemoryStorage` for tests and the simulator's core level."""

from seatrial.storage.base import GroupStorage, LogStorage
from seatrial.storage.errors import (
    DamagedLog,
    DataDirectoryInUse,
    DiskFull,
    GroupBeingRemoved,
    StorageError,
    StorageFailed,
    WrongDataDirectory,
)
from seatrial.storage.memory import MemoryStorage
from seatrial.storage.segments import SegmentStorage

__all__ = [
    "DamagedLog",
    "DataDirectoryInUse",
    "DiskFull",
    "GroupBeingRemoved",
    "GroupStorage",
    "LogStorage",
    "MemoryStorage",
    "SegmentStorage",
    "StorageError",
    "StorageFailed",
    "WrongDataDirectory",
]

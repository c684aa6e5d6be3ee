"""What goes wrong in storage, each with the file to look at and what to do.

Rule: a torn tail is not an error (it is cut and reported); everything here stops a group or the process.
"""

from __future__ import annotations

import errno

from seatrial.raft.ids import GroupId


class StorageError(Exception):
    """Something outside went wrong with the data directory."""


class DamagedLog(StorageError):
    """Bytes that were durable cannot be read back; the group must not be served from this copy.

    Nothing was changed on disk.  The group's other replicas still have the data: remove this copy and let it be
    filled again from them (after the node was taken out of the group's voters: its vote may be lost too).
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file}: damaged at byte {offset}: {reason}")
        self.file = file
        self.offset = offset
        self.reason = reason


class WrongDataDirectory(StorageError):
    """The directory belongs to another node or cluster, or to another version of the format."""


class DataDirectoryInUse(StorageError):
    """Another process holds the directory's lock."""


class GroupBeingRemoved(StorageError):
    """The group's files are still being removed; open it again once that is done, or use a new group id."""

    def __init__(self, group: GroupId) -> None:
        super().__init__(f"group {group} is being removed; try again when that is done, or use a new group id")


class StorageFailed(StorageError):
    """A write or sync failed: what reached the disk is unknown, so the process must stop and recover from it."""


class DiskFull(StorageFailed):
    """The file system that holds the data directory has no space left."""


def failure_of(error: BaseException, directory: str) -> StorageError:
    """The error to stop the process with, after `error` came out of a write, sync, rename or removal."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk that holds {directory} is full ({error}); free some space, then start again")
    return StorageFailed(
        f"writing to {directory} failed ({error!r}); nothing after it was reported durable; "
        "check the disk, then start again"
    )

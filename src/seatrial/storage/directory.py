"""Whose data directory this is, and that nobody else is using it.

Rule: nothing in the directory is read or changed before its lock is held and its identity was checked.
Knows nothing of what else is in the directory.
"""

from __future__ import annotations

import json
from typing import Final

from seatrial.env import File, Files
from seatrial.raft.ids import NodeId
from seatrial.storage.errors import DataDirectoryInUse, WrongDataDirectory

FORMAT: Final = 1
_KEYS: Final = {"cluster_id", "format", "node_id"}


def claim_directory(files: Files, directory: str, *, node_id: NodeId, cluster_id: str) -> File:
    """Lock the directory, and check that it is this node's, or make it so if it is new; returns the lock.

    Raises DataDirectoryInUse, or WrongDataDirectory for that of another node, cluster or format.
    """
    files.make_directory(directory)
    try:
        lock = files.lock(f"{directory}/lock")
    except BlockingIOError as error:
        raise DataDirectoryInUse(
            f"the data directory {directory} is in use by another process; stop that, or use another directory"
        ) from error
    try:
        _check_identity(files, directory, node_id, cluster_id)
    except BaseException:
        lock.close()
        raise
    return lock


def _check_identity(files: Files, directory: str, node_id: NodeId, cluster_id: str) -> None:
    path = f"{directory}/identity"
    wanted = {"cluster_id": cluster_id, "format": FORMAT, "node_id": int(node_id)}
    if not files.exists(path):
        if files.list_directory(f"{directory}/groups"):
            raise WrongDataDirectory(f"{directory} holds Raft groups but no file 'identity': whose they are is unknown")
        _write(files, directory, path, json.dumps(wanted, sort_keys=True).encode() + b"\n")
        return
    file = files.open(path)
    try:
        content = file.read(0, file.size())
    finally:
        file.close()
    found = _parse(content)
    if found is None:
        raise WrongDataDirectory(f"{path} is damaged: {content[:80]!r}")
    if found["format"] != FORMAT:
        raise WrongDataDirectory(f"{directory} has format {found['format']}; this program reads format {FORMAT}")
    if found != wanted:
        raise WrongDataDirectory(
            f"{directory} belongs to node {found['node_id']} of cluster {found['cluster_id']!r}; "
            f"this is node {node_id} of cluster {cluster_id!r}"
        )


def _parse(content: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() == _KEYS else None


def _write(files: Files, directory: str, path: str, content: bytes) -> None:
    file = files.open(f"{path}.tmp", create=True)
    try:
        file.truncate(0)
        file.write(0, [content])
        file.sync()
    finally:
        file.close()
    files.replace(f"{path}.tmp", path)
    files.sync_directory(directory)

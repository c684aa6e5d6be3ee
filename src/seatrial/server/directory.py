"""What a data directory knows of its own life: how often it was started, and a number by which others know it again.

Rule: the number is drawn once, when the directory is first used, and is durable before anybody is told; a node whose
disk was lost comes back with another one, which is how its peers tell that what it had promised is lost.
Knows nothing of what else is in the directory (`storage.directory` says whose it is and locks it).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from seatrial.env import Clock, Files, Rng
from seatrial.server.errors import StartError

_FILE: Final = "incarnation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """`incarnation` counts its starts from 1; `number` is never 0; `joined`: begun to join a cluster that was there."""

    number: int
    incarnation: int
    joined: bool


def start_directory(files: Files, data_dir: str, rng: Rng, clock: Clock, *, joins: bool) -> Directory:
    """Count this start, durably; the directory has to be this process's own already.

    Raises:
        StartError: the directory was begun as a founder's, and now shall join another cluster.
    """
    path = f"{data_dir}/{_FILE}"
    known = _read(files, path)
    if known is None:
        # Not of the seed alone: a simulated node has the same one again after its disk was wiped.
        drawn = f"{rng.bytes(16).hex()} {clock.wall_ms()} {clock.now_us()}".encode()
        number = int.from_bytes(blake2b(drawn, digest_size=8).digest(), "big") >> 1 | 1
        known = Directory(number=number, incarnation=0, joined=joins)
    if joins and not known.joined:
        raise StartError(
            11,
            f"the data directory {data_dir} was begun by a node that founded its cluster, so it cannot --join another: "
            "leave --join away, or give an empty --data-dir",
        )
    started = Directory(number=known.number, incarnation=known.incarnation + 1, joined=known.joined)
    _write(files, data_dir, path, started)
    return started


def _read(files: Files, path: str) -> Directory | None:
    if not files.exists(path):
        return None
    file = files.open(path)
    try:
        content = file.read(0, file.size())
    finally:
        file.close()
    try:
        found = json.loads(content)
        return Directory(number=found["number"], incarnation=found["incarnation"], joined=found["joined"])
    except (ValueError, TypeError, KeyError):
        raise StartError(13, f"{path} is damaged: {content[:80]!r}") from None


def _write(files: Files, data_dir: str, path: str, directory: Directory) -> None:
    content = {"incarnation": directory.incarnation, "joined": directory.joined, "number": directory.number}
    file = files.open(f"{path}.tmp", create=True)
    try:
        file.truncate(0)
        file.write(0, [json.dumps(content).encode() + b"\n"])
        file.sync()
    finally:
        file.close()
    files.replace(f"{path}.tmp", path)
    files.sync_directory(data_dir)

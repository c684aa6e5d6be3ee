"""One file for each snapshot: its meta, the state machine's bytes, and a checksum over both.

Rule: a snapshot's file has its final name only once its bytes are durable (write aside, sync, rename, sync the
directory), so a file with that name which does not check was damaged later, and is refused.
Knows nothing of logs or of what a state machine's bytes mean.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from seatrial.env import Files
from seatrial.raft.ids import GroupId, Index, Term
from seatrial.raft.membership import decode_configuration, encode_configuration
from seatrial.raft.messages import Snapshot, SnapshotMeta
from seatrial.storage.checksum import extend
from seatrial.storage.errors import DamagedLog

_HEADER: Final = struct.Struct("<8sIIQQQQI")  # magic, crc, version, group, index, term, data and configuration size
_MAGIC: Final = b"\x93SeaSnp\n"
_VERSION: Final = 2
_CRC_AT: Final = 8
_CHECKED_FROM: Final = 12
_NAME: Final = re.compile(r"snapshot-(\d{20})")


def snapshot_name(index: int) -> str:
    return f"snapshot-{index:020d}"


def snapshot_indexes(names: list[str]) -> list[Index]:
    """The indexes of the snapshots among a directory's names, oldest first."""
    return sorted(Index(int(match[1])) for name in names if (match := _NAME.fullmatch(name)))


def pack_snapshot_header(group: GroupId, snapshot: Snapshot) -> bytes:
    """Everything before the state machine's bytes."""
    meta = snapshot.meta
    configuration = encode_configuration(meta.configuration)
    index, term, size = meta.last_included_index, meta.last_included_term, len(snapshot.data)
    header = _HEADER.pack(_MAGIC, 0, _VERSION, group, index, term, size, len(configuration)) + configuration
    crc = extend(extend(0, header[_CHECKED_FROM:]), snapshot.data)
    return header[:_CRC_AT] + struct.pack("<I", crc) + header[_CHECKED_FROM:]


def write_snapshot(files: Files, directory: str, group: GroupId, snapshot: Snapshot, *, origin: str) -> None:
    """Return only when the snapshot survives a power cut.  Runs on a worker; raises OSError.

    Writers of different `origin` may write a snapshot of the same index at once.
    """
    files.make_directory(directory)
    name = snapshot_name(snapshot.meta.last_included_index)
    temporary = f"{directory}/{name}.{origin}.tmp"
    file = files.open(temporary, create=True)
    try:
        file.truncate(0)
        file.write(0, [pack_snapshot_header(group, snapshot), snapshot.data])
        file.sync()
    finally:
        file.close()
    files.replace(temporary, f"{directory}/{name}")
    files.sync_directory(directory)


def read_snapshot(files: Files, path: str, group: GroupId, index: Index) -> Snapshot:
    """Raises DamagedLog for anything but the whole snapshot of this group and index."""
    try:
        file = files.open(path)
        try:
            content = file.read(0, file.size())
        finally:
            file.close()
    except OSError as error:
        raise DamagedLog(path, 0, f"the snapshot cannot be read: {error}") from error
    if len(content) < _HEADER.size:
        raise DamagedLog(path, len(content), f"a snapshot of {len(content)} bytes is cut off in its header")
    magic, crc, version, of_group, last_index, last_term, size, configured = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise DamagedLog(path, 0, "not a snapshot of this program")
    if version != _VERSION:
        raise DamagedLog(path, _CHECKED_FROM, f"a snapshot of format version {version}; this is version {_VERSION}")
    if extend(0, content[_CHECKED_FROM:]) != crc:
        raise DamagedLog(path, _CRC_AT, "the snapshot's checksum does not hold")
    data_at = _HEADER.size + configured
    if (of_group, last_index) != (group, index) or len(content) != data_at + size:
        raise DamagedLog(path, _CHECKED_FROM, f"it holds the snapshot of group {of_group} at {last_index}")
    try:
        configuration = decode_configuration(content[_HEADER.size : data_at])
    except ValueError as error:
        raise DamagedLog(path, _HEADER.size, str(error)) from error
    return Snapshot(SnapshotMeta(index, Term(last_term), configuration), content[data_at:])

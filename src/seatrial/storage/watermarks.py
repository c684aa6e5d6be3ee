"""How far each group's log is known to be durable, kept apart from the logs themselves.

This is the second copy of identities of Protocol-Aware Recovery (FAST '18, §3.3.3), which tells a torn write from
rot in the last batch of a log: whatever lies before a watermark was synced once, so if it cannot be read, it rotted.
A watermark is written after the sync that makes it true, and is never synced itself, except when the storage is
closed: a stale one only means that less is known, and costs nothing.  It survives the process in the page cache
and, a moment later, the machine.

One file for all groups: 64-byte slots, each with its own checksum; none spans two sectors.
Rule: a slot that does not check is no watermark.  Knows nothing of what lies before a place.
"""

from __future__ import annotations

import struct
from typing import Final

from seatrial.env import File
from seatrial.raft.ids import GroupId
from seatrial.storage.checksum import extend
from seatrial.storage.frames import NOWHERE, Place

_SLOT: Final = struct.Struct("<4xIQQQ28x4s")  # a place to put the crc in, sequence, group, offset, last index, magic
_MAGIC: Final = b"SeaW"
SLOT_SIZE: Final = _SLOT.size
_EMPTY: Final = bytes(SLOT_SIZE)


class Watermarks:
    """The slots of one data directory.  Reading is done once, on start; writing on the storage's worker."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._slots: dict[GroupId, int] = {}
        self._free: list[int] = []
        self._places: dict[GroupId, tuple[Place, int]] = {}
        self.unreadable = 0  # slots whose checksum did not hold
        content = file.read(0, file.size())
        self._count = -(-len(content) // SLOT_SIZE)
        for slot in range(self._count):
            self._load(slot, content[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE])

    def _load(self, slot: int, packed: bytes) -> None:
        found = None if packed == _EMPTY else _unpack(packed)
        if found is None:
            self.unreadable += packed.strip(b"\0") != b""
            self._free.append(slot)
            return
        group, place, last_index = found
        self._slots[group] = slot
        self._places[group] = (place, last_index)

    def found(self, group: GroupId) -> tuple[Place, int]:
        """The watermark read on start: a place, and the last index before it; NOWHERE and 0 where there is none."""
        return self._places.get(group, (NOWHERE, 0))

    def slot(self, group: GroupId) -> int:
        """The group's slot, given to it now if it has none."""
        slot = self._slots.get(group)
        if slot is None:
            if self._free:
                slot = self._free.pop()
            else:
                slot, self._count = self._count, self._count + 1
            self._slots[group] = slot
        return slot

    def release(self, group: GroupId) -> int | None:
        """The slot to `erase`, which may then be given to another group by `released`."""
        self._places.pop(group, None)
        return self._slots.pop(group, None)

    def released(self, slot: int) -> None:
        self._free.append(slot)

    def write(self, slot: int, group: GroupId, place: Place, last_index: int) -> None:
        self._file.write(slot * SLOT_SIZE, [_pack(group, place, last_index)])

    def erase(self, slot: int) -> None:
        """Durably: a group that is made again later must not find its predecessor's watermark."""
        self._file.write(slot * SLOT_SIZE, [_EMPTY])
        self._file.sync()

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def _pack(group: GroupId, place: Place, last_index: int) -> bytes:
    packed = _SLOT.pack(place.sequence, group, place.offset, last_index, _MAGIC)
    return struct.pack("<I", extend(0, packed[4:])) + packed[4:]


def _unpack(packed: bytes) -> tuple[GroupId, Place, int] | None:
    if len(packed) < SLOT_SIZE or struct.unpack_from("<I", packed)[0] != extend(0, packed[4:]):
        return None
    sequence, group, offset, last_index, magic = _SLOT.unpack(packed)
    return (GroupId(group), Place(sequence, offset), last_index) if magic == _MAGIC else None

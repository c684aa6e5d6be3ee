"""The bytes of one file on a simulated disk: as they read now, and as they would read after a power cut.

Rule: what `sync` returned for is durable; of the rest a power cut keeps what the disk's settings say, never more and
never in pieces smaller than a sector.  Damage hits only bytes that a later sync of the same file proves to have been
durable once (or any byte of a file that was put in place by a rename): of the very last write no storage could tell
whether it was lost or never made, unless its second copy survived, so damaging it would test nothing.
Knows nothing of names and directories.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from seatrial.env import Rng

SECTOR: Final = 512
VERSIONS_MAX: Final = 8  # earlier syncs that a file can be rolled back to

Change: TypeAlias = tuple[int, bytes | None]  # a write at an offset; or, with None, a change of size to it
Inverse: TypeAlias = tuple[int, bytes, int]  # what was at an offset, and the size before


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """A write at `offset`; or, with None, a change of size to it.  A gap reads as zeros."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


class SilentWrite:
    """A write that the disk acknowledged and did not make: where it belongs, and where it went instead, if anywhere."""

    __slots__ = ("before", "data", "offset", "syncs", "target")

    def __init__(self, offset: int, data: bytes, before: bytes, target: int | None) -> None:
        self.offset = offset
        self.data = data
        self.before = before  # what the platter keeps there
        self.target = target
        self.syncs = 0  # of later writes of the file


class Content:
    """One file's bytes.  `renamed`: it was put in place whole, by a rename."""

    __slots__ = ("_proven", "_silent", "_undo", "durable", "live", "renamed", "unsynced")

    def __init__(self) -> None:
        self.live = bytearray()
        self.durable = bytearray()
        self.unsynced: list[Change] = []
        self.renamed = False
        self._undo: deque[list[Inverse]] = deque(maxlen=VERSIONS_MAX)  # of each sync, last change first
        self._silent: list[SilentWrite] = []
        self._proven = 0  # bytes before this were durable before the last sync that wrote behind them

    def write(self, offset: int, data: bytes) -> None:
        apply(self.live, offset, data)
        self.unsynced.append((offset, data))
        if self._silent:
            end = offset + len(data)
            self._silent = [s for s in self._silent if end <= s.offset or s.offset + len(s.data) <= offset]

    def resize(self, size: int) -> None:
        apply(self.live, size, None)
        self.unsynced.append((size, None))

    def sync(self) -> None:
        if not self.unsynced:
            return
        undo: list[Inverse] = []
        written = [offset for offset, data in self.unsynced if data]
        for offset, data in self.unsynced:
            before = self.durable[offset:] if data is None else self.durable[offset : offset + len(data)]
            undo.append((offset, bytes(before), len(self.durable)))
            apply(self.durable, offset, data)
        undo.reverse()
        self._undo.append(undo)
        self.unsynced.clear()
        if written:
            self._proven = min(written)
            for silent in self._silent:
                silent.syncs += min(written) > silent.offset

    def fail_sync(self) -> None:
        """As Linux does after EIO: the pages count as clean, can still be read, and will never be on disk."""
        self.unsynced.clear()

    # ---- what a power cut leaves -----------------------------------------------------------------------------------

    def cut_power(self, mode: str, chance: Rng) -> int:
        """Only what the disk holds is left; returns how many changes that were not synced were lost or torn."""
        changes, lost = self.unsynced, 0
        if mode == "kept":
            self.sync()
        elif mode == "prefix" and changes:
            kept = chance.integer(0, len(changes))
            lost = len(changes) - kept
            for offset, data in changes[:kept]:
                apply(self.durable, offset, data)
            if kept < len(changes):
                self._tear(*changes[kept], chance)
        elif mode == "some" and changes:
            likely = chance.random()
            for offset, data in changes:
                lost += self._scatter(offset, data, likely, chance)
        else:
            lost = len(changes)
        self.unsynced.clear()
        self.live = bytearray(self.durable)
        return lost

    def _tear(self, offset: int, data: bytes | None, chance: Rng) -> None:
        if data is None:
            return
        boundaries = range(-(-offset // SECTOR) * SECTOR, offset + len(data), SECTOR)
        if boundaries and (kept := chance.choice(boundaries) - offset) > 0:
            apply(self.durable, offset, data[:kept])

    def _scatter(self, offset: int, data: bytes | None, likely: float, chance: Rng) -> bool:
        if data is None:
            if kept := chance.chance(likely):
                apply(self.durable, offset, None)
            return not kept
        lost, at, end = False, offset, offset + len(data)
        while at < end:
            boundary = min((at // SECTOR + 1) * SECTOR, end)
            if chance.chance(likely):
                apply(self.durable, at, data[at - offset : boundary - offset])
            else:
                lost = True
            at = boundary
        return lost

    # ---- damage ----------------------------------------------------------------------------------------------------

    def damageable(self) -> int:
        """How many bytes from the beginning may be damaged so that the damage can be told from a torn write."""
        return len(self.durable) if self.renamed else min(self._proven, len(self.durable))

    def flip(self, at: int, bit: int) -> bool:
        """Flip a bit of what is durable, and of what reads now where no newer write hides it."""
        if at >= self.damageable():
            return False
        if any(offset <= at < offset + len(data or b"") for offset, data in self.unsynced):
            return False
        self.durable[at] ^= 1 << bit
        if at < len(self.live):
            self.live[at] = self.durable[at]
        return True

    def write_silently(self, offset: int, data: bytes, target: int | None) -> None:
        """As `write`, but the platter will not have it (or has it elsewhere): seen after a crash alone."""
        self.write(offset, data)
        before = bytearray(self.durable[offset : offset + len(data)])
        before.extend(bytes(len(data) - len(before)))
        self._silent.append(SilentWrite(offset, data, bytes(before), target))

    def reveal(self) -> int:
        """At a crash: the acknowledged writes that were never made come to light; returns how many."""
        revealed = 0
        for silent in self._silent:
            if not silent.syncs:
                continue
            revealed += 1
            for content in (self.durable, self.live):
                apply(content, silent.offset, silent.before)
                if silent.target is not None:
                    apply(content, silent.target, silent.data)
        self._silent.clear()
        return revealed

    def truncate_to(self, share: float) -> bool:
        """Cut what was ever written to so much of it; True if any byte other than zero was lost."""
        used = len(self.durable.rstrip(b"\0"))
        size = int(used * share)
        if size >= used:
            return False
        del self.durable[size:]
        self.live = bytearray(self.durable)
        return True

    def roll_back(self, chance: Rng) -> bool:
        """Be what an earlier sync left; True if that differs."""
        if not self._undo:
            return False
        before = bytes(self.durable)
        for _ in range(chance.integer(1, len(self._undo))):
            for offset, data, size in self._undo.pop():
                apply(self.durable, offset, data)
                apply(self.durable, size, None)
        self.live = bytearray(self.durable)
        return bytes(self.durable) != before

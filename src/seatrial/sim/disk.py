"""A simulated disk: files in memory that a power cut, a failing medium or a full file system treat as real ones would.

    disk = SimDisk(world, "1", case.disk)
    files = disk.mount()            # an `env.Files` for one life of the machine's process
    ...
    disk.crash(power=True)          # that life is over; what was not synced is lost, torn or kept
    files = disk.mount()            # what the next life finds

Rule: what a sync returned for survives every crash; what is damaged on purpose can always be told from a torn write by
a storage that keeps second copies (see `disk_content`), so a node that serves damaged data has a bug.  Choices come
from the streams `disk NAME` (speed, what a crash keeps) and `disk NAME damage`.
Knows nothing of nodes; of what files hold, only that those named `segment-` and `snapshot-` mark points of a save, and
that `watermarks` is a second copy.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import Final

from seatrial.sim.case import Disk
from seatrial.sim.disk_content import Content
from seatrial.sim.disk_files import SimFiles
from seatrial.sim.disk_tree import Directory, Tree, os_error
from seatrial.sim.world import World

SILENT_BYTES_MIN: Final = (
    96  # a write that is to be lost or misdirected is at least so long: not a counter's or a mark's
)
SECOND_COPY: Final = "watermarks"  # tells whether a log lost its end: no storage survives the loss of both
CUT_OPERATIONS_MAX: Final = 8  # a job that runs when the machine stops has carried out at most so many operations


class SimDisk:
    """One machine's disk, with what may go wrong with it.

    slow_sync_us: what each sync takes in addition.  fills: while there is any, writes fail with ENOSPC.
    counts: evidence, by kind of fault.
    on_point: told each point of a save ("before-save", "after-save", "during-snapshot") that the disk comes to;
    returns whether the machine was crashed there.
    """

    def __init__(self, world: World, name: str, settings: Disk, *, mount_point: str = "data") -> None:
        self.world = world
        self.name = name
        self.settings = settings
        self.mount_point = mount_point
        self.slow_sync_us = 0
        self.fills = 0
        self._stalls = 0
        self.counts: Counter[str] = Counter()
        self.on_point: Callable[[str], bool] | None = None
        self.tree = Tree()
        self._chance = world.stream(f"disk {name}")
        self._damage = world.stream(f"disk {name} damage")
        self._failing: set[str] = set()  # kinds of operation that fail with EIO, once each
        self._silent: float | None = None  # the next write is lost; or, from 0 on, goes to that share of its file
        self._silent_armed = False
        self._mounted: SimFiles | None = None
        self._hits_second_copy: bool | None = None  # damage is to the second copy alone, or to all but it
        self._make_mount_point()

    def _make_mount_point(self) -> None:
        """A mount point is there before anything on it: its name needs no sync."""
        at = self.tree.root
        for part in self.mount_point.split("/"):
            if part:
                made = Directory()
                at.change((part, made))
                at.sync()
                at = made

    # ---- lives -----------------------------------------------------------------------------------------------------

    def mount(self, *, charge: Callable[[int], None] | None = None) -> SimFiles:
        """The files as a process that begins now finds them; `charge` is told the µs that blocking calls cost."""
        assert self._mounted is None, f"disk {self.name} is mounted already: crash or unmount first"
        self._mounted = SimFiles(self, charge)
        return self._mounted

    def unmount(self) -> None:
        """The process has ended in peace; everything written is there, and may still be lost to a power cut."""
        if self._mounted is not None:
            self._mounted.end()
            self._mounted = None

    def crash(self, *, power: bool) -> None:
        """The process stops in the middle of whatever it does; with `power` the machine does, and its page cache."""
        if self._mounted is not None:
            self._mounted.end(cut_after=lambda: self._chance.integer(0, CUT_OPERATIONS_MAX))
            self._mounted = None
        if power:
            mode = self.settings.unsynced
            lost = sum(content.cut_power(mode, self._chance) for content in self._contents())
            lost += self.tree.root.cut_power(mode, self._chance)
            self.counts["unsynced-lost"] += lost
        for content in self._contents():
            if revealed := content.reveal():
                self.counts["silent-write"] += revealed

    def wipe(self) -> None:
        """A new, empty disk in place of this one."""
        assert self._mounted is None, f"disk {self.name} is mounted: crash first"
        self.tree = Tree()
        self._make_mount_point()
        self._failing.clear()
        self._silent_armed = False

    def _contents(self) -> list[Content]:
        return [content for _, content in self.tree.files()]

    # ---- speed -----------------------------------------------------------------------------------------------------

    def sync_takes_us(self) -> int:
        """Of the next sync."""
        if self.slow_sync_us:
            self.counts["slow-sync"] += 1
        return self._chance.integer(*self.settings.sync_us) + self.slow_sync_us

    @property
    def is_stalled(self) -> bool:
        return self._stalls > 0

    def stall(self) -> None:
        """No sync ends until as many `release`."""
        self._stalls += 1

    def release(self) -> None:
        self._stalls -= 1
        if not self.is_stalled and self._mounted is not None:
            self._mounted.release()

    # ---- failing ---------------------------------------------------------------------------------------------------

    def fail_next(self, operation: str) -> None:
        """The next "read", "write" or "sync" fails with EIO, once."""
        assert operation in ("read", "write", "sync"), operation
        self._failing.add(operation)

    def forget_failures(self) -> None:
        """What was to fail and was never tried does not fail any more."""
        self._failing.clear()

    def heal(self) -> None:
        """Nothing fails, stalls or is slow any more; what is damaged stays damaged."""
        self._failing.clear()
        self._silent_armed = False
        self.fills = 0
        self.slow_sync_us = 0
        if self.is_stalled:
            self._stalls = 1
            self.release()

    def check(self, operation: str, path: str) -> None:
        """Called before each operation; raises the OSError that it fails with."""
        if self.fills and operation in ("write", "create", "allocate"):
            self.counts["disk-full"] += 1
            raise os_error(errno.ENOSPC, path)
        if self._failing and operation in self._failing:
            self._failing.discard(operation)
            self.counts["io-error"] += 1
            raise os_error(errno.EIO, path)

    # ---- damage: each returns or counts whether it did anything ----------------------------------------------------

    def lose_next_write(self) -> None:
        """Arm it: counted as "silent-write" when a crash has shown it."""
        self._silent, self._silent_armed = None, True

    def misdirect_next_write(self, where: float) -> None:
        """As `lose_next_write`; and it lands on an earlier place of its file, 0 the beginning, 1 just before."""
        self._silent, self._silent_armed = where, True

    def write(self, content: Content, offset: int, data: bytes) -> None:
        """To the page cache; silently nowhere, or elsewhere, if that was armed."""
        if not self._silent_armed or len(data) < SILENT_BYTES_MIN:
            content.write(offset, data)
            return
        if self._silent is None:
            content.write_silently(offset, data, None)
        else:
            room = offset - len(data)
            if room < 0:
                content.write(offset, data)  # no earlier place is large enough: the next write's turn
                return
            content.write_silently(offset, data, int(self._silent * room))
        self._silent_armed = False

    def rot(self, where: float) -> bool:
        """Flip one bit of what is durable: at 0 in the oldest byte of some file, at 1 in its newest."""
        content = self._choose(lambda content: content.damageable() > 0)
        if content is None:
            return False
        at = min(int(where * content.damageable()), content.damageable() - 1)
        flipped = content.flip(at, self._damage.integer(0, 7))
        self.counts["bit-rot"] += flipped
        return flipped

    def truncate_file(self, left: float) -> bool:
        """While nothing is mounted: cut some file to so much of what was written to it, 0 to 1.

        Everything else is flushed first: what a storage knows of its files apart from them is there to tell.
        """
        content = self._choose_damaged()
        done = content is not None and content.truncate_to(left)
        self.counts["truncate-file"] += done
        return done

    def roll_back_file(self) -> bool:
        """While nothing is mounted: some file is what it was at an earlier sync; all else is flushed, as above."""
        content = self._choose_damaged()
        done = content is not None and content.roll_back(self._damage)
        self.counts["roll-back-file"] += done
        return done

    def _choose_damaged(self) -> Content | None:
        assert self._mounted is None, f"disk {self.name} is mounted: crash first"
        for content in self._contents():
            content.sync()
        return self._choose(lambda content: bool(content.durable.strip(b"\0")))

    def _choose(self, may_be: Callable[[Content], bool]) -> Content | None:
        candidates = []
        for path, content in self.tree.files():
            is_second_copy = path.endswith(SECOND_COPY)
            if self._hits_second_copy in (None, is_second_copy) and may_be(content):
                candidates.append((is_second_copy, content))
        if not candidates:
            return None
        self._hits_second_copy, chosen = self._damage.choice(candidates)
        return chosen

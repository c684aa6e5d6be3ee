"""Reads a group's directory back: the log as it was acknowledged, a torn tail cut, anything else refused.

**Torn or rotted.**  A damaged frame at the end of the log may be a write that the power cut short (never
acknowledged: cut it), or one that was synced, acknowledged and has rotted since (cutting it would lose a vote or a
committed entry).  The checksum cannot tell; what was known durable must be known from elsewhere (Protocol-Aware
Recovery, FAST '18, §3.3.3).  Here from three places, none of which costs a sync:
1. every batch frame says how far the log was durable when it was written: the next write proves the one before;
2. this is also looked for *behind* the damage, where a search for the magic finds whole batch frames;
3. the watermark file says it of the last batch (see `watermarks`).
A log that stops before the furthest of these was damaged: DamagedLog.  At or behind it: a torn tail.  What remains
indistinguishable is the last batch of a log whose watermark the same power cut lost: it counts as torn.

Rule: nothing is changed on disk before the whole group was read and found good.  What was read but not known
durable is written and synced again before anyone may rely on it: the process that wrote it may have died before its
sync, or of it (after a failed fsync, pages are clean but not on disk).
With durability "os" nothing says "durable" but a clean shutdown, so that whatever a power cut did is a torn tail.
Knows nothing of the Raft rules beyond: indexes are contiguous, terms never fall.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from seatrial.env import Files
from seatrial.raft.ids import GroupId, Index, Term
from seatrial.raft.messages import CONFIGURATION, HardState, Snapshot
from seatrial.storage.errors import DamagedLog
from seatrial.storage.frames import (
    BATCH_KIND,
    BATCH_SIZE,
    NOWHERE,
    Batch,
    Frame,
    FrameScan,
    Place,
    first_batch,
    whole_batches,
)
from seatrial.storage.log_index import LogIndex
from seatrial.storage.snapshots import read_snapshot, snapshot_indexes, snapshot_name

_SEGMENT: Final = re.compile(r"segment-(\d{8})-(\d{20})\.log")
_REWRITE_BYTES: Final = 1 << 20


def segment_name(sequence: int, first_index: int) -> str:
    """Ordered by sequence: after a conflict a later segment may begin at a lower index than an earlier one."""
    return f"segment-{sequence:08d}-{first_index:020d}.log"


def segments_in(names: Sequence[str]) -> dict[int, str]:
    """Sequence number to name, in order."""
    found = {int(match[1]): name for name in names if (match := _SEGMENT.fullmatch(name))}
    return dict(sorted(found.items()))


@dataclass(slots=True, kw_only=True)
class RecoveredLog:
    """A group as it stands on disk."""

    index: LogIndex
    hard_state: HardState
    snapshot: Snapshot | None
    segments: dict[int, str]  # sequence to file name, without a gap
    end: Place  # where the next batch goes
    durable: Place  # how far it is proven durable
    obsolete: bool  # the snapshot is ahead of the log: the log must begin anew behind it


@dataclass(slots=True)
class _Replay:
    """The state of reading segments one after the other."""

    index: LogIndex = field(default_factory=LogIndex)
    hard_state: HardState = field(default_factory=lambda: HardState(Term(0), None, Index(0)))
    end: Place = NOWHERE
    durable: Place = NOWHERE
    problem: str | None = None
    started: bool = False


class Recovery:
    """Recovers one group; `report` is told, in a sentence, what was cut or left over."""

    def __init__(self, files: Files, directory: str, group: GroupId, watermark: tuple[Place, int]) -> None:
        self._files = files
        self._directory = directory
        self._group = group
        self._watermark, self._watermark_index = watermark
        self.reports: list[str] = []

    def recover(self, *, settle: bool) -> RecoveredLog | None:
        """None for a group that was never written.  Raises DamagedLog, having changed nothing.

        With `settle` (durability "fsync") all that was read is durable when this returns.
        """
        names = self._files.list_directory(self._directory)
        snapshots = snapshot_indexes(names)
        segments = segments_in(names)
        snapshot = None
        if snapshots:
            path = f"{self._directory}/{snapshot_name(snapshots[-1])}"
            snapshot = read_snapshot(self._files, path, self._group, snapshots[-1])
        run = self._run_to_read(segments)
        replay = self._replay(run)
        self._refuse_lost_durable(replay, run)
        if not replay.started and snapshot is None:
            self._cut(replay, run)
            return None
        self._refuse_missing_entries(replay, run, snapshot)
        self._cut(replay, run)
        if settle:
            self._settle(replay, run)
            if snapshots:
                self._files.sync_directory(self._directory)  # its name may be in the page cache alone
        self._remove_leftovers(names, keep={*run.values(), *map(snapshot_name, snapshots[-1:])})
        kept = {sequence: name for sequence, name in run.items() if sequence <= replay.end.sequence}
        return RecoveredLog(
            index=replay.index,
            hard_state=_consistent(replay, snapshot),
            snapshot=snapshot,
            segments=kept,
            end=replay.end,
            durable=replay.end if settle else self._proven(replay),
            obsolete=_is_obsolete(replay.index, snapshot),
        )

    def _run_to_read(self, segments: dict[int, str]) -> dict[int, str]:
        """The newest segments without a gap between them, from the last one that begins the log anew."""
        gaps = [after for before, after in pairwise(segments) if after != before + 1]
        first = gaps[-1] if gaps else 0
        for sequence in sorted(segments, reverse=True):
            if sequence < first:
                break
            batch = first_batch(self._read(segments[sequence], BATCH_SIZE), self._group, sequence)
            if batch is not None and batch.resets:
                first = sequence
                break
        return {sequence: name for sequence, name in segments.items() if sequence >= first}

    def _replay(self, run: dict[int, str]) -> _Replay:
        replay = _Replay()
        for sequence, name in run.items():
            content = self._read(name)
            if replay.problem is not None and self._goes_on(replay, sequence, content):
                replay.problem = None
            if replay.problem is None:
                self._replay_segment(replay, sequence, content)
                behind = replay.end.offset if replay.end.sequence == sequence else 0
            else:
                behind = 0
            if replay.problem is not None:
                for batch in whole_batches(content, self._group, sequence, behind):
                    replay.durable = max(replay.durable, batch.durable)
        return replay

    def _goes_on(self, replay: _Replay, sequence: int, content: bytes) -> bool:
        """Whether the problem lies behind the previous segment's last frame, where this segment takes over."""
        batch = first_batch(content, self._group, sequence)
        return batch is not None and replay.end == Place(sequence - 1, batch.previous_end)

    def _replay_segment(self, replay: _Replay, sequence: int, content: bytes) -> None:
        scan = FrameScan(content, self._group, sequence)
        for frame in scan:
            if frame.offset == 0:
                if frame.batch is None:
                    replay.problem = "the segment does not begin with a batch frame"
                    break
                if replay.started and frame.batch.previous_end != replay.end.offset:
                    # The segment before lacks its end; so the log ends there, not here.
                    replay.problem = f"frames up to byte {frame.batch.previous_end} are missing"
                    replay.durable = max(replay.durable, frame.batch.durable)
                    return
            if frame.kind == BATCH_KIND and frame.batch is not None:
                self._apply_batch(replay, sequence, frame, frame.batch)
            else:
                self._apply_entry(replay, sequence, frame)
        if scan.end == 0 and replay.problem is None:
            replay.problem = scan.problem or "the segment is empty"
            replay.end = replay.end if replay.started else Place(sequence, 0)
            return
        replay.problem = replay.problem or scan.problem
        replay.end = Place(sequence, scan.end)

    def _apply_batch(self, replay: _Replay, sequence: int, frame: Frame, batch: Batch) -> None:
        index = replay.index
        if batch.resets or not replay.started:
            index.reset(batch.next_index)
        elif batch.next_index != index.last + 1:
            reason = f"a batch that follows entry {batch.next_index - 1} stands behind entry {index.last}"
            raise self._damaged(sequence, frame.offset, reason)
        replay.started = True
        replay.hard_state = batch.hard_state
        replay.durable = max(replay.durable, batch.durable)

    def _apply_entry(self, replay: _Replay, sequence: int, frame: Frame) -> None:
        index = replay.index
        if frame.log_index > index.last + 1:
            raise self._damaged(sequence, frame.offset, f"entry {frame.log_index} stands behind entry {index.last}")
        if frame.log_index < index.first:
            # It supersedes entries whose segments were compacted: the log begins here.
            index.reset(frame.log_index)
        before = index.term(frame.log_index - 1)
        if before is not None and frame.term < before:
            raise self._damaged(sequence, frame.offset, f"term {frame.term} stands behind term {before}")
        index.extend(frame.log_index, (frame.term,))
        if frame.kind == CONFIGURATION:
            index.mark_configuration(frame.log_index)
        index.put(frame.log_index, sequence, frame.offset, frame.length)

    def _refuse_lost_durable(self, replay: _Replay, run: dict[int, str]) -> None:
        durable = self._proven(replay)
        if replay.end >= durable:
            return
        sequence, offset = replay.end
        if not run:
            reason = f"no segment is left, but entries up to {self._watermark_index} were durable"
            raise DamagedLog(self._directory, 0, reason)
        reason = replay.problem or "the log ends here"
        if durable == self._watermark and replay.durable < durable:
            known = f"the watermark file knows entries up to {self._watermark_index} to have been durable"
        else:
            known = "a later write proves it to have been durable"
        where = f"segment {durable.sequence}, byte {durable.offset}"
        raise self._damaged(sequence, offset, f"{reason}; but the log up to {where} was synced: {known}", run)

    def _refuse_missing_entries(self, replay: _Replay, run: dict[int, str], snapshot: Snapshot | None) -> None:
        covered = snapshot.meta.last_included_index if snapshot is not None else 0
        if not replay.started:
            reason = f"a snapshot at {covered}, but no readable segment: a vote would be forgotten"
            raise DamagedLog(self._directory, 0, reason)
        first = replay.index.first
        if first > covered + 1:
            reason = f"entries {covered + 1} to {first - 1} are in no segment and no snapshot"
            raise DamagedLog(f"{self._directory}/{next(iter(run.values()))}", 0, reason)

    def _cut(self, replay: _Replay, run: dict[int, str]) -> None:
        """Make the directory what was read: durably, so that what was cut can never come back behind new frames."""
        if replay.problem is None:
            return
        sequence, offset = replay.end
        # The last one first, and each durably: a gap would look like a lost segment if this were cut short.
        for later in [s for s in reversed(run) if s > sequence or (s == sequence and offset == 0)]:
            self.reports.append(f"{self._directory}/{run[later]}: removed, a torn tail ({replay.problem})")
            self._files.remove(f"{self._directory}/{run[later]}")
            self._files.sync_directory(self._directory)
        if offset > 0:
            path = f"{self._directory}/{run[sequence]}"
            file = self._files.open(path)
            try:
                lost = file.size() - offset
                self.reports.append(f"{path}: a torn tail cut at byte {offset} ({replay.problem}; {lost} bytes)")
                file.truncate(offset)
                file.sync()
            finally:
                file.close()

    def _settle(self, replay: _Replay, run: dict[int, str]) -> None:
        """Make durable what was not proven to be: the end of the log is written again, then synced."""
        proven, end = self._proven(replay), replay.end
        if proven >= end:
            return
        for sequence, name in run.items():
            if not proven.sequence <= sequence <= end.sequence:
                continue
            file = self._files.open(f"{self._directory}/{name}")
            try:
                at = proven.offset if proven.sequence == sequence else 0
                while sequence == end.sequence and at < end.offset:
                    part = file.read(at, min(_REWRITE_BYTES, end.offset - at))
                    file.write(at, [part])
                    at += len(part)
                file.sync()
            finally:
                file.close()
        self._files.sync_directory(self._directory)
        self._files.sync_directory(self._directory.rpartition("/")[0])

    def _proven(self, replay: _Replay) -> Place:
        return max(replay.durable, self._watermark)

    def _remove_leftovers(self, names: Sequence[str], keep: set[str]) -> None:
        for name in names:
            known = _SEGMENT.fullmatch(name) or name.startswith("snapshot-")
            if known and name not in keep:
                self._files.remove(f"{self._directory}/{name}")

    def _read(self, name: str, size: int | None = None) -> bytes:
        path = f"{self._directory}/{name}"
        try:
            file = self._files.open(path)
            try:
                return file.read(0, file.size() if size is None else size)
            finally:
                file.close()
        except OSError as error:
            raise DamagedLog(path, 0, f"it cannot be read: {error}") from error

    def _damaged(self, sequence: int, offset: int, reason: str, run: dict[int, str] | None = None) -> DamagedLog:
        names = run or segments_in(self._files.list_directory(self._directory))
        return DamagedLog(f"{self._directory}/{names.get(sequence, '')}", offset, reason)


def _is_obsolete(index: LogIndex, snapshot: Snapshot | None) -> bool:
    """Whether the log ends before the snapshot, or does not contain its last entry."""
    if snapshot is None:
        return False
    last, term = snapshot.meta.last_included_index, snapshot.meta.last_included_term
    return index.last < last or (index.first <= last and index.term(last) != term)


def _consistent(replay: _Replay, snapshot: Snapshot | None) -> HardState:
    """The HardState, made to fit what lies beside it.

    The commit index is saved lazily and may run ahead of entries that were never synced: it is clamped.  A
    snapshot from a leader may be durable before the HardState of the same save: the node then has not voted in the
    snapshot's term, and takes it up as from any message of that term.
    """
    state, covered = replay.hard_state, Index(0)
    term, voted_for, last = state.term, state.voted_for, Index(replay.index.last)
    if snapshot is not None:
        covered = snapshot.meta.last_included_index
        if snapshot.meta.last_included_term > term:
            term, voted_for = snapshot.meta.last_included_term, None
    return HardState(term, voted_for, Index(max(covered, min(state.commit_index, last))))

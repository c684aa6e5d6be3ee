"""Planted bugs between the Raft core and the disk, and between two nodes' cores: storage and transport.

Rule: each is a mistake that was made by somebody, or that the literature warns of.  Data alone (see `mutation.Mutant`).
"""

from __future__ import annotations

from typing import Final

from seatrial.sim.mutation import Mutant

_BATCH_WRITE: Final = "seatrial.storage.batch_write"
_FRAMES: Final = "seatrial.storage.frames"
_GROUP: Final = "seatrial.storage.group"
_RECOVERY: Final = "seatrial.storage.recovery"
_SEGMENTS: Final = "seatrial.storage.segments"
_LINK: Final = "seatrial.transport.link"

STORAGE_MUTANTS: Final = (
    Mutant(
        name="saved-before-fsync",
        summary="A save is reported durable before its file is synced.",
        source="DESIGN of every log: acknowledge after fsync; Redpanda Jepsen report, Kafka's page cache",
        module=_BATCH_WRITE,
        before="        self.segment.sync()\n",
        after="",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="small-saves-not-synced",
        summary="A write that was quick enough for the event loop is reported durable from the page cache.",
        source="our own shortcut for small writes (`storage.inline_writes`), without its sync",
        module=_SEGMENTS,
        before="            if not self._settings.synced:\n                self._loop.call_soon",
        after="            if inline:\n                self._loop.call_soon",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="failed-sync-ignored",
        summary="After a sync that failed the storage goes on, as if the next one would make up for it.",
        source='fsyncgate (PostgreSQL 2018); Rebello et al., "Can Applications Recover from fsync Failures?", ATC \'20',
        module=_SEGMENTS,
        before="""\
        self._writing = False
        if isinstance(result, BaseException):
            self._fail(result)
""",
        after="""\
        self._writing = False
        if isinstance(result, BaseException):
            result = None
""",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="directory-not-synced",
        summary="A new segment's name is not made durable, so that a power cut takes the whole file.",
        source='Pillai et al., "All File Systems Are Not Created Equal", OSDI \'14; LevelDB, ZooKeeper',
        module=_BATCH_WRITE,
        before="        if self.segment.is_new:\n            self.settings.files.sync_directory(self.directory)\n",
        after="        if self.segment.is_new:\n",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="vote-not-on-disk",
        summary="The vote is left out of what is written.",
        source="Raft figure 2, persistent state",
        module=_FRAMES,
        before="self.hard_state.voted_for or 0,",
        after="0,",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="torn-frame-accepted",
        summary="Recovery takes an entry whose checksum does not hold.",
        source="Protocol-Aware Recovery, FAST '18; ZooKeeper and LogCabin truncate or crash",
        module=_FRAMES,
        before="if extend(extend(self._seed, header[4:]), data) != crc:",
        after="if kind == BATCH_KIND and extend(extend(self._seed, header[4:]), data) != crc:",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="recovery-without-settling",
        summary="What recovery read from the page cache is relied on without a sync.",
        source="our own rule (`storage.recovery`): the process that wrote it may have died before its sync",
        module=_RECOVERY,
        before="                    at += len(part)\n                file.sync()",
        after="                    at += len(part)",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="reset-not-recorded",
        summary="That the log begins anew behind a snapshot is not written down.",
        source="etcd's WAL: a snapshot record must precede the entries that follow it",
        module=_GROUP,
        before="        self._next_index = last + 1\n        self._resets = True",
        after="        self._next_index = last + 1",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="watermark-ahead",
        summary="The watermark claims more than was written, so that a good log is taken for damaged.",
        source="our own second copy of identities (Protocol-Aware Recovery, FAST '18), off by one",
        module=_BATCH_WRITE,
        before="place = Place(self.segment.sequence, self.end)",
        after="place = Place(self.segment.sequence, self.end + 1)",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="snapshot-renamed-before-sync",
        summary="A snapshot gets its final name before its bytes are durable.",
        source="ext4 delayed allocation and rename (2009); Pillai et al., OSDI '14",
        module="seatrial.storage.snapshots",
        before="        file.sync()\n",
        after="",
        level="full",
        cases="power-cuts",
    ),
)

TRANSPORT_MUTANTS: Final = (
    Mutant(
        name="frame-lost-at-a-split",
        summary="Of a frame that comes in two pieces, the first is forgotten.",
        source="TCP is a stream: the oldest bug of network servers",
        module="seatrial.transport.receiver",
        before="            self._start, self._end = 0, left",
        after="            self._start, self._end = 0, 0",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="entry-indexes-shifted",
        summary="The entries of an AppendEntries are numbered from the previous one instead of behind it.",
        source="an off-by-one in a codec",
        module="seatrial.transport.codec",
        before="enumerate(headers, previous + 1)",
        after="enumerate(headers, previous)",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="dead-connection-kept",
        summary="A connection whose other end has forgotten it is kept, although nothing on it is ever answered.",
        source="half-open connections (RFC 9293 §3.5.1); TCP keepalive defaults to two hours",
        module=_LINK,
        before="elif connection.asked_us is not None and now - connection.asked_us > dead_after_us:",
        after="elif connection.asked_us is not None and now < connection.asked_us:",
        level="full",
    ),
    Mutant(
        name="back-off-without-limit",
        summary="The wait between two attempts to connect doubles without end.",
        source="exponential back-off needs a cap; gRPC's default of 120 s kept healed peers apart",
        module=_LINK,
        before="most = min(limits.back_off_first_s * 2**self._failures, limits.back_off_max_s)",
        after="most = max(limits.back_off_first_s * 2**self._failures, limits.back_off_max_s)",
        level="full",
    ),
    Mutant(
        name="hello-after-messages",
        summary="What is queued leaves on a new connection before it has said who is calling.",
        source="a handshake that is not first",
        module=_LINK,
        before="        transport.write(self._hello.packed())\n        self.flush()",
        after="        self.flush()",
        level="full",
        cases="hand-overs",
    ),
)

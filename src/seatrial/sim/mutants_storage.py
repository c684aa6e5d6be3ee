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
        cases="torn-writes",
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
        name="entry-kind-lost",
        summary="An entry that came from another node is taken for a command, whatever it was.",
        source="a field of a message that is written and not read; golden bytes of one's own codec do not see it",
        module="seatrial.transport.codec",
        before="entries.append(Entry(entry_term, Index(index), kind, data))",
        after="entries.append(Entry(entry_term, Index(index), 0, data))",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="payload-not-copied",
        summary="An entry keeps a view of the receive buffer, which the next frame overwrites.",
        source="zero-copy parsing: gRPC-Go and Netty document the ownership of their buffers for it",
        module="seatrial.transport.codec",
        before="data = bytes(body[data_at : data_at + size])",
        after="data = body[data_at : data_at + size]",
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
        name="hello-after-messages",
        summary="What is queued leaves on a new connection before it has said who is calling.",
        source="a handshake that is not first",
        module=_LINK,
        before="        connection.write([self.hello.packed()])\n        self.flush()",
        after="        self.flush()",
        level="full",
        cases="hand-overs",
    ),
)

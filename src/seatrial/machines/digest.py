"""A fingerprint of everything a replica has applied, to compare replicas by.

Rule: two replicas with the same fingerprint at the same index applied the same entries in the same order.  Each entry
counts with index, term, kind and the CRC32C of its data; the chain is BLAKE2b, so that differences never cancel out.
Knows nothing of what entries mean.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

import google_crc32c

from seatrial.raft.ids import Index
from seatrial.raft.messages import Entry

DIGEST_BYTES: Final = 8
_LINK = struct.Struct(">8sqqBI")


class AppliedDigest:
    """The chain and the index that it has reached."""

    __slots__ = ("_chain", "index")

    def __init__(self, index: int = 0, chain: bytes = bytes(DIGEST_BYTES)) -> None:
        self.index = index
        self._chain = chain

    def absorb(self, entry: Entry) -> None:
        """Add the next entry.  Entries come without a gap: anything else is a bug of the caller."""
        assert entry.index == self.index + 1, f"entry {entry.index} applied after {self.index}"
        link = _LINK.pack(self._chain, entry.index, entry.term, entry.kind, google_crc32c.value(entry.data))
        self._chain = blake2b(link, digest_size=DIGEST_BYTES).digest()
        self.index = entry.index

    @property
    def chain(self) -> bytes:
        """8 bytes; zeros before the first entry."""
        return self._chain

    def hex(self) -> str:
        return self._chain.hex()


class Fingerprinted:
    """A state machine that keeps the digest of what it applied: `apply` has `_digest` absorb each entry."""

    __slots__ = ("_digest",)

    def __init__(self) -> None:
        self._digest = AppliedDigest()

    @property
    def applied_index(self) -> Index:
        """Of the last applied entry; 0 before the first."""
        return Index(self._digest.index)

    @property
    def digest(self) -> str:
        """Fingerprint of all applied entries, as 16 hexadecimal digits."""
        return self._digest.hex()

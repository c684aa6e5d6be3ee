"""Where each entry of a group lies on disk, and its term: 20 bytes of memory an entry; and which are configurations.

The terms are those of the log as it was last saved; the places are filled in as entries are written, so they may
lag behind (an entry without its place is in memory).  A lower index than the last supersedes everything from it on.
Rule: indexes are contiguous from `first`.  Knows nothing of bytes or files.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from seatrial.storage.frames import Place

_OFFSET_BITS = 40  # a terabyte a segment; the sequence number has the upper 24 bits
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1


class LogIndex:
    """Terms of entries [first, last], and places of those that were written."""

    __slots__ = ("_configurations", "_lengths", "_places", "_terms", "first")

    def __init__(self, first: int = 1) -> None:
        self.first = first
        self._terms = array("Q")
        self._places = array("Q")
        self._lengths = array("I")
        self._configurations: list[int] = []  # indexes of the entries that changed who takes part: few

    @property
    def last(self) -> int:
        return self.first + len(self._terms) - 1

    def term(self, index: int) -> int | None:
        at = index - self.first
        return self._terms[at] if 0 <= at < len(self._terms) else None

    def extend(self, first: int, terms: Iterable[int]) -> None:
        """Entries from `first` on; what was there before from `first` on is superseded."""
        at = first - self.first
        assert 0 <= at <= len(self._terms), f"entry {first} leaves a gap in [{self.first}, {self.last}]"
        if at < len(self._terms):
            del self._terms[at:]
            while self._configurations and self._configurations[-1] >= first:
                self._configurations.pop()
        self._terms.extend(terms)

    def mark_configuration(self, index: int) -> None:
        """The entry, which is the last marked so far, is of kind CONFIGURATION."""
        self._configurations.append(index)

    @property
    def configurations(self) -> list[int]:
        """Indexes of the marked entries, ascending."""
        return [index for index in self._configurations if index >= self.first]

    def put(self, index: int, sequence: int, offset: int, length: int) -> None:
        """The place of an entry's frame; places of later entries are forgotten, as they are superseded."""
        at = index - self.first
        if at < 0:
            return  # compacted before it was written
        if at < len(self._places):
            del self._places[at:]
            del self._lengths[at:]
        assert at == len(self._places), f"the place of entry {index} leaves a gap"
        self._places.append(sequence << _OFFSET_BITS | offset)
        self._lengths.append(length)

    def place(self, index: int) -> Place:
        value = self._places[index - self.first]
        return Place(value >> _OFFSET_BITS, value & _OFFSET_MASK)

    def length(self, index: int) -> int:
        """Of the entry's frame, bytes."""
        return self._lengths[index - self.first]

    def sequence_of_first_place(self) -> int | None:
        """The segment of the first entry, or None where that was not written yet, or there is none."""
        return self._places[0] >> _OFFSET_BITS if self._terms and self._places else None

    def drop_before(self, first: int) -> None:
        """Forget entries before `first`."""
        count = first - self.first
        if count > 0:
            assert count <= len(self._terms), f"entry {first} is beyond the end of the log, {self.last}"
            del self._terms[:count]
            del self._places[:count]
            del self._lengths[:count]
            self.first = first
            self._configurations = self.configurations

    def reset(self, first: int) -> None:
        """An empty log that begins at `first`."""
        self.first = first
        self._configurations.clear()
        del self._terms[:]
        del self._places[:]
        del self._lengths[:]

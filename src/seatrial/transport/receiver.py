"""Bytes of a connection into frames: small ones from a shared buffer, large ones straight into their own.

Rule: no frame is handed on before it is whole, and no memory is taken for one before its length was checked.
Knows nothing of what frames mean.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Final

from seatrial.transport.codec import MalformedFrame
from seatrial.transport.strangers import spoken

_HEADER: Final = struct.Struct("<Q")  # a FRAME_HEADER as one number: its length, its kind, three zero bytes
_FIRST_BYTES: Final = 4 << 10  # enough for the heartbeats and votes of a connection that carries nothing else
_BUFFER_BYTES: Final = 64 << 10
_SPARE_BYTES_MAX: Final = 1 << 20  # a larger buffer is not kept
_OWN_BUFFER_FROM: Final = 16 << 10  # a frame of this size is received into a buffer of its own


class OversizedFrame(MalformedFrame):
    """A frame that declares more bytes than are allowed."""


class FrameReceiver(ABC):
    """Calls `frame` for each frame; after a MalformedFrame, from here or out of `frame`, `failed`, and nothing more.

    Bytes come by `get_buffer` and `buffer_updated`, as asyncio.BufferedProtocol has them, or by `feed`.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.bytes_received = 0
        self._view = memoryview(bytearray(_FIRST_BYTES))
        self._start = self._end = 0
        self._own: memoryview | None = None  # of the large frame being received
        self._spare = memoryview(b"")  # of the one before: reused, as fresh memory costs more than the copy into it
        self._own_kind = 0
        self._own_filled = 0
        self._ended = False

    @abstractmethod
    def frame(self, kind: int, body: memoryview) -> None:
        """A whole frame; `body` is valid during the call only."""

    @abstractmethod
    def failed(self, error: MalformedFrame) -> None:
        """The connection cannot be trusted further."""

    @property
    def half_frame_bytes(self) -> int:
        """What is there of a frame that is not whole; 0 where there is none."""
        return self._own_filled if self._own is not None else self._end - self._start

    def end(self) -> None:
        """Look at no further frame."""
        self._ended = True

    def feed(self, data: bytes) -> None:
        """The next bytes of the connection, cut anywhere."""
        rest = memoryview(data)
        while rest and not self._ended:
            into = self.get_buffer(len(rest))
            taken = min(len(into), len(rest))
            into[:taken] = rest[:taken]
            rest = rest[taken:]
            self.buffer_updated(taken)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._ended:
            return self._view
        return self._view[self._end :] if self._own is None else self._own[self._own_filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_received += nbytes
        if self._ended:
            self._start = self._end = 0
            self._own = None
            return
        try:
            if self._own is not None:
                self._own_filled += nbytes
                if self._own_filled == len(self._own):
                    body, self._own = self._own, None
                    self.frame(self._own_kind, body)
                    if len(self._spare) > _SPARE_BYTES_MAX:
                        self._spare = memoryview(b"")
                return
            self._end += nbytes
            self._take_frames()
        except MalformedFrame as error:
            self._ended = True
            self.failed(error)

    def _take_frames(self) -> None:
        view, header_size = self._view, _HEADER.size
        while not self._ended and self._end - self._start >= header_size:
            (header,) = _HEADER.unpack_from(view, self._start)
            length, kind = header & 0xFFFF_FFFF, header >> 32
            if kind > 0xFF:
                raise MalformedFrame(f"not the header of a frame{self._spoken()}")
            if length > self.frame_bytes_max:
                most = self.frame_bytes_max
                raise OversizedFrame(f"a frame of {length} bytes; at most {most} are allowed{self._spoken()}")
            body_at = self._start + header_size
            if self._end - body_at >= length:
                self._start = body_at + length
                self.frame(kind, view[body_at : body_at + length])
                continue
            if length >= _OWN_BUFFER_FROM:
                self._begin_own(kind, length, body_at)
            break
        self._make_room()

    def _spoken(self) -> str:
        return spoken(bytes(self._view[self._start : self._start + _HEADER.size]))

    def _begin_own(self, kind: int, length: int, body_at: int) -> None:
        self._own_filled = self._end - body_at
        if length > len(self._spare) or length > _SPARE_BYTES_MAX:
            self._spare = memoryview(bytearray(length))
        self._own, self._own_kind = self._spare[:length], kind
        self._own[: self._own_filled] = self._view[body_at : self._end]
        self._start = self._end = 0

    def _make_room(self) -> None:
        left = self._end - self._start
        if left == 0:
            self._start = self._end = 0
        elif len(self._view) < _BUFFER_BYTES:  # a frame was cut by the end of a read: there is more to come
            larger = memoryview(bytearray(_BUFFER_BYTES))
            larger[:left] = self._view[self._start : self._end]
            self._view, self._start, self._end = larger, 0, left
        elif _BUFFER_BYTES - self._start < _OWN_BUFFER_FROM + _HEADER.size:
            self._view[:left] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, left

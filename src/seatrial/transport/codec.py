"""Raft messages as frames, and back.

A frame is 8 bytes (body length, kind, three zero bytes) and its body.  A message's body begins with group and term;
the rest is a fixed struct for most kinds (the table `_FIXED`), and written out for the three that carry payloads.
Sender and receiver are not on the wire: the connection's handshake fixed them.  Heartbeats, and their answers, of
all groups share one frame.  Numbers are little-endian, 64 bits unsigned.

Rule: payload bytes are handed on as separate buffers, never joined here; decoding raises MalformedFrame and nothing
else, whatever the bytes.  Knows nothing of sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from seatrial.env import Buffer
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.membership import decode_configuration, encode_configuration
from seatrial.raft.messages import (
    CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    ForwardProposal,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)

FRAME_HEADER: Final = struct.Struct("<IBxxx")  # body length, kind
HELLO, WELCOME, REJECT, PING, PONG = 1, 2, 3, 4, 5  # of connections; see handshake.py and link.py
_APPEND_ENTRIES, _INSTALL_SNAPSHOT, _FORWARD_PROPOSAL, _HEARTBEATS, _HEARTBEAT_RESPONSES = 16, 17, 18, 19, 20

# Kind, layout behind group and term, and the attributes that it holds, in the order of the constructor.
_FIXED: Final[Sequence[tuple[int, str, type[Any], tuple[str, ...]]]] = (
    (32, "QQ", PreVote, ("last_log_index", "last_log_term")),
    (33, "?", PreVoteResponse, ("vote_granted",)),
    (34, "QQ?", RequestVote, ("last_log_index", "last_log_term", "leadership_transfer")),
    (35, "?", RequestVoteResponse, ("vote_granted",)),
    (36, "?QQQ", AppendEntriesResponse, ("success", "match_index", "hint_index", "hint_term")),
    (37, "QQ", InstallSnapshotResponse, ("last_included_index", "next_offset")),
    (38, "", TimeoutNow, ()),
    (39, "Q", ReadIndexRequest, ("context",)),
    (40, "QQ", ReadIndexResponse, ("context", "index")),
)
_START: Final = struct.Struct("<IBxxxQQ")  # frame header, group, term
_GROUP_TERM: Final = struct.Struct("<QQ")
_APPEND: Final = struct.Struct("<QQQI")  # previous index, previous term, leader's commit, entries
_ENTRY: Final = struct.Struct("<QIB")  # term, size, kind; the index follows from the previous one
_SNAPSHOT: Final = struct.Struct("<QQQQI")  # offset, total size, last index, last term, size of the configuration
_BEAT_FIELDS: Final = 4  # group, term, leader's commit, read round
_ANSWER_FIELDS: Final = 3  # group, term, read round

Decoded: TypeAlias = list[tuple[GroupId, Message]]


class MalformedFrame(Exception):
    """The bytes are no frame of this protocol version; the connection they came on cannot be trusted further."""


def pack_frame(kind: int, body: bytes) -> bytes:
    return FRAME_HEADER.pack(len(body), kind) + body


def encode_message(group: GroupId, message: Message, into: list[Buffer]) -> int:
    """Append the frame's buffers to `into`; returns their size in bytes."""
    return _ENCODERS[type(message)](group, message, into)


def encode_heartbeats(beats: Sequence[int], into: list[Buffer]) -> int:
    """One frame of (group, term, leader commit, read round), flat."""
    return _encode_numbers(_HEARTBEATS, beats, into)


def encode_heartbeat_responses(answers: Sequence[int], into: list[Buffer]) -> int:
    """One frame of (group, term, read round), flat."""
    return _encode_numbers(_HEARTBEAT_RESPONSES, answers, into)


def decode_messages(kind: int, body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
    """The messages in one frame, payloads copied out of `body`; raises MalformedFrame."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise MalformedFrame(f"a frame of the unknown kind {kind}")
    try:
        return decoder(body, sender, to)
    except struct.error as error:
        raise MalformedFrame(f"a frame of kind {kind} with a body of {len(body)} bytes: {error}") from error


def _encode_numbers(kind: int, numbers: Sequence[int], into: list[Buffer]) -> int:
    size = 8 * len(numbers)
    into.append(struct.pack(f"<IBxxx{len(numbers)}Q", size, kind, *numbers))
    return FRAME_HEADER.size + size


def _fixed_encoder(kind: int, layout: str, names: Sequence[str]) -> Callable[[GroupId, Any, list[Buffer]], int]:
    packer = struct.Struct(f"<IBxxxQQ{layout}")
    size = packer.size
    body_size = size - FRAME_HEADER.size

    def encode(group: GroupId, message: Any, into: list[Buffer]) -> int:
        into.append(packer.pack(body_size, kind, group, message.term, *[getattr(message, name) for name in names]))
        return size

    return encode


def _fixed_decoder(layout: str, message: type[Any]) -> Callable[[memoryview, NodeId, NodeId], Decoded]:
    unpack = struct.Struct(f"<QQ{layout}").unpack

    def decode(body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
        group, term, *fields = unpack(body)
        return [(group, message(sender, to, term, *fields))]

    return decode


def _encode_append(group: GroupId, message: AppendEntries, into: list[Buffer]) -> int:
    entries = message.entries
    head = bytearray(_START.size)
    head += _APPEND.pack(message.prev_log_index, message.prev_log_term, message.leader_commit, len(entries))
    pack, payload = _ENTRY.pack, 0
    for entry in entries:
        size = len(entry.data)
        head += pack(entry.term, size, entry.kind)
        payload += size
    total = len(head) + payload
    _START.pack_into(head, 0, total - FRAME_HEADER.size, _APPEND_ENTRIES, group, message.term)
    into.append(head)
    into.extend([entry.data for entry in entries if entry.data])
    return total


def _decode_append(body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
    group, term = _GROUP_TERM.unpack_from(body)
    previous, previous_term, commit, count = _APPEND.unpack_from(body, _GROUP_TERM.size)
    at = _GROUP_TERM.size + _APPEND.size
    data_at = at + count * _ENTRY.size
    if data_at > len(body):
        raise MalformedFrame(f"{count} entries in an AppendEntries of {len(body)} bytes")
    entries: list[Entry] = []
    headers: Iterator[tuple[Term, int, int]] = _ENTRY.iter_unpack(body[at:data_at])
    for index, (entry_term, size, kind) in enumerate(headers, previous + 1):
        data = bytes(body[data_at : data_at + size])
        data_at += size
        if kind == CONFIGURATION:
            _configuration(data)
        entries.append(Entry(entry_term, Index(index), kind, data))
    if data_at != len(body):
        raise MalformedFrame(f"the entries of an AppendEntries of {len(body)} bytes end at {data_at}")
    return [(group, AppendEntries(sender, to, term, previous, previous_term, commit, entries))]


def _configuration(data: bytes) -> Configuration:
    """Refused here, at the gate: the core may rely on it."""
    try:
        return decode_configuration(data)
    except ValueError as error:
        raise MalformedFrame(str(error)) from error


def _encode_snapshot(group: GroupId, message: InstallSnapshot, into: list[Buffer]) -> int:
    meta = message.meta
    configuration = encode_configuration(meta.configuration)
    last_index, last_term = meta.last_included_index, meta.last_included_term
    body = _GROUP_TERM.pack(group, message.term)
    body += _SNAPSHOT.pack(message.offset, message.total_size, last_index, last_term, len(configuration))
    body += configuration
    size = len(body) + len(message.data)
    into.append(FRAME_HEADER.pack(size, _INSTALL_SNAPSHOT) + body)
    into.append(message.data)
    return FRAME_HEADER.size + size


def _decode_snapshot(body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
    group, term = _GROUP_TERM.unpack_from(body)
    offset, total_size, index, last_term, configured = _SNAPSHOT.unpack_from(body, _GROUP_TERM.size)
    at = _GROUP_TERM.size + _SNAPSHOT.size
    data_at = at + configured
    if data_at > len(body):
        raise MalformedFrame(f"a configuration of {configured} bytes in an InstallSnapshot of {len(body)} bytes")
    configuration = _configuration(bytes(body[at:data_at]))
    meta = SnapshotMeta(Index(index), Term(last_term), configuration)
    data = bytes(body[data_at:])
    return [(group, InstallSnapshot(sender, to, term, meta, offset, total_size, data))]


def _encode_forward(group: GroupId, message: ForwardProposal, into: list[Buffer]) -> int:
    size = _GROUP_TERM.size + len(message.data)
    into.append(_START.pack(size, _FORWARD_PROPOSAL, group, message.term))
    into.append(message.data)
    return FRAME_HEADER.size + size


def _decode_forward(body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
    group, term = _GROUP_TERM.unpack_from(body)
    return [(group, ForwardProposal(sender, to, term, bytes(body[_GROUP_TERM.size :])))]


def _encode_heartbeat(group: GroupId, message: Heartbeat, into: list[Buffer]) -> int:
    return encode_heartbeats((group, message.term, message.leader_commit, message.read_round), into)


def _decode_heartbeats(body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
    beats = struct.iter_unpack(f"<{_BEAT_FIELDS}Q", body)
    return [(group, Heartbeat(sender, to, term, commit, read_round)) for group, term, commit, read_round in beats]


def _encode_heartbeat_response(group: GroupId, message: HeartbeatResponse, into: list[Buffer]) -> int:
    return encode_heartbeat_responses((group, message.term, message.read_round), into)


def _decode_heartbeat_responses(body: memoryview, sender: NodeId, to: NodeId) -> Decoded:
    answers = struct.iter_unpack(f"<{_ANSWER_FIELDS}Q", body)
    return [(group, HeartbeatResponse(sender, to, term, read_round)) for group, term, read_round in answers]


_ENCODERS: Final[dict[type[Any], Callable[[GroupId, Any, list[Buffer]], int]]] = {
    AppendEntries: _encode_append,
    InstallSnapshot: _encode_snapshot,
    ForwardProposal: _encode_forward,
    Heartbeat: _encode_heartbeat,
    HeartbeatResponse: _encode_heartbeat_response,
    **{message: _fixed_encoder(kind, layout, names) for kind, layout, message, names in _FIXED},
}
_DECODERS: Final[dict[int, Callable[[memoryview, NodeId, NodeId], Decoded]]] = {
    _APPEND_ENTRIES: _decode_append,
    _INSTALL_SNAPSHOT: _decode_snapshot,
    _FORWARD_PROPOSAL: _decode_forward,
    _HEARTBEATS: _decode_heartbeats,
    _HEARTBEAT_RESPONSES: _decode_heartbeat_responses,
    **{kind: _fixed_decoder(layout, message) for kind, layout, message, _ in _FIXED},
}

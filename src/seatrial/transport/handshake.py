"""Who is calling whom: the first frame each way of a connection.

The dialer sends HELLO and goes on at once; the acceptor checks it before it looks at anything else, and answers
WELCOME, or REJECT with a reason.  Rule: a HELLO is refused unless protocol version, cluster and both node ids fit.
Knows nothing of messages.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from seatrial.raft.ids import NodeId
from seatrial.transport.codec import HELLO, REJECT, WELCOME, MalformedFrame, pack_frame

PROTOCOL_VERSION: Final = 1
HANDSHAKE_BYTES_MAX: Final = 1024  # of a frame before the handshake is done
CLUSTER_ID_BYTES_MAX: Final = 255
_MAGIC: Final = b"Seatrial"
_HELLO: Final = struct.Struct("<8sHBxQQ")  # magic, version, purpose, sender, to; the cluster id follows


class Purpose(IntEnum):
    """What a connection is for."""

    MESSAGES = 1
    SNAPSHOTS = 2  # apart, so that a snapshot's chunks never hold up heartbeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    sender: NodeId
    to: NodeId
    cluster_id: str
    purpose: Purpose

    def packed(self) -> bytes:
        head = _HELLO.pack(_MAGIC, PROTOCOL_VERSION, self.purpose, self.sender, self.to)
        return pack_frame(HELLO, head + self.cluster_id.encode())


class Rejected(Exception):
    """The other side is not one to talk to; the text is sent to it."""


def check_hello(body: memoryview, *, node_id: NodeId, cluster_id: str, known: Container[NodeId]) -> Hello:
    """The HELLO of a node that may talk to this one; raises Rejected, or MalformedFrame where it is no HELLO."""
    if len(body) < _HELLO.size or bytes(body[: len(_MAGIC)]) != _MAGIC:
        raise MalformedFrame("the connection does not begin with a HELLO of this protocol")
    _, version, purpose, sender, to = _HELLO.unpack_from(body)
    if version != PROTOCOL_VERSION:
        raise Rejected(f"protocol version {version} is not spoken here; this node speaks {PROTOCOL_VERSION}")
    try:
        theirs, purpose = bytes(body[_HELLO.size :]).decode(), Purpose(purpose)
    except ValueError as error:
        raise MalformedFrame(f"a HELLO that cannot be read: {error}") from error
    if theirs != cluster_id:
        raise Rejected(f"node {sender} belongs to cluster {theirs!r}; this is cluster {cluster_id!r}")
    if to != node_id:
        raise Rejected(f"node {sender} looks for node {to}; this is node {node_id}")
    if sender not in known:
        raise Rejected(f"node {sender} is not known to node {node_id}")
    return Hello(sender=NodeId(sender), to=NodeId(to), cluster_id=theirs, purpose=purpose)


def packed_welcome() -> bytes:
    return pack_frame(WELCOME, b"")


def packed_reject(reason: str) -> bytes:
    return pack_frame(REJECT, reason.encode()[: HANDSHAKE_BYTES_MAX // 2])

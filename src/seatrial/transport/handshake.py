"""Who is calling whom: the first frame each way of a connection.

The dialer sends HELLO and goes on at once; the acceptor checks it before it looks at anything else, and answers
WELCOME, or REJECT with a reason.  Rule: a HELLO is refused unless protocol version, cluster and both node ids fit, the
sender was not removed, and it comes with the data directory by which it is known: what a node without its directory
had voted and acknowledged is lost, so nobody may count on what it says now.
Knows nothing of messages.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from seatrial.raft.ids import NodeId
from seatrial.transport.codec import HELLO, REJECT, WELCOME, MalformedFrame, pack_frame

PROTOCOL_VERSION: Final = 2
HANDSHAKE_BYTES_MAX: Final = 1024  # of a frame before the handshake is done
CLUSTER_ID_BYTES_MAX: Final = 255
_MAGIC: Final = b"Seatrial"
_HELLO: Final = struct.Struct("<8sHBxQQQ")  # magic, version, purpose, sender, to, directory; the cluster id follows


class Purpose(IntEnum):
    """What a connection is for."""

    MESSAGES = 1
    SNAPSHOTS = 2  # apart, so that a snapshot's chunks never hold up heartbeats


class Refusal(IntEnum):
    """Why a HELLO is rejected, as far as the caller may have to act on it."""

    OTHER = 0
    REMOVED = 1  # the caller's node id was removed from the cluster
    DIRECTORY = 2  # the caller was known by another data directory
    STRANGER = 3  # the caller is not known here, or not yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """`directory`: the number of the sender's data directory; 0 where it has none."""

    sender: NodeId
    to: NodeId
    cluster_id: str
    purpose: Purpose
    directory: int = 0

    def packed(self) -> bytes:
        head = _HELLO.pack(_MAGIC, PROTOCOL_VERSION, self.purpose, self.sender, self.to, self.directory)
        return pack_frame(HELLO, head + self.cluster_id.encode())


class Rejected(Exception):
    """The other side is not one to talk to; the text and the kind of refusal are sent to it.

    `sender`: who it says it is, where that is known.
    """

    def __init__(self, message: str, refusal: Refusal = Refusal.OTHER, sender: NodeId | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.sender = sender


def check_cluster_id(cluster_id: str) -> None:
    """Raises ValueError where it is too long for a HELLO."""
    if len(cluster_id.encode()) > CLUSTER_ID_BYTES_MAX:
        raise ValueError(f"the cluster id {cluster_id!r} is longer than {CLUSTER_ID_BYTES_MAX} bytes")


def check_hello(
    body: memoryview,
    *,
    node_id: NodeId,
    cluster_id: str,
    known: Container[NodeId],
    removed: Container[NodeId] = (),
    directories: Mapping[NodeId, int] | None = None,
) -> Hello:
    """The HELLO of a node that may talk to this one; raises Rejected, or MalformedFrame where it is no HELLO.

    `directories`: those of other nodes, as far as they are known.
    """
    if len(body) < _HELLO.size or bytes(body[: len(_MAGIC)]) != _MAGIC:
        raise MalformedFrame("the connection does not begin with a HELLO of this protocol")
    _, version, purpose, sender, to, directory = _HELLO.unpack_from(body)
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
    if sender in removed:
        raise Rejected(f"node {sender} was removed from cluster {cluster_id!r}", Refusal.REMOVED)
    if sender not in known:
        raise Rejected(f"node {sender} is not known to node {node_id}", Refusal.STRANGER, NodeId(sender))
    if differs(directory, (directories or {}).get(sender, 0)):
        raise Rejected(f"node {sender} is known by another data directory", Refusal.DIRECTORY)
    return Hello(sender=NodeId(sender), to=NodeId(to), cluster_id=theirs, purpose=purpose, directory=directory)


def differs(directory: int, known: int) -> bool:
    """Whether both are known and not the same."""
    return directory != known and directory != 0 and known != 0


def packed_welcome() -> bytes:
    return pack_frame(WELCOME, b"")


def packed_reject(rejected: Rejected) -> bytes:
    """The kind of refusal in one byte, then the text."""
    return pack_frame(REJECT, bytes([rejected.refusal]) + str(rejected).encode()[: HANDSHAKE_BYTES_MAX // 2])


def unpack_reject(body: memoryview) -> Rejected:
    """What `packed_reject` wrote; a kind that is not known here is OTHER."""
    kinds = {refusal.value: refusal for refusal in Refusal}
    kind = kinds.get(body[0], Refusal.OTHER) if body else Refusal.OTHER
    return Rejected(bytes(body[1:]).decode(errors="replace"), kind)

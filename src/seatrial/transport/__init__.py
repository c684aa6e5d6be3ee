"""How nodes reach each other: `NodeTransport`, on frames over TCP (`FramedWire`) or over gRPC (`make_wire("grpc")`)."""

from seatrial.transport.address import parse_address
from seatrial.transport.base import PeerStatus, Transport
from seatrial.transport.choice import make_wire
from seatrial.transport.client import RaftClient
from seatrial.transport.codec import MalformedFrame
from seatrial.transport.framed import FramedWire
from seatrial.transport.limits import Limits
from seatrial.transport.node_transport import NodeTransport
from seatrial.transport.pool import LinkPool
from seatrial.transport.service import RaftService
from seatrial.transport.tls import BadCertificate, Tls, TlsFiles, load_tls

__all__ = [
    "BadCertificate",
    "FramedWire",
    "Limits",
    "LinkPool",
    "MalformedFrame",
    "NodeTransport",
    "PeerStatus",
    "RaftClient",
    "RaftService",
    "Tls",
    "TlsFiles",
    "Transport",
    "load_tls",
    "make_wire",
    "parse_address",
]

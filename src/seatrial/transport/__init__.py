"""How nodes reach each other: `FramedTransport` over TCP."""

from seatrial.transport.base import PeerStatus, Transport
from seatrial.transport.codec import MalformedFrame
from seatrial.transport.framed import FramedTransport, parse_address

__all__ = ["FramedTransport", "MalformedFrame", "PeerStatus", "Transport", "parse_address"]

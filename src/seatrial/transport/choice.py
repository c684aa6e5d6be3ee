"""Which wire a node uses, by the name of its setting.

Rule: gRPC is an extra: it is imported only where it is asked for, and its absence is told with the way out.
"""

from __future__ import annotations

import os
from typing import Final

from seatrial.transport.framed import FramedWire
from seatrial.transport.tls import Tls
from seatrial.transport.wire import Wire

WIRES: Final = ("framed", "grpc")


class MissingWire(Exception):
    """The wire that was asked for needs a package that is not installed; the message says which."""


def make_wire(name: str, tls: Tls | None = None) -> Wire:
    """Raises MissingWire, and ValueError for a name that is none of WIRES."""
    if name == "framed":
        return FramedWire(tls)
    if name != "grpc":
        raise ValueError(f"there is no transport {name!r}; choose one of: {', '.join(WIRES)}")
    # gRPC logs each failed handshake on stderr, where a node has its own log: what matters reaches that one.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from seatrial.transport.grpc import GrpcWire
    except ImportError as error:
        raise MissingWire(
            f"--transport grpc needs packages that are not installed ({error}): pip install 'seatrial[grpc]'"
        ) from error
    return GrpcWire(tls)

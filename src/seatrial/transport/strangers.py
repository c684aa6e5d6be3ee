"""What a connection that does not speak this protocol speaks instead, told by its first bytes.

For the operator whose nodes were started with different settings.  Knows nothing of the protocol itself.
"""

from __future__ import annotations

from typing import Final

_SAME_SETTINGS: Final = "; give all nodes the same --transport and --raft-tls-… settings"


def spoken(first: bytes) -> str:
    """The end of a sentence that says what these bytes are, or nothing where they are unknown; at least 8 of them."""
    if first.startswith(b"PRI * HT"):  # RFC 9113 §3.4
        return f": it speaks HTTP/2, as a node with --transport grpc does{_SAME_SETTINGS}"
    if first[3:5] == b"\x04\0" and first[5:8] == b"\0\0\0":  # a SETTINGS frame, RFC 9113 §6.5
        return f": it speaks HTTP/2, as a node with --transport grpc does{_SAME_SETTINGS}"
    if first[0] in (0x15, 0x16) and first[1] == 3:  # a TLS record: an alert or a handshake, RFC 8446 §5.1
        return f": it speaks TLS{_SAME_SETTINGS}"
    return ""

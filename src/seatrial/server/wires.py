"""What carries a node's messages to its peers, as its settings say: framed TCP or gRPC, with TLS or without.

Rule: settings that cannot work are refused before anything of the node is opened.  Knows nothing of messages.
"""

from __future__ import annotations

from typing import Final

from seatrial.env import Files
from seatrial.server.config import ServerConfig
from seatrial.server.errors import StartError
from seatrial.transport.choice import MissingWire, make_wire
from seatrial.transport.tls import BadCertificate, Tls, TlsFiles, load_tls
from seatrial.transport.wire import Wire

_USAGE_STATUS: Final = 64  # `process.EXIT_STATUS`


def chosen_wire(config: ServerConfig, files: Files) -> Wire:
    """Raises StartError for certificates that cannot be used, and for a transport whose packages are not installed."""
    try:
        return make_wire(config.transport, _tls(config, files))
    except (BadCertificate, MissingWire) as error:
        raise StartError(_USAGE_STATUS, str(error)) from error


def _tls(config: ServerConfig, files: Files) -> Tls | None:
    if not config.raft_tls_cert:
        return None

    def read(path: str) -> bytes:
        file = files.open(path)
        try:
            return file.read(0, file.size())
        finally:
            file.close()

    paths = TlsFiles(
        certificate=config.raft_tls_cert,
        key=config.raft_tls_key,
        authority=config.raft_tls_ca or None,
        peer_name=config.raft_tls_name,
    )
    return load_tls(paths, read)

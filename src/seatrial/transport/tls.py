"""Certificates of a node and of those that it talks to.

What is verified:
    who is dialled   its certificate is signed by an authority that is trusted, is in date, and is for the host that
                     was dialled (a name or an address in its subjectAltName); where `peer_name` is set, it is for
                     that name instead, whatever was dialled: for nodes whose addresses are not known in advance,
                     or lead through proxies
    who calls        with a cluster's own authority (`ca`): its certificate is signed by it and in date; its name is
                     not looked at, because callers have no address of their own.  Without one: nothing

With `ca`, that authority alone is trusted, in both directions; without, those that the system trusts.
Rule: whatever is wrong with the files is found when they are loaded.  Knows nothing of node ids: any certificate of the
cluster's authority may speak for any node, so the authority should sign for nothing else.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass


class BadCertificate(ValueError):
    """A certificate, key or authority that cannot be used; the message names the setting, the file and the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files: the node's certificate (with its chain), its key, and the cluster's authority or none.

    `peer_name`: the name that the certificates of all peers are for; "" is the host that is dialled.
    """

    certificate: str
    key: str
    authority: str | None = None
    peer_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What was in the files, as asyncio takes it (contexts) and as gRPC does (PEM)."""

    listening: ssl.SSLContext
    dialling: ssl.SSLContext
    certificate: bytes
    key: bytes
    authority: bytes
    demands_certificates: bool
    peer_name: str


def load_tls(files: TlsFiles, read_file: Callable[[str], bytes]) -> Tls:
    """Raises BadCertificate."""
    certificate = _read(files.certificate, "--raft-tls-cert", read_file)
    key = _read(files.key, "--raft-tls-key", read_file)
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    for context in (listening, dialling):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load_chain(context, files)
    if files.authority is None:
        dialling.load_default_certs(ssl.Purpose.SERVER_AUTH)
        authority = ssl.get_default_verify_paths().cafile
        return Tls(
            listening=listening,
            dialling=dialling,
            certificate=certificate,
            key=key,
            authority=read_file(authority) if authority is not None else b"",
            demands_certificates=False,
            peer_name=files.peer_name,
        )
    trusted = _read(files.authority, "--raft-tls-ca", read_file)
    for context in (listening, dialling):
        _load_authority(context, files.authority, trusted)
    listening.verify_mode = ssl.CERT_REQUIRED
    return Tls(
        listening=listening,
        dialling=dialling,
        certificate=certificate,
        key=key,
        authority=trusted,
        demands_certificates=True,
        peer_name=files.peer_name,
    )


def _read(path: str, setting: str, read_file: Callable[[str], bytes]) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise BadCertificate(f"{setting} {path}: {error.strerror or error}") from None


def _load_chain(context: ssl.SSLContext, files: TlsFiles) -> None:
    def no_password() -> str:
        raise BadCertificate(f"--raft-tls-key {files.key}: the key is encrypted; give one without a password")

    try:
        context.load_cert_chain(files.certificate, files.key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(
                f"--raft-tls-key {files.key} is not the key of --raft-tls-cert {files.certificate}"
            ) from None
        raise BadCertificate(
            f"--raft-tls-cert {files.certificate} and --raft-tls-key {files.key} are not a certificate and its key "
            f"in PEM: {_reason(error)}"
        ) from None


def _load_authority(context: ssl.SSLContext, path: str, trusted: bytes) -> None:
    try:
        context.load_verify_locations(cadata=trusted.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificate(f"--raft-tls-ca {path} holds no certificates in PEM: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    named = getattr(error, "reason", None)
    return str(named or error).lower().replace("_", " ")

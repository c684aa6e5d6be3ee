"""`host:port` as Toxiproxy writes it: `127.0.0.1:80`, `[::1]:80`, `localhost:80`, `:80` (every interface).

Rule: a bad address is refused when it is given, with the reason, and not when it is first used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import NamedTuple

from seatrial.cluster.proxy.errors import ApiError, bad_request_body, cannot_listen

LISTEN_BACKLOG = 1024


class Address(NamedTuple):
    """An empty host means every interface."""

    host: str
    port: int

    def __str__(self) -> str:
        host = self.host or "::"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse(text: str) -> Address:
    """Raises ValueError that names the fault."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"address {text}: missing port in address")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {text}: too many colons in address")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"address {text}: invalid port, it must be a number from 0 to 65535")
    return Address(host, int(port))


def parse_upstream(text: str) -> Address:
    """Raises ApiError 400.  A name is resolved only when a connection is made."""
    try:
        address = parse(text)
    except ValueError as error:
        raise bad_request_body(f"upstream must be host:port: {error}") from None
    return Address(address.host or "127.0.0.1", address.port)


async def resolve_listen(text: str) -> Address:
    """The numeric address to listen on; `text` may be empty (any port, every interface).  Raises ApiError
    500, as Toxiproxy.
    """
    if not text:
        return Address("", 0)
    try:
        address = parse(text)
    except ValueError as error:
        raise ApiError(f"listen tcp: {error}", 500) from None
    if not address.host:
        return address
    try:
        return Address(str(ipaddress.ip_address(address.host)), address.port)
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise cannot_listen(text, f"lookup {address.host}: {error.strerror or error}") from None
    # IPv4 first, as Go does: `localhost` means 127.0.0.1.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return Address(str(found[0][4][0]), address.port)


def listen(address: Address) -> socket.socket:
    """A non-blocking listening socket.  Raises ApiError 500 with the operating system's reason."""
    ipv6 = ":" in address.host or (not address.host and socket.has_dualstack_ipv6())
    opened = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address.host)))
        opened.bind((address.host or ("::" if ipv6 else "0.0.0.0"), address.port))
        opened.listen(LISTEN_BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        raise cannot_listen(str(address), f"bind: {(error.strerror or str(error)).lower()}") from None
    return opened


def bound_address(opened: socket.socket) -> Address:
    host, port = opened.getsockname()[:2]
    return Address(host, port)

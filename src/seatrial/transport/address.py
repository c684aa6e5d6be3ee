"""Addresses as they are written: "host:port" and "[IPv6]:port"."""

from __future__ import annotations


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[IPv6]:port"; raises ValueError."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdecimal() or int(port) > 65535 or (":" in host and host == bare):
        raise ValueError(f"{address!r} is no address: give host:port, such as 127.0.0.1:7001 or [::1]:7001")
    return bare, int(port)


def show_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

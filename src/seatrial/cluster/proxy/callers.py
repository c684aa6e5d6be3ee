"""Who is calling: which node's process owns the other end of an accepted loopback connection.

Systems whose nodes all advertise one address each (etcd, Kafka, ZooKeeper) leave room for one proxy per
destination only, and on loopback every source address is 127.0.0.1.  The kernel knows better: sock_diag(7)
gives the inode of the socket with exactly this 4-tuple, and /proc/PID/fd says which of the known processes
holds it.  About 0.3 ms an accept, no root.
Rule: never a guess.  A connection whose owner is not found has no caller and is counted as unknown.  Linux
only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

from seatrial.cluster.proxy.errors import ApiError

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NO_COOKIE = 0xFFFFFFFF
HEADER = struct.Struct("=IHHII")
# idiag_inode's place behind the header: family, state, timer, retrans (4 × u8), sockid (48), expires, rqueue,
# wqueue, uid.
INODE_OFFSET = HEADER.size + 4 + 48 + 4 * 4


class Callers:
    """The harness's map of names to process ids, and the look-up."""

    def __init__(self) -> None:
        self._pids: dict[str, tuple[int, ...]] = {}
        self._netlink: socket.socket | None = None
        self._sequence = 0

    def __bool__(self) -> bool:
        return bool(self._pids)

    def as_json(self) -> dict[str, list[int]]:
        return {name: list(pids) for name, pids in sorted(self._pids.items())}

    def replace(self, pids: Mapping[str, Iterable[int]]) -> None:
        """From now on these are the callers.  Raises ApiError 501 where the kernel cannot tell."""
        if pids and self._netlink is None:
            try:
                self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG)
                self._netlink.setblocking(False)
            except (AttributeError, OSError) as error:
                raise ApiError(f"callers cannot be told apart here: no sock_diag ({error})", 501) from None
        self._pids = {name: tuple(those) for name, those in pids.items()}

    def identify(
        self, client: tuple[str, int], local: tuple[str, int], holders: Mapping[str, str] | None = None
    ) -> str | None:
        """The caller that owns the connected socket `client` -> `local` (numeric addresses), or None.

        holders: what `holders` said a moment ago; for looking up many.
        """
        inode = self._inode(client, local)
        if not inode:
            return None
        wanted = f"socket:[{inode}]"
        if holders is not None:
            return holders.get(wanted)
        for name, pid in self._processes():
            if wanted in _open_files(pid):
                return name
        return None

    def holders(self) -> dict[str, str]:
        """Which caller holds which open file, as /proc names files, now: it costs as much as one look-up."""
        found: dict[str, str] = {}
        for name, pid in self._processes():
            for file in _open_files(pid):
                found.setdefault(file, name)
        return found

    def _processes(self) -> Iterator[tuple[str, int]]:
        """The callers' processes, and then what these have started.

        Some systems connect from a child of the process that was started (a launcher, a forked worker).
        """
        for name, pids in self._pids.items():
            for pid in pids:
                yield name, pid
        for name, pids in self._pids.items():
            for pid in _descendants(pids):
                yield name, pid

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _inode(self, client: tuple[str, int], local: tuple[str, int]) -> int:
        """The inode of the client's socket; 0 if there is none (it was closed already) or the kernel does not
        say.
        """
        assert self._netlink is not None, "identify() before any caller was set"
        self._sequence += 1
        family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
        request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, NO_COOKIE)
        request += struct.pack("!HH", client[1], local[1])
        request += socket.inet_pton(family, client[0]).ljust(16, b"\0")
        request += socket.inet_pton(family, local[0]).ljust(16, b"\0")
        request += struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
        length = HEADER.size + len(request)
        try:
            self._netlink.send(HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, self._sequence, 0) + request)
            # The kernel answers within send(); answers to earlier requests that were not read are skipped.
            while True:
                answer = self._netlink.recv(8192)
                _, kind, _, sequence, _ = HEADER.unpack_from(answer)
                if sequence == self._sequence:
                    break
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.ENOENT):
                return 0
            raise
        if kind != SOCK_DIAG_BY_FAMILY or len(answer) < INODE_OFFSET + 4:
            return 0
        return int(struct.unpack_from("=I", answer, INODE_OFFSET)[0])


def numeric(address: tuple[str, int]) -> tuple[str, int]:
    """An IPv4 peer of a dual-stack listener, in IPv4's own form: its socket is filed under that."""
    host = address[0]
    return (host[7:] if host.startswith("::ffff:") and "." in host else host), address[1]


def _open_files(pid: int) -> Iterator[str]:
    """What the process has open, as links say it: "socket:[INODE]", a path, ...  Nothing of a process that is gone, or
    not ours to look into.
    """
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{directory}/{name}")  # noqa: PTH115
        except OSError:
            continue


def _descendants(pids: Iterable[int]) -> list[int]:
    """Children of these processes, their children and so on; not the processes themselves."""
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                    children = [int(child) for child in file.read().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found

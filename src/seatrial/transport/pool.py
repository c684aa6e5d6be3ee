"""The outgoing connections of one node, shared by all clients that were cloned from one another.

Rule: to one peer, at one address, for one purpose, there is one connection, however many clients use it; it is closed
when the last of them lets go of it, and the pool is when the last client is.
Knows nothing of who sends what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from seatrial.env import Clock, Rng
from seatrial.raft.ids import NodeId
from seatrial.transport.handshake import Hello, Purpose, Rejected, check_cluster_id
from seatrial.transport.limits import Limits
from seatrial.transport.link import PeerLink
from seatrial.transport.wire import Wire

_CHECK_INTERVAL_S: Final = 0.25
_Key: TypeAlias = tuple[NodeId, tuple[str, int], Purpose, bool]


class LinkPool:
    """Links by peer, address and purpose, each with the number of its users.

    `directory`: the number of this node's data directory, by which its peers know it again.  `report` gets each
    sentence that an operator should read, `on_rejected` each peer's refusal to talk to this node.
    Raises ValueError for a cluster id that is too long.
    """

    def __init__(
        self,
        node_id: NodeId,
        cluster_id: str,
        wire: Wire,
        *,
        clock: Clock,
        rng: Rng,
        limits: Limits | None = None,
        directory: int = 0,
        report: Callable[[str], None] = lambda sentence: None,
        on_rejected: Callable[[NodeId, Rejected], None] = lambda peer, rejected: None,
    ) -> None:
        check_cluster_id(cluster_id)
        self._node_id, self._cluster_id, self._directory = node_id, cluster_id, directory
        self._wire, self._limits = wire, limits or Limits()
        self._clock, self._rng = clock, rng
        self._report, self._on_rejected = report, on_rejected
        self._links: dict[_Key, PeerLink] = {}
        self._users: dict[PeerLink, int] = {}
        self._clients = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._checks: asyncio.TimerHandle | None = None
        self.on_check: Callable[[], None] = lambda: None  # called as often as links are looked at

    @property
    def links(self) -> int:
        """How many are kept up."""
        return len(self._links)

    def start(self) -> None:
        """Look after the links from now on."""
        if self._checks is None:
            self._checks = asyncio.get_running_loop().call_later(_CHECK_INTERVAL_S, self._check)

    def _check(self) -> None:
        self._checks = asyncio.get_running_loop().call_later(_CHECK_INTERVAL_S, self._check)
        for link in self._links.values():
            link.check()
        self.on_check()

    def join(self) -> None:
        """One client more."""
        self._clients += 1

    async def leave(self) -> None:
        """One client less; the last one closes everything."""
        self._clients -= 1
        if self._clients == 0 and self._checks is not None:
            self._checks.cancel()
        if self._closing:
            await asyncio.gather(*self._closing)

    def lease(self, peer: NodeId, where: tuple[str, int], purpose: Purpose, *, lazy: bool) -> PeerLink:
        """The link, dialled from now on; `lazy`: only while there is something to send."""
        key = (peer, where, purpose, lazy)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = self._made(key)
            self._users[link] = 0
            link.start()
        self._users[link] += 1
        return link

    def _made(self, key: _Key) -> PeerLink:
        peer, where, purpose, lazy = key
        hello = Hello(
            sender=self._node_id,
            to=peer,
            cluster_id=self._cluster_id,
            purpose=purpose,
            directory=self._directory,
        )
        return PeerLink(
            self._wire,
            hello,
            where,
            self._limits,
            lazy=lazy,
            clock=self._clock,
            rng=self._rng.child(f"{purpose.name} to {peer}"),
            report=self._report,
            on_rejected=self._on_rejected,
        )

    def release(self, link: PeerLink) -> None:
        """One user less; the last one hangs up, when what is queued has had a moment to leave."""
        self._users[link] -= 1
        if self._users[link]:
            return
        del self._users[link]
        self._links = {key: kept for key, kept in self._links.items() if kept is not link}
        closing = asyncio.get_running_loop().create_task(link.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

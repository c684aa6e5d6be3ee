"""The links of a simulated cluster, with the proxy's words for what is done to them.

    hold        nothing passes; the bytes wait, and arrive when it ends, as TCP delivers them across a healed network
    timeout     nothing passes; the connections are broken when it ends, and the bytes are lost
    reset_peer  every connection is broken at once, and each new one
    latency     everything is late, by a time that is drawn anew again and again where there is jitter
    bandwidth   so many kilobytes a second

Rule: as `cluster.links`: what was done is undone by the same object, and tells afterwards what it touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from seatrial.cluster.connectivity import Cuts, Link
from seatrial.cluster.links import SEVERING, LinkFault, count
from seatrial.env import Rng
from seatrial.sim.trial_hosts import TrialHosts

AGAIN_S = 0.02  # between two draws of a jittery delay, and two looks for new connections to break
# What the simulated network calls the evidence, and what it is called here.
EVIDENCE: Mapping[str, tuple[str, str]] = {
    "hold": ("cut", "segments_held"),
    "timeout": ("cut", "segments_held"),
    "reset_peer": ("reset", "connections_reset"),
    "latency": ("delay", "segments_delayed"),
    "bandwidth": ("bandwidth", "segments_delayed"),
}


class SimulatedLinks:
    """Implements `cluster.LinkControl`."""

    def __init__(self, hosts: TrialHosts, rng: Rng) -> None:
        self.cuts = Cuts()
        self._hosts = hosts
        self._rng = rng
        self._faults = 0

    async def clean(self) -> None:
        self._hosts.network.clear()

    @contextlib.asynccontextmanager
    async def applied(
        self, kind: str, attributes: Mapping[str, int | float], links: Sequence[Link]
    ) -> AsyncIterator[LinkFault]:
        if kind not in EVIDENCE:
            raise ValueError(f"the simulated network has no {kind!r}; it has: {', '.join(EVIDENCE)}")
        fault = LinkFault(kind, tuple(links))
        self._faults += 1
        rng = self._rng.child(f"links/{self._faults}")
        before = {link: self._evidence(kind, link) for link in links}
        if kind in SEVERING:
            self.cuts.add(links)
        try:
            async with self._imposed(kind, attributes, links, rng):
                yield fault
        finally:
            for link in links:
                name = EVIDENCE[kind][1]
                count(fault, link, {name: self._evidence(kind, link) - before[link]})
            if kind in SEVERING:
                self.cuts.remove(links)

    def _evidence(self, kind: str, link: Link) -> int:
        name = EVIDENCE[kind][0]
        ways = [link, (link[1], link[0])] if kind == "reset_peer" else [link]
        return sum(self._hosts.link(*way).evidence.get(name, 0) for way in ways)

    @contextlib.asynccontextmanager
    async def _imposed(
        self, kind: str, attributes: Mapping[str, int | float], links: Sequence[Link], rng: Rng
    ) -> AsyncIterator[None]:
        """Do it, keep doing it where once is not enough, undo it."""
        undo: list[Callable[[], None]] = []

        def impose(what: str, value: float = 0) -> None:
            for link in links:
                undo.append(self._hosts.link(*link).impose(what, value))

        def reset() -> None:
            for link in links:
                self._hosts.reset(*link)

        def delay() -> None:
            latest, jitter = attributes["latency"], attributes.get("jitter", 0)
            for link in links:
                late_ms = max(0.0, rng.uniform(latest - jitter, latest + jitter)) if jitter else latest
                undo.append(self._hosts.link(*link).impose("delay", late_ms * 1000))

        def delay_anew() -> None:
            for undone in undo:
                undone()
            undo.clear()
            delay()

        again: Callable[[], None] | None = None
        if kind in ("hold", "timeout"):
            impose("cut")
        elif kind == "bandwidth":
            impose("bandwidth", attributes["rate"] * 1000)
        elif kind == "latency":
            delay()
            again = delay_anew if attributes.get("jitter") else None
        else:
            impose("cut")  # between two looks a new connection may come about, and shall carry nothing
            reset()
            again = reset
        repeating = asyncio.ensure_future(_repeat(again)) if again is not None else None
        try:
            yield
        finally:
            if repeating is not None:
                repeating.cancel()
            if kind in ("timeout", "reset_peer"):
                reset()  # what was held is lost with the connections
            for undone in undo:
                undone()


async def _repeat(action: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(AGAIN_S)
        action()

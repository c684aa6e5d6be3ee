"""The simulated network: hosts, the directed links between them, and running it all.

    world = World(seed=7)
    network = SimNetwork(world, Network())
    server, client = network.add_host("server"), network.add_host("client")
    server.spawn(serve())
    asked = client.spawn(ask("server", 80))
    run(world, 10_000_000, until=asked)

Rule: whatever is looked at in an order is looked at in the order in which it was made.
Knows nothing of programs, and nothing of the faults' names beyond what a link can do.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterable
from itertools import count
from typing import Any, Final
from weakref import ReferenceType, ref

import msgspec

from seatrial.sim.case import Network
from seatrial.sim.escape import current, inside, shared_chance
from seatrial.sim.hosts import SimHost
from seatrial.sim.links import Link
from seatrial.sim.loop import SimLoop
from seatrial.sim.stack import LOCAL_NAMES
from seatrial.sim.tcp import Direction, reset_by_peer
from seatrial.sim.trace import Trace
from seatrial.sim.world import World

CALLBACKS_BETWEEN_COLLECTIONS: Final = 50_000


class SimNetwork:
    """Hosts and links of one world; made before the programs on it.

    callbacks: how many ran on all hosts; collect_at: at how many of them the garbage is next collected.  numbers: for
    tasks and futures.  trace: what happened, and its digest.  failures: what the spawned programs raised that failed.
    graveyard: what crashed hosts were doing, so that none of it is freed while the world goes on.
    """

    def __init__(self, world: World, settings: Network | None = None, *, trace: Trace | None = None) -> None:
        world.shared_chance = shared_chance(world.stream("random").integer(0, 1 << 52))
        self.world = world
        self.settings = settings or Network()
        self.trace = trace or Trace()
        self.hosts: dict[str, SimHost] = {}
        self.failures: list[BaseException] = []
        self.graveyard: list[object] = []
        self.callbacks = 0
        self._links: dict[tuple[str, str], Link] = {}
        self._connections = 0
        self.numbers = count(1)
        self.collect_at = CALLBACKS_BETWEEN_COLLECTIONS

    # Hosts

    def add_host(self, name: str, *, drift_ppm: int = 0, wall_offset_us: int = 0) -> SimHost:
        """A machine that is up, known to all by its name; its clocks are off by so much.

        Raises:
            ValueError: there is one of that name.
        """
        if name in self.hosts or name in LOCAL_NAMES:
            raise ValueError(f"there is a host {name!r} already")
        host = SimHost(self, name, len(self.hosts), drift_ppm=drift_ppm, wall_offset_us=wall_offset_us)
        self.hosts[name] = host
        return host

    def resolve(self, name: str, asking: SimHost) -> str | None:
        """The address of a host's name, or of an address; None if there is none."""
        if name in LOCAL_NAMES:
            return asking.address
        host = self.hosts.get(name) or self.at_address(name)
        return None if host is None else host.address

    def at_address(self, address: str) -> SimHost | None:
        return next((host for host in self.hosts.values() if host.address == address), None)

    # Links and connections

    def link(self, source: str, target: str) -> Link:
        """The directed link between two hosts, by their names."""
        link = self._links.get((source, target))
        if link is None:
            link = self._links[source, target] = Link(self.world, source, target, self.settings)
        return link

    def links(self) -> Iterable[Link]:
        """Those that were used or asked for."""
        return self._links.values()

    def clear(self) -> None:
        """End everything that was imposed on any link."""
        for link in list(self._links.values()):
            link.clear()

    def calm(self) -> None:
        """Let every link, also those that come, lose nothing by itself, and nothing take long by chance."""
        self.settings = msgspec.structs.replace(self.settings, loss=0.0, tail=0.0)
        for link in list(self._links.values()):
            link.calm()

    def reset(self, source: str, target: str) -> None:
        """Break the connections that the first dialled to the second; both programs are told."""
        link = self.link(source, target)
        for direction in self._dialled(source, target):
            for way in (direction, direction.opposite):
                sender = way.sender
                way.swallowed = True
                if sender is not None:
                    sender.broken(reset_by_peer())
                way.close()
            link.bit("reset")

    def half_open(self, source: str, target: str) -> None:
        """The second forgets the connections that the first dialled to it, and what the first sends is lost."""
        for direction in self._dialled(source, target):
            receiver = direction.receiver
            direction.swallowed = direction.opposite.swallowed = True
            if receiver is not None:
                receiver.broken(reset_by_peer())
            direction.link.bit("half-open")

    def _dialled(self, source: str, target: str) -> list[Direction]:
        return [way for way in self.link(source, target).directions if way.connection.dialling is way]

    def directions_to(self, host: SimHost) -> list[Direction]:
        """Of every open connection that this host is an end of, the one towards it."""
        return [way for link in self._links.values() for way in link.directions if way.target is host]

    def target_is_back(self, host: SimHost) -> None:
        """What waited for a host without power is sent again."""
        for direction in self.directions_to(host):
            direction.link_opened(burst=False)

    # Counting

    def program_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def next_connection(self) -> int:
        self._connections += 1
        return self._connections

    def collect(self) -> None:
        """Garbage is collected after a fixed number of callbacks: when it is decides which finalizers run when."""
        self.collect_at += CALLBACKS_BETWEEN_COLLECTIONS
        gc.collect()


class _AsyncGenerators:
    """Which loop each asynchronous generator runs on: one pair of hooks for all hosts, for setting them is dear."""

    def __init__(self) -> None:
        self._loops: dict[int, ReferenceType[SimLoop]] = {}  # by id: a dropped one is no longer found in a weak dict

    def begun(self, generator: Any) -> None:
        if current.host is not None:
            loop = current.host.loop
            self._loops[id(generator)] = ref(loop)
            loop._asyncgen_firstiter_hook(generator)  # type: ignore[attr-defined]

    def dropped(self, generator: Any) -> None:
        begun_on = self._loops.pop(id(generator), None)
        loop = None if begun_on is None else begun_on()
        if loop is not None:
            loop._asyncgen_finalizer_hook(generator)  # type: ignore[attr-defined]


_generators: Final = _AsyncGenerators()


def run(world: World, until_us: int, *, until: asyncio.Future[Any] | None = None) -> bool:
    """Run the world up to that time, or until the future is done; whether it was (True without a future).

    Raises:
        SimEscape: simulated code tried to leave the simulation, even if it caught the error.
        EventStorm: too many events.
    """
    if until is not None and until.done():
        return True
    if until is not None:
        until.add_done_callback(lambda _: world.halt())
    collecting, hooks = gc.isenabled(), sys.get_asyncgen_hooks()
    gc.disable()
    sys.set_asyncgen_hooks(firstiter=_generators.begun, finalizer=_generators.dropped)
    try:
        with inside(world):
            world.run(until_us)
    finally:
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()
    if current.escapes:
        first = current.escapes[0]
        current.escapes.clear()
        raise first
    return until is None or until.done()

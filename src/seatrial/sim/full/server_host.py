"""One simulated machine that runs the server as shipped, and the supervisor that starts it again.

Rule: the node is built by `build_node`, as its process builds it; a fatal error ends the process at that instant, and
nothing that it would still have said is heard.  The supervisor starts it again a moment later, unless it is held down
(a crash that lasts).  What the server says in its log is kept, the last lines of it.
Knows nothing of clients, faults or verdicts.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from seatrial.raft.ids import NodeId
from seatrial.server.config import Address, ServerConfig
from seatrial.server.errors import StartError
from seatrial.server.logs import Logger
from seatrial.server.node import Node, build_node
from seatrial.sim.case import Case
from seatrial.sim.disk import SimDisk
from seatrial.sim.disk_files import LifeEnded
from seatrial.sim.full.observer import Observer
from seatrial.sim.hosts import SimHost
from seatrial.sim.network import SimNetwork

RAFT_PORT: Final = 7101
KAFKA_PORT: Final = 9092
HTTP_PORT: Final = 9644
LOG_LINES_MAX: Final = 200
RESTART_US: Final = 300_000  # what a supervisor waits before it starts a process again that ended by itself
RESTART_US_MAX: Final = 2_000_000


FOR_GOOD: Final = frozenset({16, 17})  # how a process exits that is no member, or whose disk is not the one it had
NEXT_LIFE: Final = 20  # added to the id of a node that comes back without its disk: a removed id never does


def host_name(node: int) -> str:
    return f"node-{node}"


class ServerHost:
    """A machine, its disk and its lives.

    slot: which machine it is, from 1; node_id: what its server calls itself, which is the same until its disk was
    wiped.  join: None for a founder of the cluster, which every node is that is no spare; else as in `ServerConfig`.
    exits: how each life that ended by itself ended: the time in µs and the reason.  holds: the process stays down while
    there is any.  born: told of each new life, before it opens its groups.
    """

    def __init__(
        self, network: SimNetwork, case: Case, node_id: int, observer: Observer, unsafe: frozenset[str] = frozenset()
    ) -> None:
        world = self.world = network.world
        chance = world.stream(f"clock {node_id}")
        self.drift_ppm = chance.integer(-case.drift_ppm, case.drift_ppm)
        self.wall_offset_us = chance.integer(-case.wall_offset_us, case.wall_offset_us)
        self.slot = self.node_id = node_id
        self.join: tuple[str, ...] | None = None if node_id <= case.nodes else ()
        self.enabled = node_id <= case.nodes  # a spare is not started before somebody wants it
        self.host: SimHost = network.add_host(
            host_name(node_id), drift_ppm=self.drift_ppm, wall_offset_us=self.wall_offset_us
        )
        self.disk = SimDisk(world, str(node_id), case.disk)
        self.node: Node | None = None
        self.exits: list[tuple[int, StartError]] = []
        self.born: list[Callable[[Node], None]] = []
        self.log: deque[str] = deque(maxlen=LOG_LINES_MAX)
        self.holds = 0
        self.starts = 0
        self._case = case
        self._observer = observer
        self._unsafe = unsafe
        self._failures = 0  # starts in a row that ended by themselves
        self._pauses = 0
        self._raft_port = RAFT_PORT
        self._armed: dict[str, Callable[[], None]] = {}  # by point: told when it is reached, after the crash
        self.disk.on_point = self.at_point
        self.host.crash(power=False)  # it is switched on by `start`

    # ---- lives -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on, if nothing holds it down and it is not up."""
        if self.holds or self.host.is_up or not self.enabled:
            return
        self.host.boot()
        self.starts += 1
        self.host.loop.set_exception_handler(self._unhandled)
        self.host.spawn(self._serve(), name="serve")

    def crash(self, *, power: bool) -> bool:
        """Stop it now; whether it was up.  power: the machine, and what its disk had not synced."""
        was_up = self.host.is_up
        if was_up:
            self.host.crash(power=power)
        if was_up or power:
            self.disk.crash(power=power)
        self.node = None
        return was_up

    def hold(self) -> None:
        """Keep it down, once more, until as many `release`."""
        self.holds += 1

    def release(self) -> None:
        self.holds = max(0, self.holds - 1)
        self.start()

    def addresses(self) -> dict[str, str]:
        """Where the node is reached, as its HTTP API names it."""
        name = host_name(self.slot)
        return {
            "raft_addr": f"{name}:{self._raft_port}",
            "kafka_addr": f"{name}:{KAFKA_PORT}",
            "http_addr": f"{name}:{HTTP_PORT}",
            "rack": name,
        }

    def bring_in(self, join: tuple[str, ...]) -> None:
        """Let a spare begin to join, if it never was: by these URLs, or when somebody else asks."""
        if not self.enabled:
            self.enabled, self.join = True, join
            self.start()

    def lose_disk(self, join: tuple[str, ...]) -> int:
        """Come back, when it starts, as another node on an empty disk; the id that it had."""
        self.crash(power=True)
        self.disk.wipe()
        lost, self.node_id = self.node_id, self.node_id + NEXT_LIFE
        self._raft_port += 1  # the address of the lost one is taken as long as it is a member
        self.join = join
        return lost

    def pause(self) -> bool:
        """Stand still until as many `resume`; whether it was running."""
        self._pauses += 1
        if self.host.is_up:
            self.host.pause()
        return self.host.is_up

    def resume(self) -> None:
        self._pauses -= 1
        if self._pauses <= 0:
            self.host.resume()

    def drift_by(self, ppm: int) -> None:
        """Let the clock run so much faster than it does, or slower."""
        self.host.clock.set_drift(self.host.clock.drift_ppm + ppm)
        if self.host.is_up:
            self.host.arm()

    def arm(self, point: str, reached: Callable[[], None]) -> None:
        """Crash (power) the next time that it comes to the named point, and tell."""
        self._armed[point] = reached

    def disarm(self, point: str) -> None:
        self._armed.pop(point, None)

    def at_point(self, point: str) -> bool:
        """The node came to a named point; whether it crashed there."""
        reached = self._armed.pop(point, None)
        if reached is None:
            return False
        self.crash(power=True)
        reached()
        return True

    def heal(self) -> None:
        """Nothing is wrong with the machine any more; what is damaged stays damaged."""
        self._armed.clear()
        self._pauses = self.holds = 0
        self.host.resume()
        self.disk.heal()
        if self.host.clock.drift_ppm != self.drift_ppm:
            self.drift_by(self.drift_ppm - self.host.clock.drift_ppm)
        self.host.clock.wall_offset_us = self.wall_offset_us
        self.start()

    def _exited(self, error: StartError) -> None:
        """The process ends itself, as `os._exit` does."""
        self.exits.append((self.world.now_us, error))
        self._observer.exited(self.node_id, error)
        self._failures += 1
        self.crash(power=False)
        if error.status in FOR_GOOD:
            return
        delay_us = min(RESTART_US * self._failures, RESTART_US_MAX)
        self.world.after(delay_us, self._restart, self.host.incarnation)

    def _restart(self, incarnation: int) -> None:
        if self.host.incarnation == incarnation:
            self.start()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        host, life = self.host, self.host.incarnation
        logger = Logger(self.log.append, host.clock, "info", node=self.node_id)
        try:
            node = build_node(
                self._config(),
                host.clock,
                self.world.stream(f"node {self.node_id} life {life}"),
                self.disk.mount(charge=host.charge),
                loop,
                logger=logger,
                on_fatal=self._exited,
            )
            self._observer.attach(self.node_id, node, self.at_point)
            for told in self.born:
                told(node)
            self.node = node
            await node.start()
        except StartError as error:
            self._exited(error)
        except LifeEnded:
            return
        except Exception as error:  # a bug of the server's: told as such
            self._observer.unhandled(self.node_id, "starting failed", error)
        else:
            self._failures = 0

    def _config(self) -> ServerConfig:
        case, name = self._case, host_name(self.slot)
        founders = {NodeId(n): f"{host_name(n)}:{RAFT_PORT}" for n in range(1, case.nodes + 1)}
        peers = {n: address for n, address in founders.items() if n != self.node_id}
        return ServerConfig(
            node_id=NodeId(self.node_id),
            data_dir=self.disk.mount_point,
            peers=peers,
            raft_addr=Address(name, self._raft_port),
            kafka_addr=Address(name, KAFKA_PORT),
            http_addr=Address(name, HTTP_PORT),
            advertise_kafka=Address(name, KAFKA_PORT),
            join=self.join,
            rack=name,
            heartbeat_ms=max(1, case.raft.heartbeat_us // 1000),
            election_timeout_ms=max(5, case.raft.election_timeout_us // 1000),
            default_replication_factor=min(3, case.nodes),
            unsafe=self._unsafe,
            uvloop=False,
        )

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """An exception that nobody in the server caught."""
        error = context.get("exception")
        if isinstance(error, LifeEnded):
            return
        self._observer.unhandled(self.node_id, str(context.get("message")), error)

    # ---- what can be seen of it ------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.host.is_up and self.node is not None

    @property
    def is_ready(self) -> bool:
        return self.is_up and self.node is not None and self.node.is_ready() is None

    def ask(self, function: Callable[[Node], None]) -> bool:
        """Run a function on the node as its own code, now; whether it was up."""
        node = self.node
        if node is None or not self.host.is_up:
            return False
        self.host.call(function, node)
        return True

    def last_log(self, count: int = 8) -> list[str]:
        """The last lines, shortened to their event and its fields."""
        shown = []
        for line in list(self.log)[-count:]:
            fields = json.loads(line)
            fields.pop("node", None)
            shown.append(msgspec.json.encode(fields).decode())
        return shown

"""One whole node, put together: storage, transport, groups, Kafka listener and HTTP API.

Rule: nothing here is the operating system's: clock, chance, files, loop and sockets are given, so that the simulator
builds the very same node.  Knows nothing of processes, signals and exit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from seatrial.env import Clock, Files, Rng
from seatrial.kafka.backend import BrokerSettings
from seatrial.kafka.dispatch import Dispatcher
from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import GroupId
from seatrial.server.broker import Broker, group_settings, role_name
from seatrial.server.config import ServerConfig
from seatrial.server.directory import start_directory
from seatrial.server.disk_latency import TimedFiles
from seatrial.server.disk_room import DiskRoom
from seatrial.server.errors import Removed, StartError
from seatrial.server.http_connections import HttpConnections, HttpLimits
from seatrial.server.introductions import INTRODUCTIONS, Introductions
from seatrial.server.joining import join
from seatrial.server.listener import KafkaListener, ListenerLimits
from seatrial.server.logs import Logger
from seatrial.server.multiraft import MultiRaft
from seatrial.server.patience import PatienceLimits
from seatrial.server.replica import Replica
from seatrial.server.retention import Retaining
from seatrial.server.room import Room
from seatrial.server.standing import Standing
from seatrial.server.wires import chosen_wire
from seatrial.storage.errors import DamagedLog, DataDirectoryInUse, DiskFull, StorageError, WrongDataDirectory
from seatrial.storage.segments import SegmentStorage
from seatrial.transport.limits import Limits
from seatrial.transport.node_transport import NodeTransport
from seatrial.transport.wire import Wire

if TYPE_CHECKING:
    from seatrial.server.hooks import TestHooks

Listen = Callable[[Callable[[], Any], str, int], Awaitable[asyncio.Server]]
HAND_OVER_S: Final = 2.0  # of the time to stop: for giving the lead away
SAMPLE_S: Final = 0.5  # how often the leader's past is remembered, for the lag of followers
STORAGE_STATUS: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (WrongDataDirectory, 11),
    (DataDirectoryInUse, 12),
    (DamagedLog, 13),
    (DiskFull, 14),
    (StorageError, 15),
    (OSError, 15),
)


def start_error(error: BaseException) -> StartError:
    """The error with the exit status of its kind (`process.EXIT_STATUS`)."""
    for kind, status in STORAGE_STATUS:
        if isinstance(error, kind):
            return StartError(status, str(error))
    bug = StartError(1, f"a bug: {error!r}; please report it with its traceback")
    bug.__cause__ = error
    return bug


class Node:
    """A node that can be started once and stopped once."""

    def __init__(
        self,
        config: ServerConfig,
        clock: Clock,
        rng: Rng,
        files: Files,
        loop: asyncio.AbstractEventLoop,
        *,
        logger: Logger,
        listen: Listen,
        on_fatal: Callable[[StartError], None],
        transport_listen: Any,
        free_bytes: Callable[[], int] | None,
    ) -> None:
        self.config = config
        self.logger = logger
        self._clock = clock
        self._loop = loop
        self._listen = listen
        self._on_fatal = on_fatal
        self._tasks: list[asyncio.Task[None]] = []
        self._admin: Any = None
        wire = chosen_wire(config, files)
        self.files = TimedFiles(files, clock)
        storage = self._open_storage()
        # Only now is the directory known to be ours.
        self.directory = start_directory(
            files, config.data_dir, rng.child("directory"), clock, joins=config.join is not None
        )
        self.transport = transport = self._make_transport(wire, transport_listen, rng.child("transport"))
        raft = RaftConfig(
            node_id=config.node_id,
            heartbeat_us=config.heartbeat_ms * 1000,
            election_timeout_us=config.election_timeout_ms * 1000,
            lease_reads=config.lease_reads,
            unsafe=config.unsafe & {"forget-vote"},
        )
        self.multiraft = MultiRaft(
            loop=loop,
            clock=clock,
            rng=rng.child("multiraft"),
            storage=storage,
            transport=transport,
            raft=raft,
            on_fatal=lambda error: self._on_fatal(start_error(error)),
            on_role_change=lambda replica: self.broker.role_changed(replica),
            on_configuration_change=lambda replica: self.broker.configuration_changed(replica),
            room=(room := self._make_room(free_bytes)),
        )
        self.room = room
        self.broker = Broker(
            config,
            self.directory,
            self.multiraft,
            clock,
            rng.child("broker"),
            logger,
            nodes_changed=lambda: self.standing.nodes_changed(),
            refusal=room.refusal,
        )
        self.standing = Standing(
            config, self.directory, transport, self.broker, loop, on_fatal=on_fatal, on_removed=self._leave
        )
        self.introductions = self._make_introductions()
        self.multiraft.listeners[INTRODUCTIONS] = self.introductions.receive
        self.hooks = self._test_hooks() if config.test_hooks else None
        settings = broker_settings(config)
        self.listener = KafkaListener(Dispatcher(self.broker, settings), listener_limits(config), logger, loop)
        self.http = HttpConnections(http_limits(config), logger, loop.time)
        self.retaining = self._make_retaining(settings)

    def _make_room(self, free_bytes: Callable[[], int] | None) -> Room:
        now_us, reserve = self._clock.now_us, self.config.disk_reserve_bytes
        disk = free_bytes and DiskRoom(free_bytes, reserve, now_us, self.logger)
        return Room(self.config.node_id, disk, now_us)

    def _make_retaining(self, settings: BrokerSettings) -> Retaining:
        return Retaining(
            self.broker.partitions,
            self.broker.metadata,
            settings,
            self.config.node_id,
            self._loop,
            self.logger,
            wall_ms=self._clock.wall_ms,
        )

    def _make_introductions(self) -> Introductions:
        return Introductions(
            self.config.node_id,
            self.transport,
            self.broker.metadata,
            self._clock.now_us,
            self.standing.add_peer,
            led=self.broker.groups.led_unknown_to_others,
            leads=self.broker.groups.heard_of_leader,
            disk=self.room.told_to_peers,
            greeted=self.multiraft.greeted,
        )

    def _make_transport(self, wire: Wire, listen: Any, rng: Rng) -> NodeTransport:
        return NodeTransport(
            self.config.node_id,
            self.config.cluster_id,
            wire,
            listen=listen,
            peers=self.config.peers,
            clock=self._clock,
            rng=rng,
            limits=Limits(
                connections_max=self.config.raft_max_connections,
                frame_s_max=self.config.request_arrival_max_ms / 1000,
            ),
            report=lambda text: self.logger.warning("transport", message=text),
            directory=self.directory.number,
            on_rejected=lambda peer, rejected: self.standing.rejected(peer, rejected),
            on_stranger=lambda node: self.introductions.stranger(node),
        )

    def _open_storage(self) -> SegmentStorage:
        config = self.config
        return SegmentStorage(
            self.files,
            config.data_dir,
            durability=config.durability,
            node_id=config.node_id,
            cluster_id=config.cluster_id,
            on_fatal=lambda error: self._on_fatal(start_error(error)),
            report=lambda text: self.logger.warning("storage", message=text),
            now_us=self._clock.now_us,
        )

    async def start(self) -> None:
        """Open the groups and serve; ends when connections are answered, which may be before there is a leader.

        Raises:
            StartError: the data directory or an address cannot be used.
        """
        if self.config.unsafe:
            switches = ", ".join(sorted(self.config.unsafe))
            self.logger.warning("UNSAFE", switches=switches, message="planted bugs are on: this node WILL lose data")
        if self.hooks is not None:
            self.logger.warning(
                "TEST_HOOKS",
                message="this node's messages can be dropped, delayed and forged over HTTP: never with data",
            )
        try:
            self.broker.start()
        except (StorageError, OSError) as error:
            raise start_error(error) from error
        try:
            await self.multiraft.start()
            self.listener.beside += [self.http.look, self.room.look, self.multiraft.hand_over_for_room]
            await self.listener.start(self.config.kafka_addr, self._listen)
            await self._start_admin()
        except OSError as error:
            raise StartError(10, f"cannot listen: {error}") from error
        self._spawn(self._register())
        self._spawn(self._sample_lag())
        self._spawn(self.broker.membership.run())
        self._spawn(self.broker.groups.run())
        self._spawn(self.retaining.run())

    async def _start_admin(self) -> None:
        # Imported here: by now the peers are dialled, and the 40 ms that this takes overlap with their start.
        from seatrial.server.admin import AdminApi, AdminServer
        from seatrial.server.members_api import MembersApi

        api = AdminApi(self, self.logger, self.config.http_token, MembersApi(self.broker))
        self._admin = AdminServer(api, self.logger, self.http)
        await self._admin.start(self.config.http_addr, self._listen)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(self._loop.create_task(work))

    async def _register(self) -> None:
        try:
            if self.directory.joined:
                await join(
                    self.config,
                    self.directory,
                    self.logger,
                    is_member=self.standing.is_member,
                    changed=self.broker.metadata_replica.changed,
                    add_peer=self.standing.add_peer,
                )
            await self.broker.register()
        except StartError as error:
            self._on_fatal(error)
            return
        except Removed as error:
            self.standing.leave(str(error))
            return
        self.logger.info("ready", incarnation=self.directory.incarnation, controller=self.broker.controller_id)

    def _leave(self, reason: str) -> None:
        """No member any more: take part in nothing, tell whoever asks, and leave what is stored alone."""
        self.logger.error("removed", reason=reason)
        self.broker.close()
        for group in list(self.multiraft.replicas):
            self.multiraft.close_group(group)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._spawn(self.listener.close())

    async def _sample_lag(self) -> None:
        while True:
            for hosted in self.broker.partitions():
                hosted.remember_for_lag(self.multiraft.now_us())
            self.introductions.greet()
            await asyncio.sleep(SAMPLE_S)

    async def stop(self) -> None:
        """Give the lead away, finish what is queued for the disk, close everything."""
        await self.broker.hand_over(HAND_OVER_S)
        self.broker.close()
        for task in self._tasks:
            task.cancel()
        if self.standing.removed is None:
            await self.listener.close()
        if self._admin is not None:
            await self._admin.close()
        await self.multiraft.close()

    # ---- what the HTTP API tells (admin.Status) --------------------------------------------------------------------

    @property
    def key_value(self) -> Any:
        return self.broker.key_value

    def info(self) -> dict[str, Any]:
        broker = self.broker
        metadata = self.group_info(broker.metadata_replica)
        return {
            "node_id": self.config.node_id,
            "cluster_id": self.config.cluster_id,
            "incarnation": self.directory.incarnation,
            "removed": self.standing.removed,
            "is_leader": broker.metadata_replica.node.is_leader,
            **{k: metadata[k] for k in ("leader_id", "term", "role", "commit_index", "last_applied", "last_index")},
            "groups": self.groups_info(),
            "refused_groups": broker.refused_groups,
            "disk": self.room.told(),
            "role_changes": list(broker.role_changes),
            "unsafe": sorted(self.config.unsafe),
            "test_hooks": self.config.test_hooks,
        }

    def groups_info(self) -> list[dict[str, Any]]:
        """Of every group that has a replica here."""
        replicas = self.multiraft.replicas
        return [self.group_info(replicas[group]) for group in sorted(replicas)]

    def group_info(self, replica: Replica) -> dict[str, Any]:
        node, storage = replica.node, replica.storage
        term, commit_index = replica.told()  # what is not saved yet may be forgotten, and was none to tell of
        return {
            "group": replica.name,
            "role": role_name(replica),
            "term": term,
            "leader_id": node.leader,
            "commit_index": commit_index,
            "last_applied": replica.last_applied,
            "last_index": node.last_index,  # of the core: entries on their way to storage count
            "first_index": storage.first_index,
            "digest": replica.machine.digest,
            "voters": list(node.configuration.voters),
            "voters_outgoing": list(node.configuration.voters_outgoing),
            "learners": list(node.configuration.learners),
        }

    def leader_of(self, name: str) -> int | None:
        replica = self.replica_named(name)
        return None if replica is None else replica.node.leader

    def replica_named(self, name: str) -> Replica | None:
        return next((r for r in self.multiraft.replicas.values() if r.name == name), None)

    def _test_hooks(self) -> TestHooks:
        from seatrial.server.hooks import TestHooks  # only where tests are: nodes should listen soon

        return TestHooks(self.transport.filters, self.config.node_id, self._group_named, self.logger)

    def _group_named(self, name: str) -> GroupId | None:
        replica = self.replica_named(name)
        return None if replica is None else replica.group

    def is_ready(self) -> str | None:
        outside = self.standing.why_outside()
        if outside is not None:
            return outside
        if self.broker.metadata_replica.node.leader is None:
            return "the metadata group has no leader yet"
        if not self.broker.registered.is_set():
            return "this node is not registered yet"
        return None

    def metrics_text(self) -> bytes:
        from seatrial.server.metrics import metrics_text  # only where somebody scrapes: its import takes 30 ms

        return metrics_text(self)


def listener_limits(config: ServerConfig) -> ListenerLimits:
    return ListenerLimits(
        frame_bytes=config.max_request_bytes,
        connections=config.max_connections,
        patience=PatienceLimits(
            idle_s=config.connections_max_idle_ms / 1000, frame_s=config.request_arrival_max_ms / 1000
        ),
    )


def http_limits(config: ServerConfig) -> HttpLimits:
    limits = HttpLimits(connections=config.http_max_connections)
    patience = replace(
        limits.patience, idle_s=config.connections_max_idle_ms / 1000, frame_s=config.request_arrival_max_ms / 1000
    )
    return replace(limits, patience=patience)


def broker_settings(config: ServerConfig) -> BrokerSettings:
    factor = config.default_replication_factor
    return BrokerSettings(
        auto_create_topics=config.auto_create_topics,
        # A node that joins does not know how many there are: it takes the default as it is.
        default_replication_factor=min(factor, len(config.voters)) if config.voters else factor,
        max_message_bytes=config.max_message_bytes,
        fetch_from_followers=config.fetch_from_followers,
        syncs=config.durability == "fsync",
        follower_staleness_max_ms=config.follower_staleness_max_ms,
        spread_readers=config.replica_selector == "load",
        groups=group_settings(config),
    )


def build_node(
    config: ServerConfig,
    clock: Clock,
    rng: Rng,
    files: Files,
    loop: asyncio.AbstractEventLoop,
    *,
    logger: Logger,
    listen: Listen | None = None,
    on_fatal: Callable[[StartError], None],
    sockets: Mapping[str, Any] | None = None,
    free_bytes: Callable[[], int] | None = None,
) -> Node:
    """A node on the given world; `listen` and `sockets` (for "raft") only where sockets are bound already.

    free_bytes: asks the disk of the data directory how much it has left; None: it is not of a size.

    Raises:
        StartError: the data directory belongs to another node or cluster, is in use, is damaged or cannot be written.
    """

    async def create(factory: Callable[[], Any], host: str, port: int) -> asyncio.Server:
        return await loop.create_server(factory, host, port)

    try:
        return Node(
            config,
            clock,
            rng,
            files,
            loop,
            logger=logger,
            listen=listen or create,
            on_fatal=on_fatal,
            transport_listen=(sockets or {}).get("raft", str(config.raft_addr)),
            free_bytes=free_bytes,
        )
    except (StorageError, OSError) as error:
        raise start_error(error) from error

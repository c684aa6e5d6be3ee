"""The host of all Raft groups of a node: one event loop, one timer, one transport, one storage.

Rule: a group that got any input is processed once, at the end of the loop turn, so that the messages of all groups
leave in one write a peer and their saves in one group commit; a group without input costs nothing but its place in
the timer's heap.  Where a group breaks off half-way (its log cannot be read back; a bug), all stop and `on_fatal` is
told: what it had taken on is neither done nor undone, and a node that went on could send a vote that was never saved.
Knows nothing of what groups are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from seatrial.env import Clock, Rng
from seatrial.marks import reached
from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import (
    AppendEntries,
    Configuration,
    ForwardProposal,
    HeartbeatResponse,
    Message,
    PreVote,
    RequestVote,
)
from seatrial.raft.node import RaftNode
from seatrial.server.campaigns import Campaigns
from seatrial.server.quiet import HOST_GROUP, QuietGroups
from seatrial.server.replica import Machine, Replica, ReplicaOptions
from seatrial.server.room import Room
from seatrial.storage.base import LogStorage
from seatrial.transport.base import Transport

# Deadlines are rounded up to this, so that the heartbeats of many groups leave together.
TIMER_STEP_US = 5_000
REST_US = 1 << 50  # armed as good as never: waking arms it anew
WATCHES_A_TIMEOUT = 4  # looks in an election timeout whether the leaders of resting followers are there
GIVE_WAY_TIMEOUTS = 10  # election timeouts that a new group's preferred leader is given to be the first
PROCESSED_A_TURN = 256  # groups; then connections and timers get their turn
# Messages of groups that this node has not opened yet (a new topic's first election): kept for a moment.
EARLY_GROUPS_MAX = 1_024
EARLY_MESSAGES_MAX = 8  # of one group


class MultiRaft:
    """All replicas of one node (implements `replica.Host`)."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        rng: Rng,
        storage: LogStorage,
        transport: Transport,
        raft: RaftConfig,
        on_fatal: Callable[[Exception], None],
        on_role_change: Callable[[Replica], None],
        on_configuration_change: Callable[[Replica], None] = lambda replica: None,
        room: Room | None = None,
    ) -> None:
        self.loop = loop
        self.storage = storage
        self.transport = transport
        self.replicas: dict[GroupId, Replica] = {}
        self.listeners: dict[GroupId, Callable[[Message], None]] = {}  # of ids that are no Raft groups
        self._early: dict[GroupId, list[Message]] = {}
        self.now_us = clock.now_us
        self.send: Callable[[GroupId, Sequence[Message]], None] = transport.send
        self._rng = rng
        self._raft = raft
        self._on_fatal = on_fatal
        self._on_role_change = on_role_change
        self._on_configuration_change = on_configuration_change
        self._room = room or Room(raft.node_id, None, clock.now_us)
        self._dirty: list[Replica] = []
        self._scheduled = False
        self._timers: list[tuple[int, GroupId]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._closed = False
        self._quiet = QuietGroups(
            raft.node_id,
            transport.peers,
            self.replicas,
            transport.send,
            election_timeout_us=raft.election_timeout_us,
        )
        self._beat_timer: asyncio.TimerHandle | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._campaigns = Campaigns()
        # Groups whose time ran out and that may not stand for election yet.  Whoever is drawn is drawn at random: two
        # nodes that have lost the same leader must not go through its groups side by side, and split each vote.
        self._postponed: list[GroupId] = []
        self._is_postponed: set[GroupId] = set()
        self._draw = rng.child("campaigns")

    async def start(self) -> None:
        """Listen for peers and dial them."""
        await self.transport.start(self._receive)

    def open(
        self, group: GroupId, name: str, machine: Machine, voters: Sequence[NodeId], options: ReplicaOptions
    ) -> Replica:
        """Begin to take part in a group, from what is stored of it.

        `voters`: with which the group began; none on a node that was added later, and learns them from the leader.

        Raises:
            DamagedLog: its stored log is damaged; the group is not opened.
        """
        assert group not in self.replicas, f"group {group} is open already"
        storage = self.storage.open_group(group)
        node = RaftNode(
            self._raft,
            storage if options.stable is None else options.stable(storage),
            configuration=Configuration(voters),
            random=self._chance_for(group),
            now_us=self.now_us(),
        )
        replica = Replica(
            group=group, name=name, node=node, storage=storage, machine=machine, host=self, options=options
        )
        self.replicas[group] = replica
        for message in self._early.pop(group, ()):
            node.step(message, self.now_us())
        self.mark_dirty(replica)
        return replica

    def _chance_for(self, group: GroupId) -> Callable[[], float]:
        if "forget-vote" in self._raft.unsafe:
            # A vote that is forgotten does harm only where two nodes ask for it in one term: let timers coincide.
            return lambda: 0.3
        return self._rng.child(f"raft/{group}").random

    def close_group(self, group: GroupId) -> None:
        """Stop taking part; what is stored stays."""
        self.replicas.pop(group).close()
        self._campaigns.ended(group)
        self._quiet.closed(group)

    def remove_group(self, group: GroupId, *, done: Callable[[], None] = lambda: None) -> None:
        """Stop taking part, and delete what is stored; `done` when that will survive a crash."""
        if group in self.replicas:
            self.close_group(group)
        self._early.pop(group, None)
        self.storage.remove_group(group, done=done)

    def mark_dirty(self, replica: Replica) -> None:
        if not replica.dirty:
            replica.dirty = True
            self._dirty.append(replica)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self.loop.call_soon(self._process)

    @property
    def may_campaign(self) -> bool:
        """Whether another group may stand for election now (see `campaigns`)."""
        return self._campaigns.has_room

    def campaign(self, replica: Replica) -> None:
        """Stand for election now, without waiting for the election timeout."""
        replica.campaign()
        self._campaigns.look(replica.group, replica.node.role)

    def give_way(self, replica: Replica) -> None:
        """Leave the first election of a new group to its preferred leader, which stands as soon as it has heard of it.

        Of a thousand new groups some nodes open the last ones seconds before others do.
        """
        replica.patient_until_us = self.now_us() + GIVE_WAY_TIMEOUTS * self._raft.election_timeout_us

    def role_changed(self, replica: Replica) -> None:
        self._campaigns.look(replica.group, replica.node.role)
        self._on_role_change(replica)

    def configuration_changed(self, replica: Replica) -> None:
        self._on_configuration_change(replica)

    def heard_us(self, replica: Replica, peer: NodeId) -> int:
        return self._quiet.answered_us(replica, peer)

    def failed(self, error: Exception) -> None:
        """Say and save nothing more, and have the process ended; what was being done is recovered from the disk."""
        if self._closed:
            return
        self._closed = True
        for replica in self.replicas.values():
            replica.closed = True
        self._on_fatal(error)

    def greeted(self, peer: NodeId, disk: str) -> None:
        """A peer said how its disk is: what it would not take is hardly sent to it."""
        probes = self._room.heard(peer, disk)
        if probes is None:
            return
        for replica in self.replicas.values():
            if replica.options.needs_room is not None and replica.node.is_leader:
                replica.node.hold(peer, probes)
                self.mark_dirty(replica)

    def hand_over_for_room(self, now_s: float) -> None:
        """Have groups led where there is room for what they take; to be called about once a second."""
        for replica in self.replicas.values() if self._room.is_short else ():
            heir = self._room.heir(replica)
            if heir is not None:
                replica.transfer_leadership(heir)

    async def close(self) -> None:
        """Stop all groups, finish what is queued for the disk, close connections."""
        self._closed = True
        for timer in (self._timer, self._beat_timer, self._watch_timer):
            if timer is not None:
                timer.cancel()
        for group in list(self.replicas):
            self.close_group(group)
        await self.transport.close()
        self.storage.close()

    def _receive(self, group: GroupId, message: Message) -> None:
        try:
            replica = self.replicas.get(group)
            if replica is None:
                self._receive_apart(group, message)
                return
            now_us = self.now_us()
            if type(message) is PreVote or type(message) is RequestVote:
                self._quiet.remind(replica, now_us)
            if type(message) is AppendEntries and message.entries:
                admitted = self._room.admitted(replica, message)
                if admitted is None:
                    return
                message = admitted
            elif type(message) is ForwardProposal and (
                replica.proposals.was_taken(message.data) or self._room.refuses(replica, message.data)
            ):
                return
            replica.node.step(message, now_us)
        except Exception as error:  # the process ends with it
            self.failed(error)
            return
        # What answers a heartbeat is most of what an idle leader hears, and mostly there is nothing to do about it.
        if not replica.dirty and (
            type(message) is not HeartbeatResponse or len(self._quiet) or replica.node.has_ready()
        ):
            self.mark_dirty(replica)

    def _receive_apart(self, group: GroupId, message: Message) -> None:
        """What is for none of the open groups."""
        if group == HOST_GROUP:
            self._receive_from_host(message)
        elif group in self.listeners:
            self.listeners[group](message)
        else:
            self._keep_early(group, message)

    def _receive_from_host(self, message: Message) -> None:
        now_us = self.now_us()
        for replica, missed in self._quiet.receive(message, now_us):
            replica.node.step(missed, now_us)
            self.mark_dirty(replica)

    def _keep_early(self, group: GroupId, message: Message) -> None:
        """A topic that this node has not heard of yet, or that is deleted: Raft repeats what matters, but slowly."""
        if group not in self._early and len(self._early) >= EARLY_GROUPS_MAX:
            del self._early[next(iter(self._early))]
        reached("a message came for a group that was not open yet, and was kept")
        kept = self._early.setdefault(group, [])
        kept.append(message)
        del kept[:-EARLY_MESSAGES_MAX]

    def _process(self) -> None:
        self._scheduled = False
        dirty, self._dirty = self._dirty[:PROCESSED_A_TURN], self._dirty[PROCESSED_A_TURN:]
        try:
            for replica in dirty:
                replica.dirty = False
                if replica.closed:
                    continue
                if len(self._quiet):
                    self._quiet.wake(replica, self.now_us())
                replica.process()
                deadline_us = replica.node.next_deadline()
                if deadline_us < replica.armed_us or not replica.armed_us:
                    self._arm(replica, deadline_us)
        except Exception as error:  # the process ends with it
            self.failed(error)
            return
        self.transport.flush()
        if self._dirty:
            self._schedule()
        self._let_stand()
        self._arm_timer()

    def _arm(self, replica: Replica, deadline_us: int) -> None:
        replica.armed_us = deadline_us
        heappush(self._timers, (deadline_us, replica.group))

    def _arm_timer(self) -> None:
        if not self._timers or self._closed:
            return
        due_us = -(-self._timers[0][0] // TIMER_STEP_US) * TIMER_STEP_US
        if self._timer is not None:
            if self._timer_us <= due_us:
                return
            self._timer.cancel()
        self._timer_us = due_us
        self._timer = self.loop.call_later(max(0, due_us - self.now_us()) / 1e6, self._tick)

    def _tick(self) -> None:
        """Tick the groups that are due; one whose deadline has moved on is only put back."""
        self._timer = None
        now_us = self.now_us()
        was_scheduled, self._scheduled = self._scheduled, True  # what becomes dirty here is processed below
        try:
            self._tick_those_due(now_us)
        except Exception as error:  # the process ends with it
            self.failed(error)
            return
        finally:
            self._scheduled = was_scheduled
        if self._dirty and not was_scheduled:
            self._process()
        else:
            self._let_stand()
            self._arm_timer()

    def _tick_those_due(self, now_us: int) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now_us:
            armed_us, group = heappop(timers)
            replica = self.replicas.get(group)
            if replica is None or replica.armed_us != armed_us:
                continue
            deadline_us = replica.node.next_deadline()
            if deadline_us > now_us:
                self._arm(replica, deadline_us)
            else:
                replica.armed_us = 0
                self._tick_replica(replica, now_us)

    def _tick_replica(self, replica: Replica, now_us: int) -> None:
        """Unless the host's beat stands for the group's timers (see `quiet`)."""
        quiet = self._quiet
        if replica.node.is_leader:
            if quiet.may_rest(replica):
                replica.armed_us = now_us + REST_US
                if self._beat_timer is None:
                    self._beat()
                return
        elif quiet.is_led_quietly(replica, now_us):
            if not replica.has_open_reads:
                replica.armed_us = now_us + REST_US
                quiet.rest(replica)
                if self._watch_timer is None:
                    self._watch()
                return
            quiet.remind(replica, now_us)
        elif not replica.has_open_reads:
            if now_us < replica.patient_until_us and replica.node.term == 0:
                self._arm(replica, replica.patient_until_us)
                return
            had_its_turn = self._campaigns.ran_out_of_time(replica.group, replica.node.role)
            if not self._campaigns.has_room or (had_its_turn and self._postponed):
                reached("an election was postponed because too many were under way")
                self._postpone(replica, now_us)
                return
        replica.tick(now_us)
        self._campaigns.look(replica.group, replica.node.role)

    def _postpone(self, replica: Replica, now_us: int) -> None:
        replica.armed_us = now_us + REST_US
        if replica.group not in self._is_postponed:
            self._is_postponed.add(replica.group)
            self._postponed.append(replica.group)

    def _let_stand(self) -> None:
        """Look at as many of the postponed groups as there is room for elections: most have heard of a leader."""
        postponed = self._postponed
        if not postponed:
            return
        now_us = self.now_us()
        for _ in range(min(self._campaigns.room, len(postponed))):
            at = self._draw.integer(0, len(postponed) - 1)
            group, postponed[at] = postponed[at], postponed[-1]
            del postponed[-1]
            self._is_postponed.remove(group)
            replica = self.replicas.get(group)
            if replica is not None and replica.armed_us > now_us:
                self._arm(replica, now_us)

    def _watch(self) -> None:
        """Of followers that rest: a timer of each of them would be most of what idle groups cost."""
        for replica, due_us in self._quiet.roused(self.now_us()):
            if not replica.closed:
                self._arm(replica, due_us)
        self._arm_timer()
        again = self._quiet.has_resting and not self._closed
        delay_s = self._raft.election_timeout_us / WATCHES_A_TIMEOUT / 1e6
        self._watch_timer = self.loop.call_later(delay_s, self._watch) if again else None

    def _beat(self) -> None:
        for replica in self._quiet.beat(self.now_us()):
            self.mark_dirty(replica)
        resting = len(self._quiet) > 0 and not self._closed
        self._beat_timer = self.loop.call_later(self._raft.heartbeat_us / 1e6, self._beat) if resting else None

"""Idle groups fall quiet: one beat a node stands for the heartbeats of all its groups that have nothing to say.

    leader's host                           follower's host
    a group idle for a while: listed  ────▶ its election timer rests while beats with its (group, term) come;
                                            one watch a host looks whether they still do
    anything happens to it: unlisted  ────▶ its own timers count again
      (only what changed is told; all of it at times, and to a host that missed a change)
    beats unanswered by a majority:
      all groups wake, and check their quorum

Heartbeats of 1,000 idle groups cost 40 % of a core a node; this costs one small message a beat.  Safety does not rest
on it: Raft is safe whatever the timers do, and a woken group is told only what its host knows first hand (a leader,
that its followers' hosts answered just now; a follower, that the leader's host still names this group and term).
Groups fall quiet only where there are many (`GROUPS_MIN`).  Knows nothing of what groups are for.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from seatrial.marks import reached
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import ForwardProposal, Heartbeat, HeartbeatResponse, Message
from seatrial.server.reconfiguration import takes_part
from seatrial.server.replica import Replica

HOST_GROUP: Final = GroupId(2)  # not a Raft group: what hosts say to each other travels under this id
GROUPS_MIN: Final = 64
IDLE_BEATS: Final = 4  # a group that had nothing to do for so many heartbeats falls quiet
# So many election timeouts without a beat are silence.  With hundreds of groups a loop turn may take one of them; and
# what silence does, to all of them at once, would make a node that is late later still.
SILENCE_TIMEOUTS: Final = 3
LIST_EVERY_BEATS: Final = 10  # the whole list is repeated, for hosts that missed it
_HEAD: Final = Struct(">BQ")  # kind, epoch of the list
_BASE: Final = Struct(">Q")  # with changes: the epoch of the list that they change
BEAT, BEAT_WITH_LIST, ANSWER, BEAT_WITH_CHANGES, ANSWER_LOST = range(5)  # the last: the list is not known here
_LINE_BYTES: Final = 24  # of a list: group, term, commit index
_UNLISTED: Final = 0  # as a term among the changes: the group is in the list no more


class Heard:
    """What another node's host said last: the groups that it leads in silence, and when."""

    __slots__ = ("at_us", "epoch", "terms")

    def __init__(self) -> None:
        self.epoch = -1
        self.at_us = -(1 << 62)
        self.terms: dict[int, int] = {}


class QuietGroups:
    """Both sides of it, for one host.  groups_min, idle_beats: as the constants; a simulation makes them smaller."""

    def __init__(
        self,
        node_id: NodeId,
        peers: Callable[[], Iterable[NodeId]],
        replicas: Mapping[GroupId, Replica],
        send: Callable[[GroupId, Sequence[Message]], None],
        *,
        election_timeout_us: int,
    ) -> None:
        self._node_id = node_id
        self._peers = peers
        self._replicas = replicas
        self._send = send
        self._fresh_us = SILENCE_TIMEOUTS * election_timeout_us
        self.groups_min = GROUPS_MIN
        self.idle_beats = IDLE_BEATS
        self._led: dict[GroupId, Replica] = {}  # quiet groups that this node leads
        self._epoch = 0
        self._listed_epoch = 0
        self._changed: dict[GroupId, None] = {}  # listed or unlisted since the last beat
        self._lost: set[NodeId] = set()  # peers that do not know the list
        self._beats = 0
        self._beat_us = 0
        self._answered_us: dict[NodeId, int] = {}
        self._heard: dict[NodeId, Heard] = {}
        self._resting: dict[NodeId, dict[GroupId, Replica]] = {}  # followers, by leader
        self._unnamed: list[Replica] = []  # that rested, and that their leader's host names no more

    def __len__(self) -> int:
        return len(self._led)

    # ---- a leader's side -------------------------------------------------------------------------------------------

    def may_rest(self, replica: Replica) -> bool:
        """Asked when a leader's heartbeat is due: whether the beat of the host stands for it from now on."""
        if len(self._replicas) < self.groups_min or replica.idle_beats < self.idle_beats:
            return False
        node = replica.node
        last_index = node.last_index
        if node.commit_index != last_index or node.is_occupied:
            return False
        if any(follower.match_index != last_index for follower in node.followers()):
            return False
        self._led[replica.group] = replica
        self._list_changed(replica.group)
        return True

    def _list_changed(self, group: GroupId) -> None:
        self._epoch += 1
        self._changed[group] = None

    def wake(self, replica: Replica, now_us: int) -> None:
        """Something happens to a quiet group: what its host knows of its followers' nodes, it may know."""
        if self._led.pop(replica.group, None) is None:
            return
        self._list_changed(replica.group)
        replica.idle_beats = 0
        for peer, at_us in sorted(self._answered_us.items()):
            if now_us - at_us < self._fresh_us and takes_part(replica.node.configuration, peer):
                replica.node.step(HeartbeatResponse(peer, self._node_id, replica.node.term, 0), now_us)

    def answered_us(self, replica: Replica, peer: NodeId) -> int:
        """When the peer's host last answered a beat that stood for this group's; 0 where none does."""
        return self._answered_us.get(peer, 0) if replica.group in self._led else 0

    def closed(self, group: GroupId) -> None:
        """The group is no more here: nobody must take it for led from here."""
        if self._led.pop(group, None) is not None:
            self._list_changed(group)

    def beat(self, now_us: int) -> list[Replica]:
        """Send this host's beat; returns the groups to wake because a majority of their nodes is silent."""
        if not self._led:
            return []
        if now_us - self._beat_us >= self._fresh_us:
            self._answered_us.clear()  # nothing was asked for a while: an old answer is not silence
        self._beat_us = now_us
        self._beats += 1
        to_most = self._whole_list() if self._beats % LIST_EVERY_BEATS == 1 else self._changes()
        self._listed_epoch = self._epoch
        self._changed.clear()
        silent: set[NodeId] = set()
        for peer in self._peers():
            data = self._whole_list() if peer in self._lost else to_most
            self._send(HOST_GROUP, [ForwardProposal(self._node_id, peer, Term(0), data)])
            # The first beat of all: count the silence from here.
            if now_us - self._answered_us.setdefault(peer, now_us) >= self._fresh_us:
                silent.add(peer)
        self._lost.clear()
        if not silent:
            return []
        woken = [replica for replica in self._led.values() if self._lacks_quorum(replica, silent)]
        if woken:
            reached("quiet groups woke because a majority of their nodes was silent")
        return woken

    def _lacks_quorum(self, replica: Replica, silent: set[NodeId]) -> bool:
        voters = replica.node.configuration.voters
        return 2 * sum(voter not in silent for voter in voters) <= len(voters)

    def _whole_list(self) -> bytes:
        return _HEAD.pack(BEAT_WITH_LIST, self._epoch) + self._lines(self._led)

    def _changes(self) -> bytes:
        """A beat for those that know the list of the last one."""
        if not self._changed:
            return _HEAD.pack(BEAT, self._epoch)
        head = _HEAD.pack(BEAT_WITH_CHANGES, self._epoch) + _BASE.pack(self._listed_epoch)
        return head + self._lines(self._changed)

    def _lines(self, groups: Iterable[GroupId]) -> bytes:
        flat = array("Q")
        for group in groups:
            replica = self._led.get(group)
            if replica is None:
                flat.extend((group, _UNLISTED, 0))
            else:
                flat.extend((group, replica.node.term, replica.node.commit_index))
        return flat.tobytes()

    # ---- a follower's side -----------------------------------------------------------------------------------------

    def receive(self, message: Message, now_us: int) -> list[tuple[Replica, Message]]:
        """A beat or an answer from another host; returns messages that groups here have missed."""
        if not isinstance(message, ForwardProposal) or len(message.data) < _HEAD.size:
            return []
        kind, epoch = _HEAD.unpack_from(message.data)
        if kind in (ANSWER, ANSWER_LOST):
            self._answered_us[message.sender] = now_us
            if kind == ANSWER_LOST:
                self._lost.add(message.sender)
            return []
        heard = self._heard.setdefault(message.sender, Heard())
        missed: list[tuple[Replica, Message]] = []
        if kind == BEAT_WITH_LIST:
            heard.terms.clear()
            missed = self._listed(message.sender, heard, epoch, message.data[_HEAD.size :])
            self._let_go(message.sender, heard, list(self._resting.get(message.sender, ())))
        elif kind == BEAT_WITH_CHANGES and len(message.data) >= _HEAD.size + _BASE.size:
            (base,) = _BASE.unpack_from(message.data, _HEAD.size)
            if base == heard.epoch:
                missed = self._listed(message.sender, heard, epoch, message.data[_HEAD.size + _BASE.size :])
        is_known = heard.epoch == epoch
        if is_known:
            heard.at_us = now_us
        answer = _HEAD.pack(ANSWER if is_known else ANSWER_LOST, epoch)
        self._send(HOST_GROUP, [ForwardProposal(self._node_id, message.sender, Term(0), answer)])
        return missed

    def _listed(self, leader: NodeId, heard: Heard, epoch: int, lines: bytes) -> list[tuple[Replica, Message]]:
        """Take lines into the leader's list, which is that of `epoch` then; returns what groups here have missed."""
        flat = array("Q")
        flat.frombytes(lines[: len(lines) - len(lines) % _LINE_BYTES])
        heard.epoch = epoch
        for group, term in zip(flat[0::3], flat[1::3], strict=True):
            if term == _UNLISTED:
                heard.terms.pop(group, None)
            else:
                heard.terms[group] = term
        self._let_go(leader, heard, flat[0::3])
        return self._behind(leader, flat)

    def _behind(self, leader: NodeId, flat: array[int]) -> list[tuple[Replica, Message]]:
        """Groups that did not hear of their last commit before the leader fell quiet."""
        behind: list[tuple[Replica, Message]] = []
        for group, term, commit in zip(flat[0::3], flat[1::3], flat[2::3], strict=True):
            replica = self._replicas.get(GroupId(group))
            if replica is not None and replica.node.commit_index < commit and self._follows(replica, leader, term):
                beat = Heartbeat(leader, self._node_id, Term(term), Index(commit), 0)
                reached("a quiet group's follower was told of a commit that it had missed")
                behind.append((replica, beat))
        return behind

    def _let_go(self, leader: NodeId, heard: Heard, among: Iterable[int]) -> None:
        resting = self._resting.get(leader, {})
        for group in map(GroupId, among):
            replica = resting.get(group)
            if replica is not None and heard.terms.get(group) != replica.node.term:
                self._unnamed.append(resting.pop(group))

    def rest(self, replica: Replica) -> None:
        """This follower, led quietly, needs no timer of its own until `roused` names it."""
        assert replica.node.leader is not None
        self._resting.setdefault(replica.node.leader, {})[replica.group] = replica

    @property
    def has_resting(self) -> bool:
        return bool(self._unnamed) or any(self._resting.values())

    def roused(self, now_us: int) -> list[tuple[Replica, int]]:
        """Followers that rested and need their timers again, and when: their leader's host is silent, or woke them."""
        roused = [(replica, now_us + self._fresh_us) for replica in self._unnamed]
        self._unnamed.clear()
        for leader, resting in self._resting.items():
            heard = self._heard.get(leader)
            if heard is None or now_us - heard.at_us >= self._fresh_us:
                roused += [(replica, now_us) for replica in resting.values()]
                resting.clear()
        return roused

    def _follows(self, replica: Replica, leader: NodeId, term: int) -> bool:
        return replica.node.leader == leader and replica.node.term == term

    def is_led_quietly(self, replica: Replica, now_us: int) -> bool:
        """Whether this follower's leader was vouched for by its host a moment ago."""
        node = replica.node
        leader = node.leader
        if leader is None or leader == self._node_id:
            return False
        heard = self._heard.get(leader)
        return (
            heard is not None and now_us - heard.at_us < self._fresh_us and heard.terms.get(replica.group) == node.term
        )

    def remind(self, replica: Replica, now_us: int) -> None:
        """Before a vote is asked of a quiet follower: its leader is as alive as if it had sent a heartbeat."""
        node = replica.node
        if self.is_led_quietly(replica, now_us):
            assert node.leader is not None
            reached("a quiet follower was reminded of its leader before it was asked for a vote")
            node.step(Heartbeat(node.leader, self._node_id, node.term, node.commit_index, 0), now_us)

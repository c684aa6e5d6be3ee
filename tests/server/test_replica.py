"""One Raft group driven for real: what a proposal's future and a read's future promise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from group_cluster import GROUP, eventually

from seatrial.machines.commands import request_id_of
from seatrial.machines.kv import KeyValueMachine, once_id_of
from seatrial.machines.sessions import Session
from seatrial.raft.errors import NotLeader
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import ForwardProposal, Message, RequestVote
from seatrial.server.errors import NoLeader, OutcomeUnknown, ProposalLost
from seatrial.server.replica import ReplicaOptions
from seatrial.storage.errors import DamagedLog

Run = Callable[..., None]
pytestmark = pytest.mark.slow


def test_a_proposal_ends_in_what_applying_it_returned_and_every_replica_is_equal(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        first = await cluster.write(b"k", b"1")
        second = await cluster.write(b"k", b"2")
        assert (first.applied, first.existed, second.existed) == (True, False, True)
        assert second.version > first.version
        await cluster.converged()
        assert all(machine.get(b"k") == (b"2", second.version) for machine in cluster.machines.values())

    run_cluster(scenario)


def test_a_follower_refuses_to_propose_and_names_the_leader(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        await cluster.converged()
        with pytest.raises(NotLeader) as error:
            cluster.follower().propose(b"")
        assert error.value.leader == leader.node.node_id

    run_cluster(scenario)


def test_a_command_submitted_on_a_follower_ends_there_in_its_result(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        await cluster.leader()
        await cluster.converged()
        result = await asyncio.wait_for(cluster.follower().submit(*cluster.put(b"k", b"v")), 5)
        assert result.applied
        assert cluster.follower().proposals.forwarded == 0

    run_cluster(scenario)


def test_a_write_that_was_passed_on_is_not_carried_out_again_when_its_message_comes_again(run_cluster: Run) -> None:
    """A copy that came after a later write took that write back, and linearizable reads were stale."""

    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        passed_on: list[ForwardProposal] = []
        deliver = cluster.wires.deliver

        def kept(group: GroupId, message: Message) -> None:
            if isinstance(message, ForwardProposal):
                passed_on.append(message)
            deliver(group, message)

        cluster.wires.deliver = kept
        await asyncio.wait_for(cluster.follower().submit(*cluster.put(b"k", b"first")), 5)
        await cluster.write(b"k", b"second")
        (first,) = passed_on
        deliver(leader.group, first)
        await cluster.write(b"other", b"v")
        assert leader.machine.get(b"k")[0] == b"second"
        session = Session(b"client", 1)
        again = cluster.put(b"k", b"third", session=session)
        for _ in range(2):  # under a session the sender may send it again, and waits for the second to be applied
            await asyncio.wait_for(cluster.follower().submit(*again), 5)
        await cluster.converged()
        assert leader.machine.get(b"k")[0] == b"third"

    run_cluster(scenario, ReplicaOptions(request_id=request_id_of, once_id=once_id_of))


def test_a_read_on_a_follower_sees_every_write_acknowledged_before_it(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        follower_of = {}
        for count in range(30):
            result = await cluster.write(b"k", b"%d" % count)
            follower = cluster.follower()
            await asyncio.wait_for(follower.read_barrier(), 5)
            follower_of[count] = follower.machine.get(b"k")
            assert follower_of[count] == (b"%d" % count, result.version)

    run_cluster(scenario)


def test_reads_of_one_turn_share_one_read_index(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        before = leader.reads.batches
        await asyncio.wait_for(asyncio.gather(*(leader.read_barrier() for _ in range(50))), 5)
        assert leader.reads.batches == before + 1

    run_cluster(scenario)


def test_a_proposal_of_a_deposed_leader_is_surely_lost_once_another_ones_entry_is_applied(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        old = await cluster.leader()
        cluster.wires.isolate(old.node.node_id)
        lost = old.propose(cluster.put(b"k", b"lost")[0])
        others = [n for n in cluster.members if n != old.node.node_id]
        new = await cluster.leader(others)
        await asyncio.wait_for(new.propose(cluster.put(b"k", b"kept")[0]), 5)
        cluster.wires.cut.clear()
        with pytest.raises(ProposalLost):
            await asyncio.wait_for(lost, 10)
        await cluster.converged()
        assert all(machine.get(b"k")[0] == b"kept" for machine in cluster.machines.values())

    run_cluster(scenario, ReplicaOptions(request_id=request_id_of, grace_us=60_000_000))


def test_a_proposal_of_a_leader_that_stays_cut_off_ends_as_unknown(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        old = await cluster.leader()
        cluster.wires.isolate(old.node.node_id)
        open_ended = old.propose(cluster.put(b"k", b"?")[0])
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(open_ended, 10)

    run_cluster(scenario, ReplicaOptions(request_id=request_id_of, grace_us=50_000))


def test_a_leader_cut_off_from_its_majority_vouches_for_no_read(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        old = await cluster.leader()
        cluster.wires.isolate(old.node.node_id)
        with pytest.raises(NoLeader):
            await asyncio.wait_for(old.read_barrier(), 10)

    run_cluster(scenario)


def test_a_restarted_node_comes_back_from_snapshot_and_log(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        for count in range(25):
            await cluster.write(b"k%d" % count, b"v")
        await cluster.converged()
        node: NodeId = cluster.follower().node.node_id
        storage = cluster.replicas[node].storage
        # Snapshots are written behind the group's back: the log is forgotten only once one is durable.
        await eventually(lambda: storage.first_index > 1, lambda: (storage.first_index, storage.snapshot_meta))
        await cluster.stop(node)
        await cluster.start(node)
        assert cluster.replicas[node].last_applied > 0, "the machine was not restored from the snapshot"
        await cluster.write(b"after", b"v")
        await cluster.converged()
        assert len(cluster.machines[node]) == 26

    run_cluster(scenario, ReplicaOptions(snapshot_entries=10, keep_entries=2))


def test_a_node_behind_the_log_is_filled_by_a_snapshot(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        await cluster.leader()
        node: NodeId = cluster.follower().node.node_id
        cluster.wires.isolate(node)
        for count in range(40):
            await cluster.write(b"k%d" % count, b"v")
        behind = cluster.replicas[node].last_applied
        storage = (await cluster.leader()).storage
        await eventually(lambda: storage.first_index > behind + 1, lambda: (storage.first_index, behind))
        cluster.wires.cut.clear()
        await cluster.converged()
        assert len(cluster.machines[node]) == 40

    run_cluster(scenario, ReplicaOptions(snapshot_entries=10, keep_entries=2))


def test_no_snapshot_is_made_of_what_the_leaders_snapshot_is_replacing(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        await cluster.leader()
        node: NodeId = cluster.follower().node.node_id
        replica, receive = cluster.replicas[node], cluster.wires.receivers[node]
        await cluster.write(b"first", b"v")
        cluster.wires.isolate(node)
        for count in range(40):
            await cluster.write(b"k%d" % count, b"v")
        storage = (await cluster.leader()).storage
        await eventually(lambda: storage.first_index > replica.last_applied + 1, replica.status)
        made: list[bool] = []

        def receive_and_snapshot(group: Any, message: Message) -> None:
            receive(group, message)
            if replica.node.is_installing:
                made.append(replica.make_snapshot())

        cluster.wires.receivers[node] = receive_and_snapshot
        cluster.wires.cut.clear()
        await cluster.converged()
        assert made and not any(made)
        await eventually(replica.make_snapshot, replica.status)  # and later it can

    run_cluster(scenario, ReplicaOptions(snapshot_entries=10, keep_entries=2))


class HeldBack:
    """A group's storage on a disk that takes its time: what is saved is told when `release` is called."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._saved: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def save(self, *, done: Callable[[], None], **what: Any) -> None:
        self._storage.save(**what, done=lambda: self._saved.append(done))

    def release(self) -> None:
        while self._saved:
            self._saved.pop(0)()


def test_a_term_is_told_once_a_power_failure_cannot_take_it_back(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        old = await cluster.leader()
        replica = cluster.follower()
        before, known = replica.told()
        held = replica.storage = HeldBack(replica.storage)
        cluster.wires.isolate(old.node.node_id)
        await eventually(lambda: replica.node.term > before, replica.status)
        assert replica.told() == (before, known)

        def told() -> bool:
            held.release()
            return bool(replica.durable_term == replica.node.term > before)

        await eventually(told, replica.status)

    run_cluster(scenario)


def test_a_commit_is_told_with_the_term_in_which_it_was_known(run_cluster: Run) -> None:
    """A follower told what the next leader had committed together with the term before: as if that had lost it."""

    async def scenario(cluster: Any) -> None:
        old = await cluster.leader()
        await cluster.write(b"first", b"v")
        await cluster.converged()
        replica = cluster.follower()
        held = replica.storage = HeldBack(replica.storage)
        before, known = replica.told()
        heir = next(n for n in cluster.members if n not in (old.node.node_id, replica.node.node_id))
        old.transfer_leadership(heir)
        await eventually(lambda: cluster.replicas[heir].node.is_leader, old.status)
        await cluster.write(b"second", b"v")
        await eventually(lambda: replica.node.commit_index > known, replica.status)
        assert replica.told() == (before, known)

        def told() -> bool:
            held.release()
            return bool(replica.told() == (replica.node.term, replica.node.commit_index) and replica.node.term > before)

        await eventually(told, replica.status)

    run_cluster(scenario)


def test_a_group_that_keeps_its_log_snapshots_without_forgetting(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        for count in range(25):
            await cluster.write(b"k%d" % count, b"v")
        leader = await cluster.leader()
        await eventually(lambda: leader.storage.snapshot_meta is not None, leader.status)
        assert leader.storage.first_index == 1
        node: NodeId = cluster.follower().node.node_id
        await cluster.stop(node)
        await cluster.start(node)
        await cluster.converged()

    run_cluster(scenario, ReplicaOptions(snapshot_entries=10, keep_entries=None))


def test_a_log_is_freed_only_behind_a_snapshot_that_knows_why(run_cluster: Run) -> None:
    """A start from an older one would look for the entries that are gone.  It is freed when that snapshot is saved, and
    not when asked again: by then there may be a newer deletion that the snapshot does not know of."""

    async def scenario(cluster: Any) -> None:
        for count in range(9):
            await cluster.write(b"k%d" % count, b"v")
        leader = await cluster.leader()
        leader.make_snapshot()
        await eventually(lambda: leader.storage.snapshot_meta is not None, leader.status)
        await cluster.write(b"what decides that the others can go", b"v")
        decided_at = leader.last_applied
        assert leader.storage.snapshot_meta.last_included_index < decided_at
        assert leader.forget_before(Index(4), decided_at=decided_at)
        assert not leader.forget_before(Index(4), decided_at=decided_at), "the snapshot is being saved"
        assert leader.storage.first_index == 1
        await cluster.write(b"and on it goes", b"v")
        await eventually(lambda: leader.storage.first_index == 4, leader.status)
        assert leader.storage.snapshot_meta.last_included_index >= decided_at
        assert leader.forget_before(Index(6), decided_at=decided_at), "that snapshot will do"
        assert leader.storage.first_index == 6

    run_cluster(scenario, ReplicaOptions(snapshot_entries=1_000, keep_entries=None))


def test_closing_a_replica_tells_everybody_who_waits(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        cluster.wires.isolate(leader.node.node_id)
        write = leader.propose(cluster.put(b"k", b"v")[0])
        read = leader.read_barrier()
        change = leader.changed()
        leader.close()
        with pytest.raises(OutcomeUnknown):
            await write
        with pytest.raises(NoLeader):
            await read
        await asyncio.wait_for(change, 1)

    run_cluster(scenario)


def test_a_log_that_cannot_be_read_back_ends_the_node_and_nothing_more_leaves_it(run_cluster: Run) -> None:
    """It used to be told to nobody, and the group went on without what it had just taken on, its vote among it.

    The other groups that had something to do in that turn of the loop never did anything again.
    """

    async def scenario(cluster: Any) -> None:
        for count in range(5):
            await cluster.write(b"k%d" % count, b"v")
        await cluster.converged()
        node: NodeId = cluster.follower().node.node_id
        await cluster.stop(node)
        cluster.wires.isolate(node)
        await cluster.start(node)  # what it knows of its log is on disk only
        segment = next((cluster.root / str(node) / "groups").glob("*/segment-*"))
        content = segment.read_bytes()
        segment.write_bytes(content[:4096].replace(b"k1", b"K1") + content[4096:])
        cluster.wires.cut.clear()  # the leader lets it apply its log from the beginning
        await eventually(lambda: bool(cluster.fatal), lambda: cluster.replicas[node].status())
        assert isinstance(cluster.fatal[0], DamagedLog)
        sent: list[Message] = []
        cluster.hosts[node].send = lambda group, messages: sent.extend(messages)
        term = cluster.replicas[node].node.term + 5
        vote = RequestVote(NodeId(1), node, Term(term), Index(1000), Term(term), leadership_transfer=False)
        cluster.wires.receivers[node](GROUP, vote)
        await asyncio.sleep(0)
        await cluster.write(b"the others", b"go on")
        assert sent == []
        assert len(cluster.fatal) == 1

    run_cluster(scenario)


def test_an_exception_between_a_ready_and_its_end_is_told_once_and_ends_the_node(run_cluster: Run) -> None:
    """It used to go on, and failed at the next Ready: "Readys are advanced once each, in the order they were taken"."""

    async def scenario(cluster: Any) -> None:
        await cluster.leader()
        follower = cluster.follower()
        node = follower.node.node_id

        class Broken(KeyValueMachine):
            def restore(self, data: bytes) -> None:
                raise RuntimeError("a machine with a bug")

        follower.machine = Broken()
        cluster.wires.isolate(node)
        for count in range(30):
            await cluster.write(b"k", b"%d" % count)
        storage = (await cluster.leader()).storage
        await eventually(lambda: storage.first_index > follower.last_applied + 1, lambda: storage.first_index)
        cluster.wires.cut.clear()
        await eventually(lambda: bool(cluster.fatal), follower.status)
        await cluster.write(b"the others", b"go on")
        assert [str(error) for error in cluster.fatal] == ["a machine with a bug"]
        assert follower.closed

    run_cluster(scenario, ReplicaOptions(snapshot_entries=10, keep_entries=2))

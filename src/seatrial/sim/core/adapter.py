"""What the core level wants of a consensus core, so that any Raft with step, tick and ready can be put in.

    def make_core(config, disk, *, configuration, random, now_us):
        core = MyAdapter(MyRaft(...))
        return core, core                      # what is driven, and what the checkers look at; often one object

    run_case(case, make_core=make_core)        # or CoreCluster(case, make_core=make_core)

Messages may be of any class that has `sender` and `to`; a Ready is `seatrial.raft.Ready`, entries and hard states are
`seatrial.raft`'s, because the disk, the machine and the checkers read them.  What a core cannot do (change members,
hand over, read without the log) it refuses with a ProposalRefused, and cases that ask for it do no harm.
Rule: the contract is that of `seatrial.raft.ready`; `seatrial.raft.RaftNode` is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import Index, NodeId
from seatrial.raft.membership import ConfigurationChange
from seatrial.raft.messages import Configuration
from seatrial.raft.node import RaftNode
from seatrial.raft.ready import Ready
from seatrial.sim.core.disk import RecordDisk


class ConsensusCore(Protocol):
    """What is driven.  Times are in µs on the node's own clock."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def configuration(self) -> Configuration:
        """In effect: the latest in its log."""

    @property
    def committed_configuration(self) -> Configuration: ...

    def configuration_at(self, index: Index) -> Configuration:
        """What was in effect when `index` was the last entry: what a snapshot up to there carries."""

    def step(self, message: Any, now_us: int) -> None: ...

    def tick(self, now_us: int) -> None: ...

    def next_deadline(self) -> int:
        """When `tick` has something to do."""

    def take_ready(self) -> Ready | None:
        """What to do now, each effect once; None where there is nothing."""

    def advance(self, ready: Ready, now_us: int) -> None: ...

    def forward(self, data: bytes, now_us: int) -> None:
        """Propose here or at the leader.  Raises ProposalRefused."""

    def propose(self, data: bytes, now_us: int) -> Any:
        """Propose here.  Raises ProposalRefused."""

    def read_index(self, context: int, now_us: int) -> None:
        """`ready.reads` answers with the context.  Raises NotLeader where no leader is known."""

    def transfer_leadership(self, to: NodeId, now_us: int) -> None: ...

    def campaign(self, now_us: int) -> None: ...

    def propose_configuration(self, change: ConfigurationChange, now_us: int) -> Any: ...

    def leave_joint(self, now_us: int) -> Any: ...


class LogView(Protocol):
    """What the checkers look at of its log.  term: None where it is compacted or not there; 0 at index 0."""

    commit_index: int
    last_applied: int  # up to where it was handed out
    last_index: int

    @property
    def first_index(self) -> int: ...

    def term(self, index: int) -> int | None: ...


class CoreView(Protocol):
    """What the checkers look at.  role: one of `seatrial.raft.roles`."""

    role: int
    term: int
    voted_for: NodeId | None
    leader: NodeId | None
    configuration: Configuration
    log: LogView


MakeCore = Callable[..., tuple[Any, Any]]  # a ConsensusCore and a CoreView


def make_raft_node(
    config: RaftConfig,
    disk: RecordDisk,
    *,
    configuration: Configuration,
    random: Callable[[], float],
    now_us: int,
) -> tuple[Any, Any]:
    """Seatrial's own."""
    node = RaftNode(config, disk, configuration=configuration, random=random, now_us=now_us)
    return node, node._core

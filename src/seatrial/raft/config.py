"""What can be set on a node, with safe defaults.

Rule: a configuration that cannot work is refused when it is made, with what to change.  Times are in microseconds.
Knows nothing of where settings come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seatrial.raft.ids import NodeId

UNSAFE_SWITCHES: Final = frozenset({"forget-vote"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Settings of one node in one group; all nodes of a group should have the same, `node_id` apart.

    election_timeout_us: a follower waits a random time in [x, 2x) for its leader; x is also the window of
        check-quorum, of leader stickiness and of a leadership transfer.
    max_message_bytes: entries in one AppendEntries, and committed entries in one Ready (always at least one).
    max_uncommitted_bytes: proposals beyond it are dropped until some of the earlier ones are committed and durable.
    lease_reads: answer reads without a round trip while a quorum has promised not to elect anyone else; correct
        only while the clock rates of any two nodes differ by less than `lease_drift_ppm`.
    unsafe: planted bugs, for tests of the testers: "forget-vote" votes again in a term in which it voted.
    """

    node_id: NodeId
    heartbeat_us: int = 50_000
    election_timeout_us: int = 300_000
    pre_vote: bool = True
    check_quorum: bool = True
    max_message_bytes: int = 1 << 20
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 64 << 20
    max_uncommitted_bytes: int = 64 << 20
    lease_reads: bool = False
    lease_drift_ppm: int = 100_000
    snapshot_chunk_bytes: int = 256 << 10
    unsafe: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.node_id < 1:
            raise ValueError(f"node_id must be 1 or more, not {self.node_id}")
        if not 0 < self.heartbeat_us < self.election_timeout_us:
            raise ValueError(
                f"heartbeat_us ({self.heartbeat_us}) must be positive and below election_timeout_us "
                f"({self.election_timeout_us}), or followers would campaign against a healthy leader"
            )
        for name in (
            "max_message_bytes",
            "max_inflight_messages",
            "max_inflight_bytes",
            "max_uncommitted_bytes",
            "snapshot_chunk_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.lease_reads and not self.check_quorum:
            raise ValueError("lease_reads needs check_quorum: without it nobody promises not to elect another leader")
        if not 0 <= self.lease_drift_ppm < 1_000_000:
            raise ValueError(f"lease_drift_ppm must be in [0, 1000000), not {self.lease_drift_ppm}")
        if not self.unsafe <= UNSAFE_SWITCHES:
            unknown = ", ".join(sorted(self.unsafe - UNSAFE_SWITCHES))
            raise ValueError(f"unknown unsafe switch {unknown}; there are: {', '.join(sorted(UNSAFE_SWITCHES))}")

    @property
    def lease_us(self) -> int:
        """How long a leader may rely on the promise that a heartbeat's answers give, from the heartbeat's sending."""
        return self.election_timeout_us * (1_000_000 - self.lease_drift_ppm) // 1_000_000

"""Pure consensus: Raft as a state machine without clock, I/O, threads or randomness of its own."""

from seatrial.raft.config import RaftConfig
from seatrial.raft.describe import describe_message, describe_ready, describe_status
from seatrial.raft.errors import ConfigurationRefused, NotLeader, ProposalDropped, ProposalRefused
from seatrial.raft.inspection import PeerProgress, Status
from seatrial.raft.log import StableLog
from seatrial.raft.membership import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange
from seatrial.raft.node import RaftNode
from seatrial.raft.reads import ReadState
from seatrial.raft.ready import Ready, SoftState
from seatrial.raft.roles import Role

__all__ = [
    "ADD_LEARNER",
    "ADD_VOTER",
    "REMOVE",
    "ConfigurationChange",
    "ConfigurationRefused",
    "NotLeader",
    "PeerProgress",
    "ProposalDropped",
    "ProposalRefused",
    "RaftConfig",
    "RaftNode",
    "ReadState",
    "Ready",
    "Role",
    "SoftState",
    "StableLog",
    "Status",
    "describe_message",
    "describe_ready",
    "describe_status",
]

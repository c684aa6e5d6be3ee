"""What a case may ask for: so much damage that the protocol claims to survive it, and no more.  PURE.

Rule: within the budget a violation is always a bug.  A fixed majority of the first members, the sturdy ones, keep good
copies and stay members while anything else is damaged; clocks stay within what leases allow; timeouts are longer
than the network and the disks are slow, so that a healed cluster must elect and catch up.
Knows nothing of how a case is drawn or run.
"""

from __future__ import annotations

from typing import Final

from seatrial.raft.config import RaftConfig
from seatrial.sim.case import Case, Fault
from seatrial.sim.faults import KINDS
from seatrial.transport.filters.table import RULES

LEASE_DRIFT_PPM: Final = RaftConfig(node_id=1).lease_drift_ppm  # type: ignore[arg-type]
# An election asks for a vote and for its answer, and for a sync on each side; it may be unlucky once.
ROUNDS_IN_A_TIMEOUT: Final = 3
CATCH_UP_FACTOR: Final = 4  # a healed node must be sent entries so many times as fast as clients make them
ENTRY_OVERHEAD_BYTES: Final = 64
BASE_LOSS_MAX: Final = 0.25
TAIL_MAX: Final = 0.2
LEAVING: Final = frozenset({"remove", "replace", "joint-explicit"})


def malformed(case: Case) -> str | None:
    """What in the case means nothing at its level, for cases that people write; None if all is well."""
    if not 1 <= case.nodes <= 9 or not 0 <= case.spares <= 4:
        return f"nodes = {case.nodes}, spares = {case.spares}: a case has 1 to 9 nodes and up to 4 spares"
    if case.duration_us <= 0:
        return f"duration_us = {case.duration_us}: it must be positive"
    for number, fault in enumerate(case.faults):
        complaint = _malformed_fault(case, fault)
        if complaint is not None:
            return f"fault {number} ({fault.kind} at {fault.at_us / 1e6:g} s): {complaint}"
    return None


def _malformed_fault(case: Case, fault: Fault) -> str | None:
    kind = KINDS.get(fault.kind)
    if kind is None:
        return f"there is no such kind; there are: {', '.join(KINDS)}"
    if case.level not in kind.levels:
        return f"not possible at level {case.level}; it is at: {', '.join(sorted(kind.levels))}"
    if kind.modes and fault.mode not in kind.modes:
        return f"mode {fault.mode!r} is none of {', '.join(kind.modes)}"
    if fault.kind == "filter" and fault.mode not in RULES:
        return f"there is no message filter {fault.mode!r}; there are: {', '.join(RULES)}"
    if fault.at_us < 0 or fault.duration_us < 0:
        return "its times must not be negative"
    if kind.scope == "links" and not fault.links:
        return "it needs links, as pairs (from, to)"
    if kind.scope == "nodes" and not fault.nodes:
        return "it needs nodes"
    everyone = range(1, case.nodes + case.spares + 1)
    for node in (*fault.nodes, *(node for link in fault.links for node in link)):
        if node not in everyone:
            return f"there is no node {node}; there are 1 to {everyone[-1]}, spares included"
    return None


def over_budget(case: Case) -> str | None:
    """Why a violation under this case would not surely be a bug; None if it would."""
    return _lies(case) or _damage(case) or _leases(case) or _timing(case) or _base_network(case)


def _lies(case: Case) -> str | None:
    for fault in case.faults:
        if fault.kind == "filter" and not RULES[fault.mode].fair:
            return f"the message filter {fault.mode} tells lies, which Raft does not claim to survive"
    return None


def _damage(case: Case) -> str | None:
    damaged: set[int] = set()
    leavers: set[int] = set()
    for fault in case.faults:
        if KINDS[fault.kind].damaging:
            damaged.update(fault.nodes)
        if fault.kind == "membership" and fault.mode in LEAVING and fault.nodes[0] <= case.nodes:
            leavers.add(fault.nodes[0])
    if not damaged:
        return None  # who leaves loses nothing: the protocol alone decides who may
    if max(damaged) > case.nodes:
        return f"spare {max(damaged)} loses durable data: only first members may"
    minority = (case.nodes - 1) // 2
    if len(damaged | leavers) > minority:
        gone = f"{sorted(damaged)} lose durable data" + (f" and {sorted(leavers)} are removed" if leavers else "")
        return f"nodes {gone}: together more than a minority of {case.nodes}"
    return None


def _leases(case: Case) -> str | None:
    if not case.raft.lease_reads:
        return None
    if not case.raft.check_quorum:
        return "lease_reads needs check_quorum: without it nobody promises not to elect another leader"
    fastest = max((abs(fault.value) for fault in case.faults if fault.kind == "clock-drift"), default=0.0)
    apart = 2 * (case.drift_ppm + fastest)
    if apart >= LEASE_DRIFT_PPM:
        return f"clock rates may differ by {apart:g} ppm, and leases allow less than {LEASE_DRIFT_PPM}"
    return None


def round_us(case: Case) -> int:
    """How long a request, its sync and its answer may take on the links and disks as they are without faults."""
    return 2 * case.network.delay_us[1] + 2 * case.disk.sync_us[1]


def _timing(case: Case) -> str | None:
    raft, load = case.raft, case.load
    if not 0 < raft.heartbeat_us * 2 <= raft.election_timeout_us:
        return f"heartbeat_us ({raft.heartbeat_us}) must be at most half of the election timeout"
    least = ROUNDS_IN_A_TIMEOUT * round_us(case)
    if raft.election_timeout_us < least:
        return f"an election timeout of {raft.election_timeout_us} µs on links and disks that need {least} µs"
    entry_bytes = load.payload_bytes + ENTRY_OVERHEAD_BYTES
    entries_a_round = raft.max_inflight_messages * max(1, raft.max_message_bytes // entry_bytes)
    needed = CATCH_UP_FACTOR * load.rate * round_us(case) / 1e6
    if entries_a_round < needed:
        return f"a follower is sent {entries_a_round} entries a round trip, and needs {needed:.0f} to catch up"
    return None


def _base_network(case: Case) -> str | None:
    network = case.network
    if network.loss > BASE_LOSS_MAX or network.duplicate > BASE_LOSS_MAX or network.tail > TAIL_MAX:
        return f"the network is never healed of loss above {BASE_LOSS_MAX} or a tail above {TAIL_MAX}"
    return None

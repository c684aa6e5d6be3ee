"""Runs one case at the core level: faults and load, then recovery, then a power cut of everything, then the verdict.

Rule: the outcome is a function of the case alone.  The first broken promise ends the run; an exception in a node is one
("crash"), as is a run without end ("event-storm") and a cluster that does not recover ("liveness").
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from seatrial import marks
from seatrial.checkers.base import Evidence, Validity
from seatrial.checkers.linearizability import Linearizability
from seatrial.sim.case import Case, Outcome, Violation
from seatrial.sim.core.adapter import MakeCore, make_raft_node
from seatrial.sim.core.cluster import CoreCluster, NotReached
from seatrial.sim.core.ledger import SafetyViolation
from seatrial.sim.core.nemesis import Nemesis
from seatrial.sim.core.recovery import (
    await_end_of_changes,
    change_members_again,
    compare_replicas,
    connected_core,
    find_acknowledged,
    recover,
)
from seatrial.sim.world import EVENTS_MAX, EventStorm


def run_case(
    case: Case,
    *,
    trace: Callable[[str], None] | None = None,
    make_core: MakeCore = make_raft_node,
    events_max: int = EVENTS_MAX,
) -> Outcome:
    """Run it, and judge it.  `trace` gets one line for each message, timer, save and fault.

    make_core: makes the nodes' consensus cores; another than Seatrial's own is put in as `adapter` says.
    events_max: a run that has more is a message storm.

    Raises ValueError for a case that is not of this level, or has a fault that this level does not know.
    """
    if case.level != "core":
        raise ValueError(f"this is a case of the level {case.level!r}; run it with seatrial.sim.{case.level}")
    marks.taken()
    cluster = CoreCluster(case, trace=trace, make_core=make_core)
    cluster.world.events_max = events_max
    nemesis = Nemesis(cluster)
    violation = _violation_of(cluster, nemesis) or _nonlinearizable(cluster)
    if violation is not None:
        cluster.say(f"VIOLATION {violation.name}: {violation.message}")
    counts = cluster.recorder.counts
    # Not the violation's words: they may hold addresses, and paths of this machine.
    broken = "" if violation is None else f"{violation.name} at {violation.at_us}"
    cluster.digest.text(f"{cluster.describe()} {sorted(counts.items())} {broken}")
    reached = marks.taken()
    if violation is not None:
        for host in cluster.hosts.values():
            host.condemn()
        nemesis.end()
    return Outcome(
        violations=() if violation is None else (violation,),
        digest=cluster.digest.hexdigest(),
        events=cluster.world.events,
        virtual_us=cluster.world.now_us,
        operations=dict(counts),
        bit=nemesis.bit(),
        marks=reached,
    )


def _violation_of(cluster: CoreCluster, nemesis: Nemesis) -> Violation | None:
    """Live through the whole case; the first broken promise."""
    name = "crash"
    try:
        cluster.add_clients()
        cluster.run_for(cluster.case.duration_us)
        nemesis.end()
        _recover_all(cluster)
    except SafetyViolation as broken:
        return broken.violation
    except EventStorm as storm:
        name, message = "event-storm", str(storm)
    except NotReached as late:
        name, message = "liveness", str(late)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        # Frames and not line numbers of this module: the detail is for people, the digest leaves it out.
        detail = {"traceback": traceback.format_exc()}
        return Violation(name=name, message=message, at_us=cluster.world.now_us, detail=detail)
    else:
        return None
    return Violation(name=name, message=message, at_us=cluster.world.now_us)


def _recover_all(cluster: CoreCluster) -> None:
    for client in cluster.clients:
        client.stop()
    cluster.say("the faults are over: a connected core must recover")
    cluster.network.calm()
    cluster.forget_messages()  # or a configuration under way could need more nodes than the core has
    core = connected_core(cluster)
    others = [node_id for node_id in cluster.hosts if node_id not in core]
    cut = cluster.cut(*(pair for pair in cluster.network.links if pair[0] in others or pair[1] in others))
    recover(cluster, core)
    cluster.remove(cut)
    cluster.say("everything is healed")
    recover(cluster, list(cluster.hosts))
    await_end_of_changes(cluster)
    compare_replicas(cluster)
    cluster.say("a power cut of everything")
    for host in cluster.hosts.values():
        host.crash("lost")
    cluster.run_for(1_000)
    for host in cluster.hosts.values():
        host.start()
    recover(cluster, list(cluster.hosts))
    change_members_again(cluster)
    cluster.check()
    compare_replicas(cluster)
    find_acknowledged(cluster)


def _nonlinearizable(cluster: CoreCluster) -> Violation | None:
    history = cluster.recorder.history()
    if not len(history):
        return None
    verdict = Linearizability(initial=None).check(Evidence(history=history))
    if verdict.validity is Validity.VALID:
        return None
    now = cluster.world.now_us
    if verdict.validity is Validity.UNKNOWN:
        return Violation(name="undecided", message=verdict.reason, at_us=now)
    anomaly = verdict.anomalies[0]
    at_us = now if anomaly.time_ns is None else anomaly.time_ns // 1000
    return Violation(name=anomaly.name, message=anomaly.message, at_us=at_us, detail=dict(anomaly.detail))

"""A realistic run directory, made up from a seed: faults, elections, thousands of operations, anomalies, logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from seatrial.env import Rng
from seatrial.history import FaultEvent, Json, Op, OpType, StatusSample, to_json
from seatrial.rundir import RunDirectory

GROUPS = ("metadata", "kv", "log/0", "log/1", "log/2", "log/3")
NODES = (1, 2, 3)
MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Outage:
    """A fault with what it does to the node that it hits first."""

    begin_ns: int
    end_ns: int
    kind: str
    node: int


class SyntheticRun:
    """Writes a run directory; the same arguments give the same files."""

    def __init__(self, root: Path, *, seconds: float = 30.0, rate: float = 400.0, seed: int = 7) -> None:
        self.run = RunDirectory(root)
        self.rng = Rng(seed)
        self.seconds = seconds
        self.rate = rate
        self.end_ns = int(seconds * 1e9)
        self.outages = self._outages()
        self.ops: list[Op] = []

    def write(self, validity: str = "VALID") -> RunDirectory:
        """Everything; "UNFINISHED" leaves out the verdict and tears the last line of the history."""
        self.run.root.mkdir(parents=True, exist_ok=True)
        self._history()
        anomalies = self._anomalies() if validity == "INVALID" else []
        self._lines(self.run.history, self.ops)
        self._lines(self.run.faults, self._fault_events())
        self._lines(self.run.status, self._statuses())
        self.run.trial.write_text('system = "own"\nseed = 7\n', encoding="utf-8")
        for node in NODES:
            self.run.node(node).mkdir(parents=True)
            (self.run.node(node) / "stdout.log").write_text("")
            (self.run.node(node) / "stderr.log").write_text(self._log(node), encoding="utf-8")
        if validity == "UNFINISHED":
            with self.run.history.open("a", encoding="utf-8") as file:
                file.write('{"index":99999999,"time_ns":1,"cli')
        else:
            self.run.verdict.write_text(json.dumps(self._verdict(validity, anomalies)), encoding="utf-8")
        return self.run

    def _outages(self) -> list[Outage]:
        kinds = ("partition", "kill", "pause", "latency")
        found = []
        at = 1.2
        while at + 2.2 < self.seconds:
            length = self.rng.uniform(1.1, 1.9)
            kind = kinds[len(found) % len(kinds)]
            found.append(Outage(int(at * 1e9), int((at + length) * 1e9), kind, self.rng.choice(NODES)))
            at += length + self.rng.uniform(0.6, 1.1)
        return found

    def _down(self, node: int, at_ns: int) -> bool:
        return any(
            o.node == node and o.begin_ns <= at_ns < o.end_ns and o.kind in ("kill", "pause") for o in self.outages
        )

    def _leader(self, group: int, at_ns: int) -> tuple[int | None, int]:
        """(leader, term): a leader that is hit is replaced half a second later."""
        leader, term = NODES[group % 3], 1
        for outage in self.outages:
            if outage.begin_ns > at_ns:
                break
            if outage.node == leader and outage.kind != "latency":
                term += 1
                if at_ns < outage.begin_ns + 500 * MS + group * 40 * MS:
                    return None, term
                leader = NODES[leader % 3]
        return leader, term

    def _statuses(self) -> list[StatusSample]:
        samples = []
        for at_ns in range(0, self.end_ns, 150 * MS):
            for node in NODES:
                if self._down(node, at_ns):
                    samples.append(StatusSample(time_ns=at_ns, node=node, group="metadata", error="no answer"))
                    continue
                for place, group in enumerate(GROUPS):
                    leader, term = self._leader(place, at_ns)
                    role = "leader" if leader == node else "candidate" if leader is None and node == 2 else "follower"
                    samples.append(
                        StatusSample(
                            time_ns=at_ns, node=node, group=group, role=role, term=term, leader=leader,
                            commit_index=at_ns // MS, last_applied=at_ns // MS, last_index=at_ns // MS, incarnation=1,
                        )
                    )  # fmt: skip
        return samples

    def _fault_events(self) -> list[FaultEvent]:
        events = []
        for number, outage in enumerate(self.outages):
            others = ",".join(str(n) for n in NODES if n != outage.node)
            words = {
                "partition": f"{{{outage.node}}} from {{{others}}}",
                "latency": f"80 ms ± 20 ms on all links of node {outage.node}",
            }.get(outage.kind, f"node {outage.node}")
            evidence: dict[str, Json] = {
                "partition": {"bytes_held": self.rng.integer(2000, 90_000), "links": 4},
                "kill": {"exit_status": -9, "old_pid": 4000 + number, "new_pid": 4400 + number},
                "pause": {"process_state": "T"},
                "latency": {"bytes_delayed": self.rng.integer(2000, 90_000)},
            }[outage.kind]
            bit = not (outage.kind == "latency" and number == 3)
            shared = {"id": number + 1, "fault": outage.kind, "description": words, "targets": (outage.node,)}
            events.append(FaultEvent(time_ns=outage.begin_ns, type="inject", **shared))
            events.append(
                FaultEvent(time_ns=outage.end_ns, type="heal", bit=bit, evidence=evidence if bit else None, **shared)
            )
        events.append(
            FaultEvent(
                time_ns=self.end_ns - 5 * MS, type="skip", id=len(self.outages) + 1, fault="kill",
                description="node 1", targets=(1,), reason="the run was about to end",
            )
        )  # fmt: skip
        return sorted(events, key=lambda event: event.time_ns)

    def _history(self) -> None:
        """Closed-loop clients: 6 on the log, 6 on registers."""
        events: list[tuple[int, int, OpType, dict[str, Json]]] = []
        number = 0
        for client in range(12):
            at_ns = client * 3 * MS
            logical = client
            while at_ns < self.end_ns:
                fields, length_ns, outcome, answer = self._operation(client, number, at_ns)
                number += 1
                events.append((at_ns, logical, OpType.INVOKE, fields))
                done = {**fields, **answer}
                events.append((at_ns + length_ns, logical, outcome, done))
                logical = 100 + number if outcome is OpType.INFO else logical
                at_ns += max(length_ns, int(12e9 / self.rate * self.rng.uniform(0.7, 1.3)))
        events.sort(key=lambda event: (event[0], event[1]))
        for index, (at_ns, client, kind, fields) in enumerate(events):
            self.ops.append(Op(index=index, time_ns=at_ns, client=client, type=kind, **fields))

    def _operation(self, client: int, number: int, at_ns: int) -> tuple[dict[str, Json], int, OpType, dict[str, Json]]:
        group = client % 4 + 2 if client < 6 else 1
        leader, _ = self._leader(group, at_ns)
        slow = any(o.kind == "latency" and o.begin_ns <= at_ns < o.end_ns for o in self.outages)
        length_ns = int((80 * MS if slow else 0) + MS * (1.5 + 8 * self.rng.random() ** 6))
        if client < 6:
            fields: dict[str, Json] = {"f": "append" if client < 4 else "poll", "key": f"log/{group - 2}"}
            fields["value"] = number if client < 4 else None
            answer: dict[str, Json] = {"value": [number, number] if client < 4 else [[number, number]]}
        else:
            kind = self.rng.choice(("read", "read", "write", "cas"))
            fields = {"f": kind, "key": f"kv.{number // 600}"}
            fields["value"] = {"read": None, "write": number, "cas": [number - 1, number]}[kind]
            answer = {"value": number - 1} if kind == "read" else {}
        if leader is None or self._down(leader, at_ns):
            if self.rng.chance(0.6):
                return fields, 1500 * MS // 4, OpType.INFO, {"error": "node 2: ReadTimeout"}
            return fields, 40 * MS, OpType.FAIL, {"error": "node 1: HTTP 503 no leader"}
        if fields["f"] == "cas" and self.rng.chance(0.3):
            return fields, length_ns, OpType.FAIL, {"error": "mismatch"}
        return fields, length_ns, OpType.OK, answer | {"node": self.rng.choice(NODES)}

    def _anomalies(self) -> list[dict[str, Json]]:
        reads = [op for op in self.ops if op.f == "read" and op.type is OpType.OK]
        writes = [op for op in self.ops if op.f == "write" and op.type is OpType.OK]
        read = reads[len(reads) * 2 // 3]
        before = [w for w in writes if w.time_ns < read.time_ns - 20 * MS][-2:]
        read = self.ops[read.index] = replace(read, value=before[0].value)
        swap = next(op for op in self.ops if op.f == "cas" and op.type is not OpType.INVOKE)
        unknown = self.ops[swap.index] = replace(swap, type=OpType.INFO, error="node 2: ReadTimeout")
        appended = next(op for op in self.ops if op.f == "append" and op.type is OpType.OK)
        return [
            {
                "name": "nonlinearizable",
                "message": f"node {read.node} answered a linearizable read on key {read.key} with {read.value} "
                f"although {before[-1].value} had been written and acknowledged before the read began",
                "ops": [w.index for w in before] + [unknown.index, read.index],
                "key": read.key, "node": read.node, "time_ns": read.time_ns,
                "detail": {"kind": "stale-read", "core": [{"op": 1, "certain": True}]},
            },
            {
                "name": "lost-write",
                "message": f"value {appended.value[1]} was acknowledged at offset {appended.value[0]} of log/0, "
                "and a complete final read of node 3 does not have it",
                "ops": [appended.index], "key": appended.key, "node": 3, "time_ns": appended.time_ns, "detail": {},
            },
        ]  # fmt: skip

    def _verdict(self, validity: str, anomalies: list[dict[str, Json]]) -> dict[str, Json]:
        names = (
            "linearizability (kv)", "partition-log (log)", "raft-invariants", "replica-equality",
            "availability", "assumptions",
        )  # fmt: skip
        stats = {"operations": len(self.ops) // 2, "keys": 21, "longest_unavailability_s": 0.8312}
        checkers = [
            {"checker": name, "validity": "VALID", "reason": "", "stats": stats, "anomalies": []} for name in names
        ]
        for checker, anomaly in zip(checkers, anomalies, strict=False):
            checker |= {"validity": "INVALID", "anomalies": [anomaly]}
        if validity == "UNKNOWN":
            checkers[-1] |= {"validity": "UNKNOWN", "reason": "no pause left evidence that it bit"}
        count = {kind: sum(o.kind == kind for o in self.outages) for kind in ("partition", "kill", "pause", "latency")}
        return {
            "validity": validity, "seed": 7, "system": "own", "environment": "local",
            "replay": "seatrial run --system own --workload log,kv --faults partition,kill --duration 30s --seed 7",
            "started": "2026-11-21T04:30:00Z", "duration_s": self.seconds, "workloads": ["log", "kv"],
            "stats": {"operations": len(self.ops) // 2, "ports": "127.77.13.0/24"},
            "checkers": checkers,
            "faults": {"injected": count, "bit": count}, "assumptions": [],
        }  # fmt: skip

    def _log(self, node: int) -> str:
        events = (
            {"time_ms": 1000 * place, "event": "role_changed", "group": "kv", "term": place, "node": node}
            for place in range(30)
        )
        return "".join(json.dumps(event) + "\n" for event in events)

    @staticmethod
    def _lines(path: Path, records: list[Op] | list[FaultEvent] | list[StatusSample]) -> None:
        path.write_text("".join(to_json(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def synthetic(tmp_path: Path) -> Callable[..., SyntheticRun]:
    """Makes runs in a directory of the test."""

    def make(**settings: float) -> SyntheticRun:
        return SyntheticRun(tmp_path / "run", **settings)  # type: ignore[arg-type]

    return make

"""The workloads by name: for `--workload log,kv` and `seatrial list workloads`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seatrial.workloads.base import Workload
from seatrial.workloads.etcd_txn import TxnWorkload
from seatrial.workloads.kafka_groups import GroupsWorkload
from seatrial.workloads.kafka_log import LogWorkload, ReadFrom
from seatrial.workloads.kv_register import KvWorkload

_MAKERS: Mapping[str, tuple[Callable[[], Workload], str]] = {
    "log": (LogWorkload, "append unique values to a Kafka topic, poll them, read everything from every node"),
    "kv": (KvWorkload, "read, write and compare-and-set registers over HTTP (our API or etcd's gateway)"),
    "groups": (GroupsWorkload, "consumer groups: members share a topic, commit and join anew; nothing is lost to them"),
    "kv-txn": (TxnWorkload, "etcd transactions that compare a range of 1,000 keys and put one of them"),
}


# For one thread and virtual time; as often a second as a simulation keeps up with.
_SIMULATED: Mapping[str, Callable[[Callable[[], Any], ReadFrom], Workload]] = {
    "log": lambda _, read_from: LogWorkload(threads=False, appenders=4, pollers=2, rate=40.0, read_from=read_from),
    "groups": lambda *_: GroupsWorkload(appenders=2, members=3, rate=40.0),
    "kv": lambda open_http, _: KvWorkload(clients=6, rate=40.0, per_key=150, open_http=open_http),
}


class UnknownWorkload(ValueError):
    """No workload has this name; the message lists those there are."""


def names() -> dict[str, str]:
    """Each workload's name with one line on what it does."""
    return {name: line for name, (_, line) in _MAKERS.items()}


def by_name(name: str) -> Workload:
    """A fresh workload.  Raises UnknownWorkload."""
    if name not in _MAKERS:
        raise UnknownWorkload(f"there is no workload {name!r}; choose from {', '.join(_MAKERS)}")
    return _MAKERS[name][0]()


def by_names(spec: str, *, read_from: ReadFrom = "leader") -> tuple[Workload, ...]:
    """Fresh workloads for "log,kv"; `read_from` is about the log.

    Raises UnknownWorkload, also when nothing or one of them twice is named.
    """
    wanted = _readable(_wanted(spec), read_from)
    return tuple(LogWorkload(read_from=read_from) if name == "log" else by_name(name) for name in wanted)


def simulated(spec: str, open_http: Callable[[], Any], *, read_from: ReadFrom = "leader") -> tuple[Workload, ...]:
    """The same for the simulator.  `open_http` opens an HTTP client that is cheap there.  Raises UnknownWorkload."""
    wanted = _readable(_wanted(spec), read_from)
    for name in wanted:
        by_name(name)
        if name not in _SIMULATED:
            raise UnknownWorkload(f"workload {name!r} cannot be simulated; these can: {', '.join(_SIMULATED)}")
    return tuple(_SIMULATED[name](open_http, read_from) for name in wanted)


def _readable(wanted: list[str], read_from: ReadFrom) -> list[str]:
    if read_from != "leader" and "log" not in wanted:
        raise UnknownWorkload(f"reading from {read_from} is for the workload log: name it, or leave --read-from out")
    return wanted


def _wanted(spec: str) -> list[str]:
    wanted = [name.strip() for name in spec.split(",") if name.strip()]
    if not wanted:
        raise UnknownWorkload(f"no workload was named; choose from {', '.join(_MAKERS)}")
    for name in wanted:
        if wanted.count(name) > 1:
            raise UnknownWorkload(f"workload {name!r} is named twice; its keys would collide")
    return wanted

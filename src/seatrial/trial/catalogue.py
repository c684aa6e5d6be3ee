"""`seatrial list`: what there is, in one line each, and what this machine lacks for it."""

from __future__ import annotations

import json as json_library
from collections.abc import Callable, Mapping

from seatrial import checkers
from seatrial.cluster.drivers import registry as systems
from seatrial.faults import registry as faults
from seatrial.trial.model import ENVIRONMENTS, BadTrial
from seatrial.workloads import registry as workloads


def _systems() -> dict[str, str]:
    return {entry.name: _line(entry.summary, entry.unavailable) for entry in systems.systems()}


def _faults() -> dict[str, str]:
    return {entry.name: _line(entry.summary, entry.unavailable) for entry in faults.entries()}


def _line(summary: str, unavailable: str | None) -> str:
    return summary if unavailable is None else f"not available: {unavailable}"


_LISTS: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "systems": _systems,
    "faults": _faults,
    "workloads": workloads.names,
    "checkers": checkers.names,
    "environments": lambda: ENVIRONMENTS,
}


def catalogue_command(what: str, *, json: bool) -> int:
    """Print one list.  Raises BadTrial for an unknown one."""
    if what not in _LISTS:
        raise BadTrial(f"there is no list of {what!r}; there are: {', '.join(_LISTS)}")
    entries = _LISTS[what]()
    if json:
        print(json_library.dumps(dict(entries)))
        return 0
    width = max(map(len, entries))
    for name, line in entries.items():
        print(f"{name:<{width}}  {line}")
    return 0

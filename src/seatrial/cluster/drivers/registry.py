"""The systems there are, by name.

Rule: a driver is in this table or is described by a TOML file; nothing registers itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.cluster.drivers.base import Driver
from seatrial.cluster.drivers.etcd import EtcdDriver
from seatrial.cluster.drivers.own import OwnDriver
from seatrial.cluster.drivers.template import TemplateDriver

DRIVERS: Mapping[str, Callable[[str | None, Mapping[str, Any]], Driver]] = {
    "own": OwnDriver,
    "etcd": EtcdDriver,
}


@dataclass(frozen=True, slots=True)
class SystemEntry:
    """One line of `seatrial list systems`; `unavailable` says why it cannot run here, or is None."""

    name: str
    summary: str
    unavailable: str | None


def by_name(system: str, version: str | None, options: Mapping[str, Any]) -> Driver:
    """The driver of a system, or of the TOML file at this path.  Raises ValueError that says what there is."""
    if system in DRIVERS:
        return DRIVERS[system](version, options)
    if system.endswith(".toml"):
        if version is not None:
            raise ValueError(f"a system from a file has no version to choose; write it into {system}")
        return TemplateDriver(Path(system), options)
    known = ", ".join(sorted(DRIVERS))
    raise ValueError(f"there is no system {system!r}; there are: {known}, or the path of a .toml file for any other")


def systems() -> tuple[SystemEntry, ...]:
    """Every system, for people."""
    entries = [
        SystemEntry(name, _summary(driver), driver(None, {}).unavailable()) for name, driver in sorted(DRIVERS.items())
    ]
    return (*entries, SystemEntry("FILE.toml", _summary(TemplateDriver), None))


def _summary(driver: object) -> str:
    return (inspect.getdoc(driver) or "").splitlines()[0]

"""What cluster to start, as data.

Rule: two equal specs start clusters that differ in nothing but addresses, process ids and time.
Knows nothing of how it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENVIRONMENTS = ("local",)
NODES_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """A cluster: which system, how many nodes, where, and with which settings.

    `system`: a driver's name (`own`, `etcd`), or the path of a TOML file (drivers/template.py).
    `version`: of the system; None takes what is installed.  `options`: the driver's own, see there.
    `links`: whether the nodes talk through proxies, which network faults need.
    `toxiproxy`: URL of a running Toxiproxy server to use instead of the built-in one.
    `directory`: the run directory; None makes a temporary one, which is removed at the end.
    """

    system: str = "own"
    nodes: int = 3
    version: str | None = None
    environment: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    links: bool = True
    toxiproxy: str | None = None
    seed: int = 0
    directory: Path | None = None
    start_timeout: float = 20.0  # seconds for a node to answer after its start

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise ValueError(f"a cluster has 1 to {NODES_MAX} nodes, not {self.nodes}")
        if self.environment not in ENVIRONMENTS:
            known = ", ".join(ENVIRONMENTS)
            raise ValueError(f"there is no environment {self.environment!r} for processes; choose one of: {known}")
        if self.toxiproxy is not None and not self.links:
            raise ValueError("toxiproxy makes no sense with links=False: leave one of them out")

"""Writes down every fault of a scenario, as a trial's nemesis does, whoever carries it out.

Rule: each `inject` has its `heal`, with the evidence, in the order of one clock; a node that is down counts as a fault
until it is started.
Knows nothing of how faults are carried out.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from seatrial.cluster.cluster import LinkControl
from seatrial.cluster.connectivity import Cuts, Link
from seatrial.cluster.links import LinkFault
from seatrial.faults.base import Injection
from seatrial.history import FaultEvent
from seatrial.scenario.records import Records

# What the proxies' toxics are called in plans and reports.
NAMES: Mapping[str, str] = {"hold": "partition", "reset_peer": "reset"}


class FaultLog:
    """The faults of one cluster.  majority: the nodes that are up and all connected now, if they are one."""

    def __init__(self, records: Records, majority: Callable[[], tuple[int, ...] | None]) -> None:
        self._records = records
        self._majority = majority
        self._numbers = 0
        self._open: dict[tuple[str, int], int] = {}  # (fault, node): number of what lasts until it is healed by name

    def inject(self, fault: str, description: str, targets: Sequence[int]) -> int:
        """Its number, for `heal`."""
        self._numbers += 1
        self._note("inject", self._numbers, fault, description=description, targets=tuple(targets))
        return self._numbers

    def heal(self, number: int, fault: str, description: str, targets: Sequence[int], **evidence: Any) -> None:
        """bit, evidence: as in `FaultEvent`."""
        self._note("heal", number, fault, description=description, targets=tuple(targets), **evidence)

    def begin(self, fault: str, node: int) -> None:
        """Something that lasts until `end`; nothing where it lasts already."""
        if (fault, node) not in self._open:
            self._open[fault, node] = self.inject(fault, f"{fault} node {node}", (node,))

    def end(self, faults: Sequence[str], node: int) -> None:
        """Whatever of these lasts on the node is over."""
        for fault in faults:
            number = self._open.pop((fault, node), None)
            if number is not None:
                self.heal(number, fault, f"{fault} node {node}", (node,), bit=True)

    def _note(self, type: str, number: int, fault: str, **fields: Any) -> None:
        event = FaultEvent(
            time_ns=self._records.now_ns(), type=type, id=number, fault=fault, majority=self._majority(), **fields
        )
        self._records.faults.append(event)

    @contextlib.asynccontextmanager
    async def recorded(self, fault: str, context: AbstractAsyncContextManager[Injection]) -> AsyncIterator[Injection]:
        """The context of a fault, written down."""
        injection: Injection | None = None
        number = 0
        try:
            async with context as injection:
                number = self.inject(fault, injection.description, injection.targets)
                yield injection
        finally:
            if injection is not None:
                self.heal(
                    number,
                    fault,
                    injection.description,
                    injection.targets,
                    bit=injection.bit,
                    evidence=injection.evidence,
                )


class RecordedLinks:
    """Implements `cluster.LinkControl`: the given one, written down."""

    def __init__(self, links: LinkControl, log: FaultLog) -> None:
        self.cuts: Cuts = links.cuts
        self._links = links
        self._log = log

    async def clean(self) -> None:
        await self._links.clean()

    @contextlib.asynccontextmanager
    async def applied(
        self, kind: str, attributes: Mapping[str, int | float], links: Sequence[Link]
    ) -> AsyncIterator[LinkFault]:
        name = NAMES.get(kind, kind)
        targets = tuple(sorted({node for link in links for node in link}))
        with_what = "".join(f" {word} {value:g}" for word, value in attributes.items() if value)
        description = f"{name}{with_what} of {', '.join(f'{a}>{b}' for a, b in links)}"
        number = 0
        fault: LinkFault | None = None
        try:
            async with self._links.applied(kind, attributes, links) as fault:
                number = self._log.inject(name, description, targets)
                yield fault
        finally:
            if fault is not None:
                evidence = {**fault.evidence, "links": fault.by_link}
                self._log.heal(number, name, description, targets, bit=fault.bit, evidence=evidence)

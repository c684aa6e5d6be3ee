"""Test hooks: the node's message filters over HTTP, only with `--test-hooks`.

    POST   /api/v1/test/filters              {"rule": "drop-appends", "value": 3, "to": [2], …}: attach; answers its id
    GET    /api/v1/test/filters              what is attached, with counters; and which rules there are
    POST   /api/v1/test/filters/{id}/release let go what it holds
    DELETE /api/v1/test/filters/{id}         detach (?release=false loses what it holds); answers the counters
    DELETE /api/v1/test/filters              detach all

Rule: every change is in the log as a warning, so that nobody takes a node that was tampered with for an honest one.
Knows nothing of what messages do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from seatrial.env import Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Message
from seatrial.server.errors import BadFilter, NoSuchFilter
from seatrial.server.logs import Logger
from seatrial.transport.filters.filter_set import ActiveFilter, FilterSet
from seatrial.transport.filters.scope import Filter
from seatrial.transport.filters.table import KINDS, RULES, named


class FilterRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """What to attach.

    rule, value: of `transport.filters.RULES`.  from_, to: node ids; empty means any.  messages: names of types, fewer
    than the rule is for.  group: a Raft group's name as in /api/v1/raft/info; "" means all.  seed: of its stream.
    """

    rule: str
    value: float = 0
    from_: tuple[int, ...] = ()
    to: tuple[int, ...] = ()
    messages: tuple[str, ...] = ()
    side: Literal["send", "receive"] = "send"
    group: str = ""
    seed: int = 0


TYPES: Final[Mapping[str, type[Message]]] = {message.__name__: message for types in KINDS.values() for message in types}


class TestHooks:
    """The filters that tests attached to this node, by id, from 1."""

    __test__ = False  # not a test, whatever its name says to pytest

    def __init__(
        self,
        filters: FilterSet,
        node_id: NodeId,
        group_named: Callable[[str], GroupId | None],
        logger: Logger,
    ) -> None:
        self._filters = filters
        self._node_id = node_id
        self._group_named = group_named
        self._logger = logger
        self._requests: dict[int, FilterRequest] = {}
        self._active: dict[int, ActiveFilter] = {}

    def attach(self, body: bytes) -> dict[str, Any]:
        """Attach what the JSON says.  Raises BadFilter."""
        try:
            request = msgspec.json.decode(body, type=FilterRequest)
        except msgspec.MsgspecError as error:
            raise BadFilter(f'{error}; write for example {{"rule": "drop-appends", "value": 3, "to": [2]}}') from None
        active = self._filters.attach(self._described(request))
        self._requests[active.number], self._active[active.number] = request, active
        self._logger.warning("TEST_HOOKS", message="a message filter is attached", filter=self._told(active.number))
        return self._told(active.number)

    def _described(self, request: FilterRequest) -> Filter:
        unknown = sorted(set(request.messages) - TYPES.keys())
        if unknown:
            raise BadFilter(f"there are no messages {', '.join(unknown)}; there are: {', '.join(TYPES)}")
        try:
            described = named(
                request.rule,
                request.value,
                Rng(request.seed).child(f"node {self._node_id}"),
                senders=frozenset(request.from_) or None,
                receivers=frozenset(request.to) or None,
                side=request.side,
                types=tuple(TYPES[name] for name in request.messages),
            )
        except ValueError as error:
            raise BadFilter(str(error)) from None
        if not request.group:
            return described
        group = self._group_named(request.group)
        if group is None:
            raise BadFilter(f"this node has no group {request.group!r}; GET /api/v1/raft/info lists its groups")
        return described.of_group(group)

    def release(self, number: int) -> dict[str, Any]:
        """Let go what the filter holds.  Raises NoSuchFilter."""
        active = self._find(number)
        active.release()
        return self._told(number)

    def detach(self, number: int, *, release: bool) -> dict[str, Any]:
        """Take it away; its last counters.  Raises NoSuchFilter."""
        active = self._find(number)
        active.remove(release=release)
        told = self._told(number)
        del self._requests[number], self._active[number]
        self._logger.warning("TEST_HOOKS", message="a message filter is detached", filter=told)
        return told

    def detach_all(self, *, release: bool) -> dict[str, Any]:
        return {"filters": [self.detach(number, release=release) for number in sorted(self._active)]}

    def told(self) -> dict[str, Any]:
        """Everything that is attached, and the names of all rules with what their number means."""
        return {
            "filters": [self._told(number) for number in sorted(self._active)],
            "rules": {
                name: {"meaning": rule.meaning, "value": rule.value, "fair": rule.fair} for name, rule in RULES.items()
            },
        }

    def _find(self, number: int) -> ActiveFilter:
        active = self._active.get(number)
        if active is None:
            raise NoSuchFilter(number, sorted(self._active))
        return active

    def _told(self, number: int) -> dict[str, Any]:
        active = self._active[number]
        return {
            "id": number,
            **msgspec.to_builtins(self._requests[number]),
            "counters": dict(active.counters),
            "held": len(active.held),
            "bit": active.bit,
        }

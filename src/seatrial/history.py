"""What happened in a run, as plain records: operations, faults, node statuses; JSON Lines in and out.

Rule: records are only appended, in the order of one monotonic clock, and are the whole input of every checker:
whatever a verdict rests on can be read again from the run directory.
Knows nothing of clients, clusters or checkers.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

Json: TypeAlias = Any


class OpType(StrEnum):
    """How far an operation has come (Jepsen's words)."""

    INVOKE = "invoke"  # the client sent it
    OK = "ok"  # it took effect between invoke and here
    FAIL = "fail"  # it surely did not take effect, and never will
    INFO = "info"  # unknown: it may take effect at any time after its invocation, or never


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One event of an operation; an invocation and its completion share `client`, and a client runs one op at a time.

    A client whose operation ended as `info` never continues under the same number.
    `node` is the node that answered, where the client was pinned to one or could tell.
    """

    index: int
    time_ns: int  # since the run began, monotonic
    client: int
    type: OpType
    f: str  # "read", "write", "cas", "append", "poll", "final-read", ...
    key: str | None = None
    value: Json = None
    error: str | None = None
    node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultEvent:
    """One step in a fault's life, with the evidence that it bit."""

    time_ns: int
    type: str  # "inject", "heal", "skip" (did not run; `reason` says why)
    id: int  # the same for a fault's inject and heal
    fault: str  # "partition", "kill", ...
    description: str
    targets: tuple[int, ...] = ()  # node ids
    bit: bool | None = None  # on heal: whether evidence was found; None where not yet known
    evidence: Mapping[str, Json] | None = None
    reason: str | None = None
    majority: tuple[int, ...] | None = None  # after this event: nodes that are up and fully connected, if a majority is


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSample:
    """What one node said of one Raft group at one time, or that it did not answer (`role` is None)."""

    time_ns: int
    node: int
    group: str  # "metadata", "kv", "topic/0"; for other systems one name
    role: str | None = None  # "follower", "pre-candidate", "candidate", "leader"
    term: int | None = None
    leader: int | None = None
    commit_index: int | None = None
    last_applied: int | None = None
    last_index: int | None = None
    digest: str | None = None  # of the state at last_applied
    incarnation: int | None = None  # rises with every start of the node's process
    error: str | None = None


# Not `asdict`: it copies every value deeply, which takes longer than all the rest of writing a record down.
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in (Op, FaultEvent, StatusSample)}

Record = TypeVar("Record", Op, FaultEvent, StatusSample)


class History:
    """An append-only list of operations' events, in time order.

    A whole run's history has the indexes 0, 1, 2, …; a part of it (`select`) keeps the indexes of the whole, so that
    what a checker says of it names the run's own records.  `history[i]` is the event with the *index* i.
    """

    __slots__ = ("_ops", "_partial")

    def __init__(self, ops: Iterable[Op] = ()) -> None:
        self._ops: list[Op] = []
        self._partial = False
        for op in ops:
            self.append(op)

    def append(self, op: Op) -> None:
        assert not self._partial, "a selection of a history is not appended to"
        assert op.index == len(self._ops), f"op index {op.index} is not {len(self._ops)}"
        self._ops.append(op)

    def select(self, wanted: Callable[[Op], bool]) -> History:
        """The operations whose invocation is wanted, each with its completion, under their own indexes."""
        part = History()
        part._partial = True
        selected: set[int] = set()
        for op in self._ops:
            if op.type is OpType.INVOKE:
                (selected.add if wanted(op) else selected.discard)(op.client)
            if op.client in selected:
                part._ops.append(op)
        return part

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def __getitem__(self, index: int) -> Op:
        """The event with this index; negative ones count from the end.  Raises IndexError where there is none."""
        if not self._partial or index < 0:
            return self._ops[index]
        place = bisect_left(self._ops, index, key=lambda op: op.index)
        if place == len(self._ops) or self._ops[place].index != index:
            raise IndexError(f"this part of the history has no event {index}")
        return self._ops[place]

    def pairs(self) -> Iterator[tuple[Op, Op | None]]:
        """Each invocation with its completion, in the order of invocation; None where none was recorded."""
        completions: dict[int, Op] = {}
        open_ops: dict[int, int] = {}
        for op in self._ops:
            if op.type is OpType.INVOKE:
                open_ops[op.client] = op.index
            elif (invoked := open_ops.pop(op.client, None)) is not None:
                completions[invoked] = op
        for op in self._ops:
            if op.type is OpType.INVOKE:
                yield op, completions.get(op.index)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a JSON Lines file.  Raises MalformedRecord with file and line."""
        return cls(load_records(path, Op))


class MalformedRecord(ValueError):
    """A line of a stored file is not a record of the expected kind."""


def to_json(record: Op | FaultEvent | StatusSample) -> str:
    """One line of a JSON Lines file, without fields that are None."""
    told = {name: value for name in _FIELDS[type(record)] if (value := getattr(record, name)) is not None}
    return json.dumps(told, separators=(",", ":"))


def load_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read JSON Lines back.  Raises MalformedRecord that names the file and the line."""
    names = {f.name for f in fields(kind)}
    records: list[Record] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append(_from_json(json.loads(line), kind, names, default_index=len(records)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise MalformedRecord(f"{path}:{number}: not a {kind.__name__} record: {error}") from error
    return records


def _from_json(raw: dict[str, Json], kind: type[Record], names: set[str], *, default_index: int) -> Record:
    known = {k: v for k, v in raw.items() if k in names}
    if kind is Op:
        known["type"] = OpType(known["type"])
        known.setdefault("index", default_index)
        if known["index"] != default_index:
            raise ValueError(f"index {known['index']} where {default_index} was expected")
    for name in ("targets", "majority"):
        if isinstance(known.get(name), list):
            known[name] = tuple(known[name])
    return kind(**known)

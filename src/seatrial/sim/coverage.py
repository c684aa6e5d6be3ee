"""Which of the rare events that the code names were never reached: a search proves nothing about what it never got to.

Rule: the names are the literal texts in the source of the packages that a level runs; there is no second list of them.
Knows nothing of what the events mean.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Final

import seatrial
from seatrial.sim.case import Level

# What runs at a level; the core level has a state machine and storage of its own.
PACKAGES: Final[Mapping[Level, tuple[str, ...]]] = {
    "core": ("raft",),
    "full": ("raft", "storage", "transport", "machines", "kafka", "server"),
}

_MANY_GROUPS: Final = "groups fall quiet above 64 on a node, and cases have a dozen: tests/server/test_quiet.py"
_NEW_IDS: Final = "a wiped node comes back under a new id in simulation: tests/machines/test_members.py"
# What no case of a level can reach, whatever its seed, and where it is tested instead.
OUT_OF_REACH: Final[Mapping[Level, Mapping[str, str]]] = {
    "core": {},
    "full": {
        "an election was postponed because too many were under way": _MANY_GROUPS,
        "quiet groups woke because a majority of their nodes was silent": _MANY_GROUPS,
        "a quiet follower was reminded of its leader before it was asked for a vote": _MANY_GROUPS,
        "a quiet group's follower was told of a commit that it had missed": _MANY_GROUPS,
        "a node came back with another data directory and was refused": _NEW_IDS,
        "a node was told that it had lost its data directory": _NEW_IDS,
    },
}


@functools.cache
def marks_in_code(level: Level) -> Mapping[str, str]:
    """Every mark that this level could reach, with where it stands ("raft/log.py:238"), in the order of the code."""
    root = Path(seatrial.__file__).parent
    return {
        name: f"{path.relative_to(root)}:{line}"
        for package in PACKAGES[level]
        for path in sorted((root / package).rglob("*.py"))
        for name, line in _marks_of(path)
    }


def _marks_of(path: Path) -> Iterator[tuple[str, int]]:
    text = path.read_text()
    if "seatrial.marks" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
            argument = node.args[0]
            if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                raise ValueError(f"{path}:{node.lineno}: a mark must be named by its literal text, to be listed")
            yield argument.value, node.lineno


def never_reached(level: Level, reached: Container[str]) -> list[str]:
    """The marks that this level can reach and that are not among those reached, each with where it stands."""
    return [
        f"{name}  ({where})"
        for name, where in marks_in_code(level).items()
        if name not in reached and name not in OUT_OF_REACH[level]
    ]

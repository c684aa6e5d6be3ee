"""The four roles of a node, and which may follow which.

Rule: every change of role goes through `LEGAL`; the documentation and the tests read the same table.
The plain integers are what the core compares on its hot path; `Role` is the same numbers with names, for everyone else.
Knows nothing of why a role changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

FOLLOWER: Final = 0
PRE_CANDIDATE: Final = 1
CANDIDATE: Final = 2
LEADER: Final = 3


class Role(IntEnum):
    """What a node is in its current term (Raft §5.1; PRE_CANDIDATE: dissertation §9.6)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


LEGAL: Final[Mapping[int, frozenset[int]]] = {
    FOLLOWER: frozenset({FOLLOWER, PRE_CANDIDATE, CANDIDATE}),
    PRE_CANDIDATE: frozenset({FOLLOWER, PRE_CANDIDATE, CANDIDATE}),
    CANDIDATE: frozenset({FOLLOWER, PRE_CANDIDATE, CANDIDATE, LEADER}),
    LEADER: frozenset({FOLLOWER}),
}

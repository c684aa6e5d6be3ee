"""What nodes say of themselves, and what follows from all their answers together.  PURE.

Rule: one node's claim proves nothing: a leader is a node that a majority names in the same term.  An answer is about
the moment it was given, never about now.
Knows nothing of processes, sockets or time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What one node said of one Raft group, or why it said nothing (`error`; then `role` is None).

    Fields as in history.StatusSample, without the time.  `incarnation` counts the starts of the node's process, from 1.
    """

    node: int
    group: str
    role: str | None = None  # "follower", "pre-candidate", "candidate", "leader"
    term: int | None = None
    leader: int | None = None
    commit_index: int | None = None
    last_applied: int | None = None
    last_index: int | None = None
    digest: str | None = None
    incarnation: int | None = None
    error: str | None = None

    def describe(self) -> str:
        """One line for people."""
        if self.error is not None:
            return f"{self.group}: {self.error}"
        parts = [f"{self.group}: {self.role}", f"leader {self.leader or 'unknown'}"]
        parts += [f"term {self.term}"] if self.term is not None else []
        parts += [f"commit {self.commit_index}"] if self.commit_index is not None else []
        parts += [f"applied {self.last_applied}"] if self.last_applied is not None else []
        return ", ".join(parts)


StatusByNode: TypeAlias = Mapping[int, Sequence[NodeStatus]]


def majority_of(count: int) -> int:
    """The smallest number of `count` voters that is more than half of them."""
    return count // 2 + 1


def of_group(statuses: StatusByNode, group: str) -> dict[int, NodeStatus]:
    """Each node's answer about one group; without those that gave none."""
    return {
        node: status
        for node, answers in sorted(statuses.items())
        for status in answers
        if status.group == group and status.error is None
    }


def agreed_leader(statuses: StatusByNode, group: str, nodes: Collection[int]) -> int | None:
    """The node that leads `group`: it says so itself, and a majority of `nodes` names it in its term.

    A cut-off leader of an old term still calls itself leader, but a majority no longer names it.  Where a system does
    not tell terms, all of them count as equal.
    """
    answers = of_group(statuses, group)
    for node, status in answers.items():
        if status.role != "leader":
            continue
        followers = [n for n, s in answers.items() if s.leader == node and s.term == status.term]
        if len(followers) >= majority_of(len(nodes)):
            return node
    return None


def disagreement(statuses: StatusByNode, nodes: Collection[int]) -> str | None:
    """Why the nodes are not in consensus, or None when they are.

    Consensus: every node answers, and in every group one leader, the same term, commit index and applied index on all
    nodes that hold the group, and all that any of them has in its log committed and applied: after a restart nodes
    agree for a while on less than was acknowledged.
    """
    for node in sorted(nodes):
        answers = statuses.get(node, ())
        if not answers or any(status.error is not None for status in answers):
            return f"node {node} does not answer"
    groups = sorted({status.group for answers in statuses.values() for status in answers})
    for group in groups:
        answers_of_group = list(of_group(statuses, group).values())
        leaders = [s.node for s in answers_of_group if s.role == "leader"]
        if len(leaders) != 1:
            return f"group {group} has {len(leaders)} leaders"
        for name in ("leader", "term", "commit_index", "last_applied"):
            values = {s.node: getattr(s, name) for s in answers_of_group}
            if len(set(values.values())) > 1:
                return f"group {group}: {name} differs: {values}"
        for status in answers_of_group:
            figures = (status.last_applied, status.commit_index, status.last_index)
            if len({figure for figure in figures if figure is not None}) > 1:
                applied, committed, last = figures
                of_all = f"{applied} of {committed} committed of {last} entries"
                return f"group {group}: node {status.node} has applied {of_all}"
    return None

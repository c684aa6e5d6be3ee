"""What can go wrong with a cluster that is not a finding about it: each error says what was seen and what to do.

Rule: an error here means the trial could not be carried out as asked, never that the system under test is wrong.
Knows nothing of how nodes run.
"""

from __future__ import annotations

from collections.abc import Mapping


class ClusterError(Exception):
    """Something outside this program kept the cluster from doing what it was told."""


class Unavailable(ClusterError):
    """This machine cannot run what was asked; the message says what to install or to change."""


class DeadlineExceeded(ClusterError, TimeoutError):
    """A wait ended without what it waited for.

    `last_seen` has one line for every node, as it was at the last look.
    """

    def __init__(self, waited_for: str, timeout: float, last_seen: Mapping[int, str]) -> None:
        self.waited_for = waited_for
        self.timeout = timeout
        self.last_seen = dict(last_seen)
        lines = "".join(f"\n  node {node}: {seen}" for node, seen in sorted(self.last_seen.items()))
        super().__init__(f"no {waited_for} within {timeout:g} s; last seen:{lines or ' nothing'}")


class NodeExited(ClusterError):
    """A process ended without being told to.  `log_tail` is the end of what it wrote to its logs."""

    def __init__(self, who: str, exit_status: int, log_tail: str) -> None:
        self.who = who
        self.exit_status = exit_status
        self.log_tail = log_tail
        how = f"was killed by signal {-exit_status}" if exit_status < 0 else f"exited with status {exit_status}"
        tail = "\n".join(f"  | {line}" for line in log_tail.splitlines())
        super().__init__(f"{who} {how}; the end of its log:\n{tail or '  | (empty)'}")

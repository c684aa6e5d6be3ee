"""How many groups of one node may stand for election at once.

A vote costs a sync of its group's file: a thousand elections at once would take longer than their own timeouts, and so
never end.  How many are too many depends on the disks, of the voters too, and on who else uses them; what shows it is a
candidate whose votes do not come in time.  So the limit is found as TCP finds its window: halved when such a candidate
began after the last halving (those of one flock share one cause), raised by one with every election that is won.
Rule: whoever was not elected in time makes room for the others, and queues again: it stays a candidate meanwhile, and
may still win.  Groups that cannot be elected never keep out those that can.
Knows nothing of time and of groups, but for their names.
"""

from __future__ import annotations

from typing import Final

from seatrial.marks import reached
from seatrial.raft.ids import GroupId
from seatrial.raft.roles import Role

CAMPAIGNS_MAX: Final = 32
CAMPAIGNS_MIN: Final = 2
CAMPAIGNS_FIRST: Final = 8


class Campaigns:
    """Those under way on one node, and how many there may be."""

    def __init__(self) -> None:
        self.limit = CAMPAIGNS_FIRST
        self._under_way: dict[GroupId, int] = {}  # and how many there had been before it
        self._begun = 0
        self._begun_before_halving = 0

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def room(self) -> int:
        """How many more groups may stand for election now."""
        return max(self.limit - len(self._under_way), 0)

    @property
    def has_room(self) -> bool:
        """Whether another group may."""
        return len(self._under_way) < self.limit

    def look(self, group: GroupId, role: int) -> None:
        """The group's role is this now."""
        if role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            if group not in self._under_way:
                self._under_way[group] = self._begun
                self._begun += 1
        elif self._under_way.pop(group, None) is not None and role == Role.LEADER:
            self.limit = min(self.limit + 1, CAMPAIGNS_MAX)

    def ran_out_of_time(self, group: GroupId, role: int) -> bool:
        """The group's election timeout has passed.  True if it was standing: then it is the others' turn."""
        number = self._under_way.pop(group, None)
        if number is None:
            return False
        # A pre-candidate that hears nothing wrote nothing: its peers are out of reach.
        if role == Role.CANDIDATE and number >= self._begun_before_halving:
            reached("fewer groups stood for election at once because votes took too long")
            self._begun_before_halving = self._begun
            self.limit = max(self.limit // 2, CAMPAIGNS_MIN)
        return True

    def ended(self, group: GroupId) -> None:
        """The group is closed."""
        self._under_way.pop(group, None)

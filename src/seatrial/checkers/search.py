"""Search for a linearization of one register, whatever its values: exact, exponential only in what is open at once.

After Wing and Gong (1993) and Lowe (2017).  A configuration is (returns passed, slots done, state, operations of
unknown outcome used).  Sound reductions:
1. a legal operation that changes nothing is taken at once (but not a write of the current value: taken later it would
   change the state there);
2. an operation of unknown outcome is tried only where an open operation needs the state that it makes, and equal
   ones are interchangeable, so that the one invoked first stands for all;
3. a state that is still needed, and that nobody left can make again, is not left;
4. a write that nobody needs is free just before another write (not where mismatches count: they may need it);
5. a configuration that failed with fewer unknown operations used fails with more;
6. of equal open operations the one that returns first is tried.

Rule: True comes with a witness, False after exhausting every order, None says why the search gave up.
Knows nothing of histories: rows in (each CAS with old != new), verdict out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from seatrial.checkers.columns import CAS, INFO, MISMATCH, NO_VALUE, OK, READ, WRITE, Row
from seatrial.checkers.schedule import Limits, Schedule

_FIELD_BITS: Final = 20  # how many equal unknown operations can be counted
_FIELD: Final = (1 << _FIELD_BITS) - 1
_UNKNOWN_LAST: Final = 1 << 40  # sorts operations of unknown outcome after all certain ones


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """`linearizable` is None where the search gave up, for `reason`."""

    linearizable: bool | None
    explored: int
    witness: tuple[Row, ...] = ()
    blocked: Row | None = None  # the operation whose return no explored order could reach with it done
    reason: str = ""


class _Branch(NamedTuple):
    """What may come next: a certain operation's number, or ~ the class of an unknown one; the best sorts first."""

    priority: int
    deadline: int
    item: int


class _Frame(NamedTuple):
    """A configuration to come back to, with what is still to be tried there, best last."""

    returned: int
    mask: int
    state: int
    used: int
    placed: int  # length of the trail
    branches: list[_Branch]


class _UnknownClass(NamedTuple):
    """Equal operations of unknown outcome, by their invocations."""

    kind: int
    old: int
    new: int
    rows: list[Row]


def search(rows: Iterable[Row], initial: int, limits: Limits) -> SearchResult:
    """Decide whether a register that begins as `initial` allows these operations."""
    return _Search(rows, initial, limits).run()


class _Search:
    __slots__ = (
        "best_returned",
        "bit",
        "borrows",
        "certain",
        "enables",
        "entering",
        "explored",
        "full",
        "has_mismatches",
        "kind",
        "limits",
        "makes",
        "mask",
        "needed",
        "new",
        "occupant",
        "old",
        "previous",
        "progress_at",
        "returned",
        "seen",
        "sources",
        "stack",
        "state",
        "trail",
        "unknown",
        "used",
        "writers",
    )

    def __init__(self, rows: Iterable[Row], initial: int, limits: Limits) -> None:
        relevant = list(rows)
        self.certain = sorted((row for row in relevant if row.status == OK), key=lambda row: row.end)
        self.kind = [row.kind for row in self.certain]
        self.old = [row.old for row in self.certain]
        self.new = [row.new for row in self.certain]
        self.has_mismatches = MISMATCH in self.kind
        schedule = Schedule([row.start for row in self.certain], [row.end for row in self.certain])
        self.entering, self.bit = schedule.entering, schedule.bit
        self.previous, self.full = schedule.previous, schedule.full
        self._classify_unknown(relevant)
        self._count_values()
        self.limits = limits
        self.occupant: dict[int, int] = {}
        self.seen: dict[tuple[int, int, int], list[int]] = {}
        self.trail: list[int] = []  # placed so far: a certain operation's number, or ~ the class of an unknown one
        self.stack: list[_Frame] = []
        self.returned, self.mask, self.state, self.used = -1, self.full, initial, 0
        self.explored = self.progress_at = 0
        self.best_returned = -1

    def _classify_unknown(self, rows: Sequence[Row]) -> None:
        classes: dict[tuple[int, int, int], list[Row]] = {}
        unknown = (row for row in rows if row.status == INFO and row.kind in (WRITE, CAS))
        for row in sorted(unknown, key=lambda row: row.start):
            classes.setdefault((row.kind, row.old, row.new), []).append(row)
        self.unknown = [_UnknownClass(*key, members) for key, members in classes.items()]
        self.borrows = sum(1 << (_FIELD_BITS * c + _FIELD_BITS - 1) for c in range(len(self.unknown)))
        self.makes: dict[int, list[int]] = defaultdict(list)  # value -> classes of unknown writes of it
        self.enables: dict[int, list[int]] = defaultdict(list)  # value -> classes of unknown compare-and-sets to it
        for number, members in enumerate(self.unknown):
            assert len(members.rows) < 1 << (_FIELD_BITS - 1), "too many equal operations of unknown outcome"
            (self.makes if members.kind == WRITE else self.enables)[members.new].append(number)
        self.sources = {members.old for members in self.unknown if members.kind == CAS}

    def _count_values(self) -> None:
        self.needed: dict[int, int] = defaultdict(int)  # value -> operations not yet placed that must find it
        self.writers: dict[int, int] = defaultdict(int)  # value -> operations not yet placed that (can) make it
        for kind, old, new in zip(self.kind, self.old, self.new, strict=True):
            if kind in (READ, CAS):
                self.needed[old] += 1
            if kind in (WRITE, CAS):
                self.writers[new] += 1
        for members in self.unknown:
            self.writers[members.new] += len(members.rows)

    def run(self) -> SearchResult:
        phantom = self._needs_what_nobody_makes()
        if phantom is not None:
            return SearchResult(linearizable=False, explored=0, blocked=phantom)
        if not self.certain or self._settle():
            return self._found()
        fresh = True
        while True:
            if fresh:
                self.explored += 1
                if self.returned > self.best_returned:
                    self.best_returned, self.progress_at = self.returned, self.explored
                reason = self.limits.exceeded(self.explored, self.explored - self.progress_at)
                if reason is not None:
                    return self._ended(None, reason)
                if not self._failed_before() and (branches := self._branches()):
                    self.stack.append(
                        _Frame(self.returned, self.mask, self.state, self.used, len(self.trail), branches)
                    )
            if not self.stack:
                return self._ended(False)
            fresh = self._take_next()
            if fresh and self._settle():
                return self._found()

    def _needs_what_nobody_makes(self) -> Row | None:
        for row in self.certain:
            if row.kind in (READ, CAS) and row.old != self.state and not self.writers.get(row.old):
                return row
        return None

    def _ended(self, linearizable: bool | None, reason: str = "") -> SearchResult:
        return SearchResult(
            linearizable=linearizable,
            explored=self.explored,
            blocked=self.certain[max(self.best_returned, 0)],
            reason=reason,
        )

    def _found(self) -> SearchResult:
        taken = [0] * len(self.unknown)
        witness: list[Row] = []
        for item in self.trail:
            if item >= 0:
                witness.append(self.certain[item])
            else:
                witness.append(self.unknown[~item].rows[taken[~item]])
                taken[~item] += 1
        return SearchResult(linearizable=True, explored=self.explored, witness=tuple(witness))

    def _settle(self) -> bool:
        """Take what is legal and changes nothing, pass the returns of what is done; True when all are passed."""
        kind, old, bit, entering = self.kind, self.old, self.bit, self.entering
        occupant, trail, needed = self.occupant, self.trail, self.needed
        returned, mask, state = self.returned, self.mask, self.state
        last = len(kind) - 1
        waiting: Sequence[int] = self._open() if returned >= 0 else ()
        while True:
            for op in waiting:
                what = kind[op]
                if what == READ:
                    if old[op] == state:
                        mask |= bit[op]
                        trail.append(op)
                        needed[state] -= 1
                elif what == MISMATCH and old[op] != state:
                    mask |= bit[op]
                    trail.append(op)
            if returned >= 0 and not mask & bit[returned]:
                break
            if returned == last:
                return True
            returned += 1
            waiting = entering[returned]
            for op in waiting:
                occupant[bit[op]] = op
                mask &= ~bit[op]
        self.returned, self.mask = returned, mask
        return False

    def _open(self) -> list[int]:
        """The operations that are open and not placed."""
        occupant = self.occupant
        operations = []
        pending = self.full & ~self.mask
        while pending:
            bit = pending & -pending
            pending ^= bit
            operations.append(occupant[bit])
        return operations

    def _failed_before(self) -> bool:
        """Whether this position failed already with no more unknown operations used; remembers it."""
        position = (self.returned, self.mask, self.state)
        used_before = self.seen.get(position)
        if used_before is None:
            self.seen[position] = [self.used]
            return False
        borrows, used = self.borrows, self.used
        for fewer in used_before:
            # No field of `used - fewer` borrows from the next: every class was used at least as often.
            if ((used | borrows) - fewer) & borrows == borrows:
                return True
        used_before.append(used)
        return False

    def _branches(self) -> list[_Branch]:
        """What may be placed next, best last."""
        kind, old, new, state = self.kind, self.old, self.new, self.state
        next_kind = kind[self.returned]
        wanted_first = old[self.returned] if next_kind in (READ, CAS) else NO_VALUE
        wanted: set[int] = set()
        earliest: dict[tuple[int, int], int] = {}
        any_change_helps = False
        for op in self._open():
            what = kind[op]
            if what == MISMATCH:
                any_change_helps = True
                continue
            if what != WRITE:
                wanted.add(old[op])
                if what == READ or old[op] != state:
                    continue
            same = (what, new[op])
            if same not in earliest or op < earliest[same]:
                earliest[same] = op
        branches = [
            _Branch(0 if op == self.returned or new[op] == wanted_first else 1, op, op) for op in earliest.values()
        ]
        if self.unknown:
            self._branch_unknown(branches, wanted, wanted_first)
            if any_change_helps:
                self._branch_any_change(branches)
        branches.sort(reverse=True)
        return branches

    def _usable(self, number: int) -> bool:
        """Whether an operation of that class is left and was invoked by now."""
        rows = self.unknown[number].rows
        taken = (self.used >> (_FIELD_BITS * number)) & _FIELD
        return taken < len(rows) and rows[taken].start <= self.certain[self.returned].end

    def _branch_unknown(self, branches: list[_Branch], wanted: set[int], wanted_first: int) -> None:
        """Operations of unknown outcome that make a wanted state, or one from which another can make it."""
        work = list(wanted)
        while work:
            value = work.pop()
            priority = 0 if value == wanted_first else 2
            for number in self.enables.get(value, ()):
                if self._usable(number):
                    origin = self.unknown[number].old
                    if origin == self.state:
                        branches.append(_Branch(priority, _UNKNOWN_LAST, ~number))
                    if origin not in wanted:
                        wanted.add(origin)
                        work.append(origin)
            if value != self.state:
                for number in self.makes.get(value, ()):
                    if self._usable(number):
                        branches.append(_Branch(priority, _UNKNOWN_LAST, ~number))

    def _branch_any_change(self, branches: list[_Branch]) -> None:
        """A mismatch waits for any other state; one write that nobody needs stands for all such."""
        have = {branch.item for branch in branches}
        spare = False
        for number, members in enumerate(self.unknown):
            if ~number in have or not self._usable(number) or members.new == self.state:
                continue
            if members.kind == CAS and members.old != self.state:
                continue
            if members.kind == WRITE and self.needed[members.new] <= 0 and members.new not in self.sources:
                if spare:
                    continue
                spare = True
            branches.append(_Branch(3, _UNKNOWN_LAST, ~number))

    def _take_next(self) -> bool:
        """Return to the last frame and place its next branch; False where it has none, or the branch is not allowed."""
        frame = self.stack[-1]
        self._undo_to(frame)
        if not frame.branches:
            self.stack.pop()
            return False
        item = frame.branches.pop().item
        if item >= 0:
            kind, new = self.kind[item], self.new[item]
        else:
            kind, new = self.unknown[~item].kind, self.unknown[~item].new
        state = self.state
        still_needed = self.needed[state] - (1 if item >= 0 and kind == CAS else 0)
        if still_needed > 0 and new != state and self.writers[state] == 0:
            return False
        if kind == WRITE and not self.has_mismatches:
            self._place_unneeded_writes(item)
        self.writers[new] -= 1
        if item >= 0:
            self.mask |= self.bit[item]
            if kind == CAS:
                self.needed[state] -= 1
        else:
            self.used += 1 << (_FIELD_BITS * ~item)
        self.trail.append(item)
        self.state = new
        return True

    def _place_unneeded_writes(self, before: int) -> None:
        for op in self._open():
            if self.kind[op] == WRITE and op != before:
                value = self.new[op]
                if self.needed[value] == 0 and value not in self.sources:
                    self.mask |= self.bit[op]
                    self.trail.append(op)
                    self.writers[value] -= 1

    def _undo_to(self, frame: _Frame) -> None:
        trail, needed, writers, kind = self.trail, self.needed, self.writers, self.kind
        while len(trail) > frame.placed:
            item = trail.pop()
            if item < 0:
                writers[self.unknown[~item].new] += 1
                continue
            what = kind[item]
            if what in (READ, CAS):
                needed[self.old[item]] += 1
            if what in (WRITE, CAS):
                writers[self.new[item]] += 1
        returned, occupant, bit, previous = self.returned, self.occupant, self.bit, self.previous
        while returned > frame.returned:
            for op in reversed(self.entering[returned]):
                occupant[bit[op]] = previous[op]
            returned -= 1
        self.returned, self.mask, self.state, self.used = frame.returned, frame.mask, frame.state, frame.used

"""The smallest case that still fails in the same way.

    smaller = shrink(case, find, seconds=60)

Passes over the case as data, repeated until none of them helps: cut what comes after the violation, remove chunks of
faults (delta debugging: Zeller and Hildebrandt, 2002), simplify settings, remove nodes, hit fewer links, shorten what
lasts, close gaps, and run other seeds, under which fewer faults may do.
Rule: a smaller case fails with the same violation by name, is well formed, and stays within the budget if the first
one was; a case is never run twice.  Knows nothing of how a case is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

import msgspec

from seatrial.env import Clock, RealClock
from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case, Fault, Violation
from seatrial.sim.simpler import (
    fewer_links,
    fewer_nodes,
    merged_faults,
    plainer_fault,
    plainer_settings,
    rounded_times,
    without_gap,
)

T = TypeVar("T")
Find = Callable[[Case], Violation | None]  # the first violation of a case, or None
FindEach = Callable[[Sequence[Case]], Sequence[Violation | None]]  # of each, however many run at a time
SECONDS: Final = 60.0
SEEDS_TRIED: Final = 30  # others, for each number of faults
AFTER_US: Final = 1_000  # how long a case goes on after its violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of shrinking: what is tried, how many cases were run, and the smallest so far.

    is_late: the time is over, and more might have helped.
    """

    doing: str
    runs: int
    case: Case
    violation: Violation
    is_late: bool = False


class NotFailing(ValueError):
    """The case to be made smaller does not fail."""


def shrink(
    case: Case,
    find: Find,
    *,
    seconds: float = SECONDS,
    clock: Clock | None = None,
    told: Callable[[Progress], None] = lambda progress: None,
    find_each: FindEach | None = None,
    jobs: int = 1,
) -> tuple[Case, Violation]:
    """The smallest case found within that many seconds, and its violation, of the same name as the first one's.

    find_each: the same for several cases at once; as many as `jobs` are tried ahead.  What is found does not depend on
    it, unless the time is over.
    Raises NotFailing if the case does not fail.
    """
    violation = find(case)
    if violation is None:
        raise NotFailing("the case does not fail, so there is nothing to shrink")
    each = find_each or (lambda cases: [find(one) for one in cases])
    shrinker = _Shrinker(case, violation, each, jobs, seconds=seconds, clock=clock or RealClock(), told=told)
    shrinker.run()
    return shrinker.case, shrinker.violation


def shrink_list(items: Sequence[T], still_fails: Callable[[list[T]], bool]) -> list[T]:
    """A shortest sublist, in order, of which `still_fails` holds: nothing more can be left out of it, chunk or item.

    For users' own plans; it is taken for granted that the whole list fails.
    """
    return _without_chunks(
        items, lambda candidates: next((n for n, rest in enumerate(candidates) if still_fails(rest)), None)
    )


def _without_chunks(items: Sequence[T], first_failing: Callable[[Iterator[list[T]]], int | None]) -> list[T]:
    """As `shrink_list`, over the number of the first of several candidates that still fails."""
    kept = list(items)
    chunk = len(kept)
    while chunk >= 1:
        start: int | None = 0
        while start is not None and start < len(kept):
            starts = range(start, len(kept), chunk)
            found = first_failing(map(_Without(kept, chunk), starts))
            start = None if found is None else starts[found]
            if start is not None:
                kept = kept[:start] + kept[start + chunk :]
        chunk = min(chunk // 2, len(kept)) if chunk > 1 else 0
    return kept


class _Without(Generic[T]):
    """The items but for a chunk that begins somewhere."""

    def __init__(self, items: list[T], chunk: int) -> None:
        self._items, self._chunk = items, chunk

    def __call__(self, start: int) -> list[T]:
        return self._items[:start] + self._items[start + self._chunk :]


class _Shrinker:
    """The smallest case so far, and what was tried."""

    def __init__(
        self,
        case: Case,
        violation: Violation,
        find_each: FindEach,
        jobs: int,
        *,
        seconds: float,
        clock: Clock,
        told: Callable[[Progress], None],
    ) -> None:
        self.case, self.violation = case, violation
        self._find_each, self._jobs, self._clock, self._told = find_each, jobs, clock, told
        self._until_us = clock.now_us() + round(seconds * 1e6)
        self._within_budget = over_budget(case) is None
        self._tried: set[Case] = {case}
        self._runs = 1
        self._doing = ""

    def run(self) -> None:
        passes: tuple[tuple[str, Callable[[], None]], ...] = (
            ("cut the end", self._cut_end),
            ("remove faults", self._remove_faults),
            ("merge faults", self._merge_faults),
            ("close gaps", self._close_gaps),  # early: a shorter case is a faster one
            ("simplify settings", self._simplify_settings),
            ("remove nodes", self._remove_nodes),
            ("simplify faults", self._simplify_faults),
            ("try other seeds", self._try_seeds),
        )
        before = None
        while before != self.case and not self._late():
            before = self.case
            for self._doing, make_smaller in passes:
                self._say()
                make_smaller()
        self._doing = "round times"
        self._first_that_fails(rounded_times(self.case))
        self._say()

    def _late(self) -> bool:
        return self._clock.now_us() >= self._until_us

    def _say(self) -> None:
        self._told(
            Progress(
                doing=self._doing,
                runs=self._runs,
                case=self.case,
                violation=self.violation,
                is_late=self._late(),
            )
        )

    def _fails(self, candidate: Case) -> bool:
        """Whether the candidate fails in the same way; it is then the smallest so far."""
        return self._first_that_fails(iter((candidate,)))

    def _first_that_fails(self, candidates: Iterator[Case]) -> bool:
        return self._first_failing(candidates) is not None

    def _first_failing(self, candidates: Iterator[Case]) -> int | None:
        """The number of the first candidate that fails in the same way; it is then the smallest so far."""
        new = ((number, candidate) for number, candidate in enumerate(candidates) if self._is_new(candidate))
        while not self._late() and (batch := list(islice(new, self._jobs))):
            self._runs += len(batch)
            self._tried.update(candidate for _, candidate in batch)
            violations = self._find_each([candidate for _, candidate in batch])
            for (number, candidate), violation in zip(batch, violations, strict=True):
                if violation is not None and violation.name == self.violation.name:
                    self.case, self.violation = candidate, violation
                    self._say()
                    return number
        return None

    def _is_new(self, candidate: Case) -> bool:
        """Whether it was not tried yet, is well formed, and within the budget where the first case was."""
        if candidate in self._tried or malformed(candidate) is not None:
            return False
        return not self._within_budget or over_budget(candidate) is None

    def _repeatedly(self, smaller: Callable[[Case], Iterator[Case]]) -> None:
        while self._first_that_fails(smaller(self.case)):
            pass

    def _cut_end(self) -> None:
        """End the case when its violation has been seen, or its last fault is over."""
        seen_us = self.violation.at_us
        faults = tuple(fault for fault in self.case.faults if fault.at_us <= seen_us)
        over_us = max((fault.at_us + fault.duration_us for fault in faults), default=0)
        for end_us in (seen_us + AFTER_US, over_us + AFTER_US):
            if end_us < self.case.duration_us:
                kept = tuple(fault for fault in faults if fault.at_us < end_us)
                if self._fails(msgspec.structs.replace(self.case, duration_us=end_us, faults=kept)):
                    return

    def _remove_faults(self) -> None:
        def first_failing(several: Iterator[list[Fault]]) -> int | None:
            case = self.case
            return self._first_failing(msgspec.structs.replace(case, faults=tuple(faults)) for faults in several)

        _without_chunks(self.case.faults, first_failing)

    def _simplify_settings(self) -> None:
        self._repeatedly(plainer_settings)

    def _remove_nodes(self) -> None:
        self._repeatedly(fewer_nodes)

    def _merge_faults(self) -> None:
        self._repeatedly(merged_faults)

    def _try_seeds(self) -> None:
        """Run other seeds without one of the faults: another order of events may need fewer of them.

        Measured on a prototype: this is what brought plans from 8-18 faults down to 1-4.
        """
        while self.case.faults and self._fewer_under_another_seed():
            pass
        self._first_that_fails(
            msgspec.structs.replace(self.case, seed=seed) for seed in range(min(self.case.seed, SEEDS_TRIED))
        )

    def _fewer_under_another_seed(self) -> bool:
        faults = self.case.faults
        without = [faults[:place] + faults[place + 1 :] for place in range(len(faults))]
        case = self.case
        if self._first_that_fails(
            msgspec.structs.replace(case, seed=seed, faults=kept) for seed in range(SEEDS_TRIED) for kept in without
        ):
            self._remove_faults()
            return True
        return False

    def _simplify_faults(self) -> None:
        for number in range(len(self.case.faults)):
            self._repeatedly(lambda case, number=number: plainer_fault(case, number))  # type: ignore[misc]
            self._repeatedly(lambda case, number=number: fewer_links(case, number))  # type: ignore[misc]

    def _close_gaps(self) -> None:
        for number in range(len(self.case.faults)):
            self._repeatedly(lambda case, number=number: without_gap(case, number))  # type: ignore[misc]

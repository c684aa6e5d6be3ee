"""Marks: named rare events in the code, counted, so that a test can tell whether a search ever got there.

    if truncated_own_suffix:
        reached("leader truncated its own uncommitted suffix")

Rule: a mark changes nothing and costs a dictionary entry; it stands on rare paths only, never on the hot path.  Names
are sentences in the past tense, unique in the code (the tidy test looks), and listed by their literal text.
Knows nothing of what the events mean.
"""

from __future__ import annotations

counts: dict[str, int] = {}


def reached(name: str) -> None:
    """Count that the code came here."""
    counts[name] = counts.get(name, 0) + 1


def taken() -> dict[str, int]:
    """What was counted since the last call, which starts anew."""
    seen = dict(counts)
    counts.clear()
    return seen

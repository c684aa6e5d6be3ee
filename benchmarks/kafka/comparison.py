"""From the rounds' figures to medians, ratios and a table.

Rule: a figure that a peer could not give is told with its reason, never left out, and fails the run.
Knows nothing of how figures are made.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any, Final

from measures import Figure, Measure

HEADER: Final = (
    "| measure | figure | seatrial | Kafka | ratio | mock | aim | met |\n"
    "|---|---|---|---|---|---|---|---|"
)  # fmt: skip


class Results:
    """What every round gave, by measure, peer and figure."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self.failures: list[str] = []

    def add(self, measure: str, peer: str, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self._figures[measure, peer, key].append(value)

    def fail(self, measure: str, peer: str, reason: str) -> None:
        self.failures.append(f"{measure}, {peer}: {reason}")

    def median(self, measure: str, peer: str, key: str) -> float | None:
        """None where no round gave it."""
        rounds = self._figures.get((measure, peer, key))
        return statistics.median(rounds) if rounds else None

    def rows(self, measure: Measure) -> str:
        """One line for each figure: medians with the least and the most of all rounds."""
        return "\n".join(self._row(measure, figure) for figure in measure.figures)

    def _row(self, measure: Measure, figure: Figure) -> str:
        ours, kafka = (self.median(measure.name, peer, figure.key) for peer in ("seatrial", "Kafka"))
        ratio = f"{ours / kafka:.2f}" if ours is not None and kafka else ""
        met = None if figure.aim is None or ours is None else figure.aim.is_met(ours, kafka)
        cells = [
            measure.title,
            figure.title,
            self._cell(measure, "seatrial", figure),
            self._cell(measure, "Kafka", figure),
            ratio,
            self._cell(measure, "mock", figure),
            figure.aim.text() if figure.aim else "",
            {None: "", True: "yes", False: "no"}[met],
        ]
        return f"| {' | '.join(cells)} |"

    def _cell(self, measure: Measure, peer: str, figure: Figure) -> str:
        rounds = self._figures.get((measure.name, peer, figure.key))
        if not rounds:
            return "–" if peer in measure.peers else ""
        middle = number(statistics.median(rounds))
        return middle if len(rounds) == 1 else f"{middle} ({number(min(rounds))} to {number(max(rounds))})"

    def as_json(self, measures: list[Measure]) -> list[dict[str, Any]]:
        """Every figure with all its rounds."""
        return [
            {
                "measure": measure.name,
                "figure": figure.key,
                "aim": figure.aim.text() if figure.aim else None,
                "rounds": {peer: self._figures.get((measure.name, peer, figure.key), []) for peer in measure.peers},
                "medians": {peer: self.median(measure.name, peer, figure.key) for peer in measure.peers},
            }
            for measure in measures
            for figure in measure.figures
        ]


def number(value: float) -> str:
    """Three digits that count, and whole numbers from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"

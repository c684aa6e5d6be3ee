"""Every way to decide a register agrees with the textbook search, on random histories good and bad."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from _random_histories import Mix, columns_of, run_register, spoil
from _reference_search import explains, is_linearizable
from seatrial.checkers import registers_numpy
from seatrial.checkers.columns import INITIAL, MISMATCH, OK, WRITE, Row
from seatrial.checkers.explain import minimise
from seatrial.checkers.refute import decide
from seatrial.checkers.registers import ReusedValue, check_unique
from seatrial.checkers.schedule import Limits
from seatrial.checkers.search import search
from seatrial.checkers.weakening import ANY_STATE, doubt, refuted

LIMITS = Limits(configurations=1_000_000, deadline=1.0, clock=lambda: 0.0)
UNUSED_VALUE = 1_000_000


def history(seed: int, *, unique: bool) -> list[Row]:
    """A small history with everything in it; two in three are spoilt."""
    chance = random.Random(seed)
    mix = Mix(
        clients=chance.randint(1, 6),
        reads=chance.choice((0.3, 0.5)),
        writes=chance.choice((0.2, 0.35)),
        unknown=chance.choice((0.0, 0.1, 0.3)),
        failed=chance.choice((0.0, 0.1)),
        values=None if unique else chance.randint(1, 4),
        mismatches=chance.random() < 0.4,
    )
    rows = run_register(chance.randint(1, 14), mix, seed)
    return spoil(rows, seed, chance.randint(1, 3)) if chance.random() < 0.67 else rows


@pytest.mark.slow
def test_zones_and_numpy_agree_with_the_reference() -> None:
    bad = 0
    kinds = set()
    for seed in range(2_000):
        rows = [row for row in history(seed, unique=True) if row.kind != MISMATCH]
        columns = columns_of(rows)
        try:
            violation = check_unique(columns)
        except ReusedValue:
            with pytest.raises(ReusedValue):
                registers_numpy.is_linearizable(columns)
            continue
        expected = is_linearizable(rows, INITIAL)
        assert (violation is None) is expected, f"seed {seed}: {violation}"
        assert registers_numpy.is_linearizable(columns) is expected, f"seed {seed}"
        if violation is not None:
            bad += 1
            kinds.add(violation.kind)
    assert bad > 400
    assert kinds == {
        "phantom-value",
        "order-inside-chain",
        "overlapping-values",
        "value-inside-another",
        "two-cas-from-one-value",
        "cas-cycle",
    }


@pytest.mark.slow
def test_search_agrees_with_the_reference_and_its_witnesses_hold() -> None:
    bad = 0
    for seed in range(2_000):
        rows = history(seed, unique=seed % 2 == 0)
        result = search(rows, INITIAL, LIMITS)
        assert result.linearizable is is_linearizable(rows, INITIAL), f"seed {seed}"
        assert not result.linearizable or explains(result.witness, rows, INITIAL), f"seed {seed}"
        bad += not result.linearizable
    assert bad > 400


@pytest.mark.slow
def test_deciding_by_local_refutation_agrees_and_its_cores_are_proofs() -> None:
    """A stall of three configurations forces the local refutation on most histories."""
    sizes = []
    for seed in range(1_200):
        rows = history(seed, unique=seed % 2 == 0)
        decision = decide(rows, INITIAL, LIMITS, stall=3)
        assert decision.linearizable is is_linearizable(rows, INITIAL), f"seed {seed}"
        if decision.linearizable:
            continue
        core = minimise(decision.core, decision.core_initial, LIMITS)
        assert core is not None, f"seed {seed}"
        states = {core.initial}
        if core.initial == ANY_STATE:
            states = {row.old for row in core.rows if row.kind != WRITE} | {UNUSED_VALUE}
        assert not any(is_linearizable(core.rows, state) for state in states), f"seed {seed}"
        assert {row.start for row in core.rows} <= {row.start for row in rows}
        sizes.append(len(core.rows))
    assert sorted(sizes)[len(sizes) // 2] <= 3
    assert max(sizes) < 14


def test_a_core_is_minimal() -> None:
    """Doubting any one more certain operation of a core makes it possible."""
    checked = 0
    for seed in range(150):
        rows = history(seed, unique=False)
        decision = decide(rows, INITIAL, LIMITS)
        core = minimise(decision.core, decision.core_initial, LIMITS) if decision.linearizable is False else None
        if core is not None:
            checked += 1
            for row in core.rows:
                if row.status == OK:
                    assert not refuted(doubt(core.rows, {row.start}), core.initial, LIMITS), f"seed {seed}: {row}"
    assert checked > 10


def test_search_gives_up_at_its_limit_of_configurations() -> None:
    rows = run_register(300, Mix(clients=8, values=3), seed=1)
    result = search(rows, INITIAL, replace(LIMITS, configurations=20))
    assert result.linearizable is None
    assert result.reason == "more than 20 configurations"

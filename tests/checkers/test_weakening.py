"""Weakening never turns a linearizable history into one that is not, so what is left of a bad one is a proof."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from _random_histories import Mix, run_register, with_distinct_times
from _reference_search import is_linearizable
from seatrial.checkers.columns import INITIAL, READ, WRITE, Row
from seatrial.checkers.explain import evidence_rows
from seatrial.checkers.weakening import cut_left, cut_right, doubt, drop_unneeded, relevant, without_mismatches

linearizable_histories = st.builds(
    lambda count, clients, values, mismatches, unknown, seed: run_register(
        count, Mix(clients=clients, values=values, mismatches=mismatches, unknown=unknown, failed=0.1), seed
    ),
    count=st.integers(1, 12),
    clients=st.integers(1, 6),
    values=st.one_of(st.none(), st.integers(1, 4)),
    mismatches=st.booleans(),
    unknown=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 2**32),
)


def possible_from_some_state(rows: list[Row]) -> bool:
    states = {INITIAL, *(row.old for row in rows if row.kind != WRITE)}
    return any(is_linearizable(rows, state) for state in states)


@settings(deadline=None, max_examples=150)
@given(linearizable_histories, st.randoms(use_true_random=False))
def test_weakening_keeps_linearizable_histories_linearizable(rows: list[Row], chance: random.Random) -> None:
    times = [row.start for row in rows]
    weaker = relevant(rows)
    for _ in range(chance.randint(1, 4)):
        chosen = {time for time in times if chance.random() < 0.3}
        weaken = chance.choice(
            [
                lambda rows, chosen=chosen: doubt(rows, chosen),
                lambda rows, chosen=chosen: evidence_rows(rows, chosen, ()),
                lambda rows: cut_right(rows, chance.choice(times)),
                drop_unneeded,
                without_mismatches,
            ]
        )
        weaker = weaken(weaker)
        assert is_linearizable(weaker, INITIAL)
    left = cut_left(weaker, chance.choice(times))
    assert possible_from_some_state(left)


def test_dropping_a_write_that_is_read_would_be_unsound() -> None:
    """The temptation that the rules leave out: without its write the read is of a phantom."""
    rows = with_distinct_times(run_register(30, Mix(clients=1, values=None), seed=3))
    read = next(row for row in rows if row.kind == READ and row.old != INITIAL)
    without = [row for row in rows if row.new != read.old]
    assert is_linearizable(rows, INITIAL)
    assert not is_linearizable(without, INITIAL)
    writes = {row.start for row in rows if row.new == read.old}
    assert is_linearizable(doubt(rows, writes), INITIAL)

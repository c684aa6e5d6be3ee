"""Damage to stored bytes: what is touched, and what is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seatrial.env import Rng
from seatrial.scenario.damage import GAP_BYTES, TORN_BYTES, end_of, flipped, is_log_file, newest, torn_write, truncated

contents = st.binary(min_size=8, max_size=200).map(lambda data: data.rstrip(b"\0") + b"\x01" + bytes(64))
seeds = st.integers(0, 1 << 30).map(Rng)


@given(contents, seeds)
def test_a_truncated_file_keeps_its_size_and_its_beginning_and_loses_its_end(content: bytes, rng: Rng) -> None:
    damaged = truncated(content, rng)
    assert len(damaged) == len(content)
    kept = len(damaged.rstrip(b"\0"))
    assert damaged[:kept] == content[:kept]
    assert kept < len(content.rstrip(b"\0"))


@given(contents, seeds)
def test_a_flipped_bit_is_one_bit_of_the_first_half(content: bytes, rng: Rng) -> None:
    damaged = flipped(content, rng)
    differing = [place for place, (a, b) in enumerate(zip(content, damaged, strict=True)) if a != b]
    assert len(differing) == 1
    assert (content[differing[0]] ^ damaged[differing[0]]).bit_count() == 1
    assert differing[0] < max(1, len(content.rstrip(b"\0")) // 2)


@given(contents, seeds)
def test_a_torn_write_begins_where_the_next_header_would_be_and_has_no_zero_byte(content: bytes, rng: Rng) -> None:
    torn = torn_write(rng)
    assert TORN_BYTES[0] <= len(torn) <= TORN_BYTES[1] and 0 not in torn
    assert end_of(content) == len(content.rstrip(b"\0")) + GAP_BYTES


def test_the_newest_log_file_of_some_group_is_chosen() -> None:
    paths = ["data/groups/0/segment-1.log", "data/groups/0/segment-2.log", "data/groups/1/segment-1.log"]
    assert all(is_log_file(path) for path in paths) and not is_log_file("data/groups/0/watermarks")
    chosen = {newest(paths, Rng(seed)) for seed in range(20)}
    assert chosen == {"data/groups/0/segment-2.log", "data/groups/1/segment-1.log"}

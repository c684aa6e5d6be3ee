"""Values with filler: what is written is read, and what is not all there is told as what it is."""

from __future__ import annotations

from seatrial.env import Rng
from seatrial.workloads.payload import Payload, sometimes_large


def test_a_number_alone_is_its_digits() -> None:
    assert Payload().written(42) == b"42"
    assert Payload().read(b"42") == 42


def test_a_number_is_filled_up_to_its_size_and_read_back() -> None:
    payload = Payload(lambda number: 100 * number)
    for number in (1, 7, 30):
        written = payload.written(number)
        assert (len(written), payload.read(written)) == (100 * number, number)


def test_whatever_was_cut_off_put_in_or_changed_places_is_not_taken_for_the_number() -> None:
    payload = Payload(lambda number: 1_000)
    whole = payload.written(7)
    for wrong in (whole[:-1], whole + b"x", whole[:100] + whole[200:300] + whole[100:200] + whole[300:], b"7", b""):
        assert payload.read(wrong) != 7
    assert payload.read(whole[:-1]) == "7 23456789abcdefghijklmnopqrstuvwxyzABCD... (999 bytes)"


def test_what_nobody_wrote_is_told_as_text() -> None:
    assert [Payload().read(content) for content in (b"tern", b"\xff", b"9" * 5_000)] == [
        "tern",
        "\N{REPLACEMENT CHARACTER}",
        f"{'9' * 40}... (5000 bytes)",
    ]


def test_one_in_so_many_is_large_and_a_number_has_one_size() -> None:
    size_of = sometimes_large(Rng(1), usual=10, largest=100_000, one_in=20)
    sizes = [size_of(number) for number in range(1_000)]
    large = [size for size in sizes if size > 10]
    assert 25 < len(large) < 80
    assert min(large) < 100 < 10_000 < max(large) <= 100_000
    assert sizes == [size_of(number) for number in range(1_000)]
    assert {sometimes_large(Rng(1), usual=10, largest=0, one_in=20)(number) for number in range(100)} == {10}

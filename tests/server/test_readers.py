"""Who was told to read where: counted once a reader, for as long as it keeps to it."""

from __future__ import annotations

from seatrial.server.readers import KEPT_US, READERS_MAX, Readers

ONE = ("10.0.0.1:5", "t", 0)
OTHER = ("10.0.0.2:5", "t", 0)


def test_a_reader_counts_for_all_but_itself() -> None:
    readers = Readers()
    readers.told(ONE, 2, 0)
    assert readers.count(2, besides=OTHER) == 1
    assert readers.count(2, besides=ONE) == 0
    assert readers.count(3, besides=OTHER) == 0


def test_a_reader_that_is_sent_elsewhere_counts_there_alone() -> None:
    readers = Readers()
    readers.told(ONE, 2, 0)
    readers.told(ONE, 3, 1)
    assert (readers.count(2, besides=OTHER), readers.count(3, besides=OTHER)) == (0, 1)


def test_the_same_client_counts_once_for_each_partition() -> None:
    readers = Readers()
    readers.told(ONE, 2, 0)
    readers.told(("10.0.0.1:5", "t", 1), 2, 0)
    assert readers.count(2, besides=OTHER) == 2


def test_a_reader_that_did_not_ask_again_is_forgotten() -> None:
    readers = Readers()
    readers.told(ONE, 2, 0)
    readers.told(OTHER, 3, KEPT_US - 1)
    assert readers.count(2, besides=OTHER) == 1
    readers.told(OTHER, 3, KEPT_US)
    assert readers.count(2, besides=OTHER) == 0


def test_more_readers_than_fit_are_not_counted() -> None:
    readers = Readers()
    for number in range(READERS_MAX + 2):
        readers.told((str(number), "t", 0), 2, 0)
    assert readers.count(2, besides=ONE) == READERS_MAX

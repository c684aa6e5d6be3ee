"""What a data directory knows of itself: how often it was started, its number, and whether it founded its cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.env import RealClock, RealFiles, Rng
from seatrial.server.directory import Directory, start_directory
from seatrial.server.errors import StartError


def started(root: Path, seed: int = 1, *, joins: bool = False) -> Directory:
    return start_directory(RealFiles(), str(root), Rng(seed), RealClock(), joins=joins)


def test_starts_are_counted_and_the_number_stays(tmp_path: Path) -> None:
    first, second = started(tmp_path), started(tmp_path, seed=2)
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert first.number == second.number != 0


def test_a_wiped_directory_gets_another_number_even_from_the_same_seed(tmp_path: Path) -> None:
    first = started(tmp_path)
    (tmp_path / "incarnation").unlink()
    again = started(tmp_path)
    assert again.incarnation == 1
    assert again.number != first.number


def test_a_founder_cannot_join_another_cluster_and_who_joined_stays_joined(tmp_path: Path) -> None:
    founder, joiner = tmp_path / "founder", tmp_path / "joiner"
    founder.mkdir()
    joiner.mkdir()
    started(founder)
    with pytest.raises(StartError, match="empty --data-dir") as error:
        started(founder, joins=True)
    assert error.value.status == 11
    assert started(joiner, joins=True).joined
    assert started(joiner, joins=False).joined


@pytest.mark.parametrize("content", [b"", b"7", b"{}", b"{", b'{"number":1,"incarnation":1'])
def test_a_damaged_file_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "incarnation").write_bytes(content)
    with pytest.raises(StartError, match="incarnation is damaged") as error:
        started(tmp_path)
    assert error.value.status == 13


def test_a_start_cut_short_leaves_the_old_count(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "incarnation.tmp").write_bytes(b"{half")
    assert started(tmp_path).incarnation == 2

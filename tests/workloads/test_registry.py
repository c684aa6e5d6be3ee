"""Workloads by name."""

from __future__ import annotations

import pytest

from seatrial.workloads.registry import UnknownWorkload, by_name, by_names, names


def test_every_listed_workload_can_be_made_and_bears_its_name() -> None:
    for name, line in names().items():
        assert by_name(name).name == name
        assert line
        assert "\n" not in line


def test_a_specification_names_several() -> None:
    assert [workload.name for workload in by_names(" log, kv ")] == ["log", "kv"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [("lgo", "no workload 'lgo'; choose from log, kv"), ("", "no workload was named"), ("kv,kv", "named twice")],
)
def test_a_bad_specification_says_what_to_write(spec: str, said: str) -> None:
    with pytest.raises(UnknownWorkload, match=said):
        by_names(spec)


def test_reading_from_followers_is_for_the_log() -> None:
    reading, usual = by_names("log", read_from="followers"), by_names("log,kv")
    assert [checker.name for checker in reading[0].checkers()] == ["partition-log (log)", "log-sessions (log)"]
    assert [checker.name for checker in usual[0].checkers()] == ["partition-log (log)"]
    with pytest.raises(UnknownWorkload, match="name it, or leave --read-from out"):
        by_names("kv", read_from="followers")

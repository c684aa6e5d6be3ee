"""Temporary directories of harnesses that are gone."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from seatrial.cluster.workspace import MARKER, PREFIX, SWEEP_AGE_S, TemporaryWorkspace, sweep


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def grow_old(root: Path) -> None:
    old = time.time() - 2 * SWEEP_AGE_S
    os.utime(root, (old, old))


def test_a_directory_whose_owner_is_gone_is_swept() -> None:
    left = TemporaryWorkspace()
    (left.root / "nodes").mkdir()
    (left.root / "nodes" / "stderr.log").write_text("x")
    left.close()
    grow_old(left.root)
    assert sweep() == [left.root]
    assert not left.root.exists()


def test_a_directory_whose_owner_lives_is_kept() -> None:
    alive = TemporaryWorkspace()
    grow_old(alive.root)
    assert sweep() == []
    assert (alive.root / MARKER).read_text() == f"{os.getpid()}\n"
    alive.close()


def test_what_is_young_or_not_ours_is_kept(tmp_path: Path) -> None:
    young = TemporaryWorkspace()
    young.close()
    unmarked = tmp_path / f"{PREFIX}unmarked"
    unmarked.mkdir()
    grow_old(unmarked)
    assert sweep() == []
    assert young.root.exists()
    assert unmarked.exists()

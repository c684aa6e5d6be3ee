"""The example of the tutorial: its bug is found, replayed and made small, and is not found once it is mended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3] / "examples"))

import primary_backup_trial as trial

from seatrial.sim.zygote import Died, Zygote

pytestmark = pytest.mark.slow


def test_the_bug_is_found_replayed_and_made_small() -> None:
    found = trial.find(range(20))
    assert found is not None
    run, sentence = found
    assert "lost" in sentence
    smaller, still = trial.shrunk(run)
    assert "lost" in still
    assert 1 <= len(smaller.faults) <= 2 < len(run.faults)
    with Zygote(trial.lost) as zygote:
        assert zygote.run(trial.lost, run) == sentence
        assert zygote.run(trial.lost, smaller) == still


def test_the_mended_store_loses_nothing() -> None:
    with Zygote(trial.lost) as zygote:
        for seed in range(6):
            result = zygote.run(trial.lost, trial.draw(seed)._replace(careful=True))
            assert not isinstance(result, Died), result.reason
            assert result is None, f"seed {seed}: {result}"


def test_the_store_knows_nothing_of_the_simulator() -> None:
    assert "seatrial" not in Path(trial.__file__).with_name("primary_backup.py").read_text()

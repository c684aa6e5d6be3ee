"""A trial is complete data: it survives its file, and nonsense is refused with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.trial.command import build_trial
from seatrial.trial.model import BadTrial, Trial, parse_duration

WORDS = st.text("abcdefgh-", min_size=1, max_size=8)
TRIALS = st.builds(
    Trial,
    system=WORDS,
    version=st.none() | WORDS,
    nodes=st.integers(1, 9),
    workloads=st.lists(WORDS, min_size=1, max_size=3).map(tuple),
    faults=st.lists(WORDS, max_size=3).map(tuple),
    duration_s=st.floats(0.1, 3600),
    seed=st.integers(0, 2**32),
    unavailability_max_s=st.none() | st.floats(0.1, 10),
    read_from=st.sampled_from(("leader", "followers")),
    options=st.dictionaries(WORDS, st.text(max_size=10), max_size=3),
)


@given(trial=TRIALS)
def test_a_trial_survives_its_file(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trial") / "trial.toml"
    trial.save(path)
    assert Trial.load(path) == trial


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("2m", 120), ("500ms", 0.5), ("1h", 3600), ("7", 7), (" 1.5 s ", 1.5)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-3s", "3 days", "1e3s", "half"])
def test_a_bad_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadTrial, match="write for example 30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nodes = 0", "1 to 9 nodes"),
        ("nodes = 'three'", "nodes"),
        ("duration_s = 0", "duration"),
        ("nodez = 3", "nodez"),
        ("environment = 'moon'", "one of local"),
        ("workloads = []", "seatrial list workloads"),
        ("not toml", "trial.toml"),
    ],
)
def test_a_bad_trial_file_is_refused_with_its_name_and_the_field(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    path.write_text(content)
    with pytest.raises(BadTrial, match=said) as caught:
        Trial.load(path)
    assert "trial.toml" in str(caught.value)


def test_a_missing_trial_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTrial, match="cannot read"):
        Trial.load(tmp_path / "none.toml")


def test_options_override_the_file_and_the_rest_stays() -> None:
    base = Trial(seed=7, faults=("kill",), workloads=("kv",))
    changed = build_trial(base, {"duration_s": 5.0, "seed": 8})
    assert changed == Trial(seed=8, faults=("kill",), workloads=("kv",), duration_s=5.0)


def test_the_replay_command_names_everything_that_differs_from_the_defaults() -> None:
    trial = Trial(
        system="etcd", version="3.5.1", nodes=5, workloads=("kv-txn",), faults=("kill",), duration_s=60, seed=3,
        unavailability_max_s=3, read_from="followers", options={"b": "2", "a": "x y"},
    )  # fmt: skip
    assert trial.command() == (
        "seatrial run --system etcd --etcd-version 3.5.1 --nodes 5 --workload kv-txn --read-from followers "
        "--faults kill --duration 60s --seed 3 --unavailability-max 3s --option 'a=x y' --option b=2"
    )

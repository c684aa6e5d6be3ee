"""`seatrial sim`: exit statuses, what is printed where, and that a failure can be replayed, shrunk and kept."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from seatrial.cli import run_arguments
from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case
from seatrial.sim.core import run_case


def beside(name: str) -> ModuleType:
    """A module of this directory, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stale_lease = beside("dishonest_clock").stale_lease
CORE = ["sim", "--level", "core", "--duration", "500ms"]


def written(case: Case, directory: Path) -> str:
    path = directory / "case.toml"
    path.write_text(case.to_toml())
    return str(path)


@pytest.mark.slow
def test_sound_seeds_are_valid_with_their_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arguments([*CORE, "--seeds", "3", "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("✓ VALID  3 seeds, no promise broken (level core, seeds 0 to 2)")
    assert "operations:" in printed.out and "virtual seconds" in printed.out
    assert "3 / 3 seeds" in printed.err


@pytest.mark.slow
def test_json_is_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arguments([*CORE, "--seeds", "2", "--first-seed", "5", "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert printed.err == ""
    assert (told["validity"], told["level"], told["first_seed"], told["done"]) == ("VALID", "core", 5, 2)
    assert told["failing"] == [] and told["events"] > 0


@pytest.mark.slow
def test_a_case_that_fails_is_invalid_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arguments(["sim", written(stale_lease(), tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("✗ INVALID  level core, seed 0: 3 faults, 3 nodes, 4 s\n  nonlinearizable at")
    assert "beyond what Raft claims to survive" in printed.err


@pytest.mark.slow
def test_its_twin_within_the_budget_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arguments(["sim", written(stale_lease(drift_ppm=-20_000), tmp_path)]) == 0
    assert "beyond" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_trace_is_printed_line_by_line_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    one = [*CORE, "--seed", "7"]
    assert run_arguments(one) == 0
    quiet = capsys.readouterr().out
    assert run_arguments([*one, "--trace"]) == 0
    traced = capsys.readouterr().out
    assert traced.endswith(quiet), "the verdict and its digest"
    assert len(traced.splitlines()) > 100
    assert run_arguments([*one, "--trace", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["outcome"]["digest"] in quiet
    assert len(printed.err.splitlines()) > 100


@pytest.mark.slow
def test_a_failure_is_shrunk_saved_and_comes_as_a_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pause and all settings but the leases go; the drift and the cut stay, on fewer links."""
    path = written(stale_lease(), tmp_path)
    assert run_arguments(["sim", path, "--shrink", "--save", str(tmp_path / "kept")]) == 1
    printed = capsys.readouterr().out
    (kept,) = (tmp_path / "kept").iterdir()
    assert f"saved {kept}" in printed
    smaller = Case.load_file(kept)
    assert sorted(fault.kind for fault in smaller.faults) == ["clock-drift", "cut"]
    assert smaller.raft.lease_reads and smaller.duration_us < 4_000_000
    assert run_case(smaller).violations[0].name == "nonlinearizable"
    assert kept.read_text().startswith("# nonlinearizable: ")
    assert re.search(r"def test_no_nonlinearizable_as_found_by_seed_\d+\(\) -> None:", printed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--level", "deep"], "there is no level 'deep'"),
        (["--trace"], "--trace shows one run"),
        (["--save", "x"], "--save keeps one case"),
        (["--seeds", "0"], "--seeds and --jobs must be 1 or more"),
        (["--jobs", "0"], "--seeds and --jobs must be 1 or more"),
        (["--nodes", "12"], "1 to 9 nodes"),
        (["--duration", "soon"], "not a duration"),
        (["--duration", "2h"], "at most an hour"),
        (["--seed", "1", "--coverage"], "--coverage asks what many seeds reached"),
        (["--seed", "1", "--mutant", "all"], "--mutant plants bugs"),
        (["--mutant", "gremlin"], "gremlin"),
        (["no-such-file.toml"], "cannot read no-such-file.toml"),
        (["no-such-file.toml", "--seed", "1"], "not both"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_a_usage_error_that_says_so(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_arguments(["sim", *arguments]) == 64
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('level = "core"', "seed"),
        ('level = "core"\nseed = 1\nspeed = 3', "speed"),
        ('level = "core"\nseed = 1\n[[faults]]\nat_us = 0\nkind = "flood"\n', "no such kind"),
        ('level = "core"\nseed = ', "case.toml"),
    ],
)
def test_a_case_file_that_makes_no_sense_is_refused_by_field(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "case.toml"
    path.write_text(text)
    assert run_arguments(["sim", str(path)]) == 64
    assert said in capsys.readouterr().err


def test_the_documented_case_file_is_one() -> None:
    page = Path(__file__).parents[3] / "docs" / "simulator.md"
    (text,) = re.findall(r"```toml\n(.*?)```", page.read_text(), flags=re.DOTALL)
    case = Case.from_toml(text)
    assert (malformed(case), over_budget(case)) == (None, None)
    assert [fault.kind for fault in case.faults] == ["cut", "crash"]

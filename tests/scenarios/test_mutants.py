"""That the scenarios fail where they have to: on bugs that are planted into every simulated node (`mutants.toml`)."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seatrial.sim.mutants_catalogue import MUTANTS

HERE = Path(__file__).parent
CAUGHT: list[dict[str, Any]] = tomllib.loads((HERE / "mutants.toml").read_text())["caught"]
SAMPLE = [entry for entry in CAUGHT if entry.get("sample")]
DEADLINE_S = 300


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.AsyncFunctionDef)}


def ran(entry: dict[str, Any], *options: str) -> str:
    """The last lines of a pytest that ran the scenario."""
    scenario = str(HERE / entry["scenario"])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--cluster-seed={entry['seed']}"]
    command += [f"--timeout={DEADLINE_S}", f"--cluster-real-timeout={DEADLINE_S}"]  # a busy machine may need them
    done = subprocess.run([*command, *options, scenario], capture_output=True, text=True, timeout=DEADLINE_S + 10)
    return done.stdout[-6000:] + done.stderr[-2000:]


def test_every_entry_names_a_scenario_and_a_mutant() -> None:
    assert CAUGHT
    for entry in CAUGHT:
        file, _, name = entry["scenario"].partition("::")
        assert name.partition("[")[0] in functions_of(HERE / file), f"there is no scenario {entry['scenario']}"
        assert entry["mutant"] in MUTANTS, f"there is no mutant {entry['mutant']}"
    pairs = [(entry["scenario"], entry["mutant"]) for entry in CAUGHT]
    assert len(pairs) == len(set(pairs))


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE_S + 20)
@pytest.mark.parametrize("entry", SAMPLE, ids=lambda entry: f"{entry['mutant']}-{entry['suite']}")
def test_scenario_fails_on_its_mutant(entry: dict[str, Any], tmp_path: Path) -> None:
    """That it passes on the code as it is, is what the suites say whenever they run."""
    with_bug = ran(entry, f"--cluster-directory={tmp_path}", f"--cluster-mutant={entry['mutant']}")
    assert "1 failed" in with_bug, with_bug
    assert "zygote" not in with_bug, with_bug  # it failed, and not what it runs in

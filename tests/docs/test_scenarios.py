"""docs/scenarios.md is made from the suites themselves; `SEATRIAL_REWRITE=1 pytest tests/docs` writes it anew."""

from __future__ import annotations

import ast
import functools
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITES = ROOT / "tests" / "scenarios"
PAGE = ROOT / "docs" / "scenarios.md"
LEAST = 110
# By the beginning of the file's name; the page has them in this order.
NAMES = {
    "leader_election": "Leader election",
    "replication": "Replication",
    "partitions": "Partitions",
    "failures": "Failures and recovery",
    "clients": "Clients",
    "reads": "Clients",
    "follower_reads": "Follower reads",
    "membership": "Membership",
    "network_layer": "Network layer",
    "bootstrap": "Cluster bootstrap",
    "randomised": "Randomised",
}
HEAD = """# Scenarios

Every scenario of `tests/scenarios/`, one test each, written once for `cluster`. *Where*: sim is the simulator,
over many seeds; local is real processes, where CI runs those marked †; etcd is etcd {version}, by
`SEATRIAL_ETCD=/path/to/etcd pytest --cluster-env=local --cluster-system=etcd tests/scenarios`, for what needs nothing
of our own server. *Fails on*: planted bugs ([mutants](mutants.md)) on which the scenario was seen to fail;
`--cluster-mutant=NAME` plants one.

`make scenarios-sim` runs each in the simulator with 20 seeds, and prints how often each passed, with the interval in
which its true rate lies; `make scenarios` then runs the real ones on processes, `make flakes` those 20 times.

Made from the suites: `SEATRIAL_REWRITE=1 pytest tests/docs/test_scenarios.py`.
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    suite: str
    file: str
    name: str
    claim: str
    where: str


def suite_of(file: Path) -> str | None:
    """None: the file holds no scenarios."""
    stem = file.stem.removeprefix("test_")
    return next((suite for beginning, suite in NAMES.items() if stem.startswith(beginning)), None)


def marks_of(test: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return " ".join(ast.unparse(decorator) for decorator in test.decorator_list)


def on_etcd() -> dict[str, Any]:
    """What is known to pass there: `version` and `passed`."""
    return tomllib.loads((SUITES / "etcd.toml").read_text())


def where(test: ast.FunctionDef | ast.AsyncFunctionDef, shared: str) -> str:
    if all(argument.arg != "cluster" for argument in test.args.args):
        return "local †"
    marks = f"{shared} {marks_of(test)}"
    if "environments('sim'" in marks:
        return "sim"
    if "environments('local'" in marks or "LOCAL" in marks:
        return "local †"
    return "sim, local †" if ".real" in marks else "sim, local"


@functools.cache
def scenarios() -> tuple[Scenario, ...]:
    return tuple(_read())


def _read() -> Iterator[Scenario]:
    for file in sorted(SUITES.glob("test_*.py")):
        suite = suite_of(file)
        if suite is None:
            continue
        tree = ast.parse(file.read_text())
        shared = " ".join(
            ast.unparse(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        )
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                claim = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                yield Scenario(suite, file.name, node.name, claim, where(node, shared))


def mutants() -> dict[tuple[str, str], list[str]]:
    """(file, test): the mutants on which it was seen to fail."""
    caught: dict[tuple[str, str], list[str]] = {}
    for entry in tomllib.loads((SUITES / "mutants.toml").read_text())["caught"]:
        file, _, name = entry["scenario"].partition("::")
        caught.setdefault((file, name.partition("[")[0]), []).append(entry["mutant"])
    return caught


def page() -> str:
    caught, found, etcd = mutants(), scenarios(), on_etcd()
    parts = [HEAD.format(version=etcd["version"])]
    for suite in dict.fromkeys(NAMES.values()):
        parts.append(f"\n## {suite}\n\n| scenario | claim | where | fails on |\n|---|---|---|---|\n")
        for one in found:
            if one.suite == suite:
                bugs = ", ".join(f"`{bug}`" for bug in dict.fromkeys(caught.get((one.file, one.name), ())))
                name = one.name.removeprefix("test_").replace("_", " ")
                places = one.where + ", etcd" * (f"{one.file}::{one.name}" in etcd["passed"])
                parts.append(f"| {name} | {one.claim.replace('|', '&#124;')} | {places} | {bugs} |\n")
    parts.append(f"\n{len(found)} scenarios.\n")
    return "".join(parts)


def test_the_page_of_scenarios_says_what_the_suites_are() -> None:
    made = page()
    if os.environ.get("SEATRIAL_REWRITE"):
        PAGE.write_text(made)
    assert PAGE.read_text() == made, "docs/scenarios.md is behind: SEATRIAL_REWRITE=1 pytest tests/docs"


def test_there_are_as_many_scenarios_as_were_promised_and_each_says_its_claim() -> None:
    found = scenarios()
    assert len(found) >= LEAST
    assert not [one for one in found if not one.claim]


@pytest.mark.parametrize("suite", dict.fromkeys(NAMES.values()))
def test_each_suite_was_seen_to_fail_on_a_mutant(suite: str) -> None:
    named = {(one.file, one.name) for one in scenarios() if one.suite == suite}
    assert named & set(mutants()), f"no scenario of {suite} is in mutants.toml"


def test_what_is_said_to_pass_on_etcd_is_a_scenario_that_can_run_there() -> None:
    places = {f"{one.file}::{one.name}": one.where for one in scenarios()}
    passed = on_etcd()["passed"]
    assert len(passed) == len(set(passed))
    assert not [name for name in passed if "local" not in places.get(name, "")]

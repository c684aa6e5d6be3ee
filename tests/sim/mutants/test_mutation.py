"""Planting a bug changes what a fresh process imports, that module alone, and leaves this process as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seatrial.sim.mutation import Mutant, MutantDisarmed, changed_lines, mutated

MAJORITY = Mutant(
    name="one-is-a-majority",
    summary="One vote is enough.",
    source="a test",
    module="seatrial.raft.quorum",
    before="return voters // 2 + 1",
    after="return 1",
    level="core",
)

PROGRAM = """
import sys
import seatrial.raft.quorum as before
from seatrial.sim.mutation import Mutant, plant
plant(Mutant(name="x", summary="", source="", module={module!r}, before={before!r}, after={after!r}, level="core"))
import seatrial.raft.quorum as planted
import seatrial.raft.roles as other
from seatrial.sim.case import Case
assert planted is not before
print(before.majority_size(5), planted.majority_size(5), type(other.__loader__).__name__, Case.__name__)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_planted_bug_is_in_what_is_imported_afterwards() -> None:
    done = run(PROGRAM.format(module=MAJORITY.module, before=MAJORITY.before, after=MAJORITY.after))
    assert done.stdout == "3 1 SourceFileLoader Case\n", done.stderr


@pytest.mark.slow
def test_bytecode_of_a_planted_bug_is_not_kept() -> None:
    run(PROGRAM.format(module=MAJORITY.module, before=MAJORITY.before, after=MAJORITY.after))
    done = run("from seatrial.raft.quorum import majority_size; print(majority_size(5))")
    assert done.stdout == "3\n", done.stderr


@pytest.mark.slow
def test_planting_what_does_not_fit_is_refused_in_the_process_itself() -> None:
    done = run(PROGRAM.format(module=MAJORITY.module, before="no such text", after=""))
    assert done.returncode != 0
    assert "MutantDisarmed: mutant x: its text occurs 0 times in seatrial.raft.quorum" in done.stderr


def test_text_that_occurs_twice_is_refused() -> None:
    with pytest.raises(MutantDisarmed, match="occurs 2 times"):
        mutated(MAJORITY, "return voters // 2 + 1\nreturn voters // 2 + 1\n")


def test_changed_lines_are_those_gone_and_those_new() -> None:
    assert changed_lines("a\nb\nc", "a\nx\nc") == (["b"], ["x"])
    assert changed_lines("a\nb\nc", "a\nc") == (["b"], [])
    assert changed_lines("a\nc", "a\nb\nc") == ([], ["b"])

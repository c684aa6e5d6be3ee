"""A planted bug as data, and how it gets into the code: the module's source is changed as it is imported.

    mutant = Mutant(name=…, module="seatrial.raft.election", before="if granted:", after="if True:", …)
    with_mutant = importing a fresh seatrial after plant(mutant)

Production code carries no switches for it: the text `before`, which occurs exactly once in its module, is replaced by
`after`, and what Python compiles is the result.  Every other module of seatrial is then imported from its source too,
so that compiled extensions (mypyc), where they are installed, do not keep the original.
Rule: a mutant differs from the code in one line: one changed, one put in or one taken out.  One that no longer fits
its module is an error, never an original that passes for a mutant.
Knows nothing of what the bugs do, or of how they are found (`mutants`, `mutants_hunt`).
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from seatrial.sim.case import Level

PACKAGE: Final = "seatrial"


class MutantDisarmed(Exception):
    """The mutant does not fit its module any more: the code was changed and the table was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted bug.

    summary: what the code does wrong, as one sentence.  source: where the bug is known from: a section of the paper or
    the dissertation, a KIP, an incident.  module: dotted, in seatrial.  level: where it is hunted.  cases: how the
    cases are drawn, a name in `mutants_cases.FAMILIES`; "swarm" are the simulator's own.
    """

    name: str
    summary: str
    source: str
    module: str
    before: str
    after: str
    level: Level
    cases: str = "swarm"


def source_path(module: str) -> Path:
    """Of a module of seatrial, whether it is imported or compiled or neither."""
    root = Path(__file__).resolve().parents[1]
    assert module.startswith(f"{PACKAGE}."), f"{module} is not a module of {PACKAGE}"
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def mutated(mutant: Mutant, source: str) -> str:
    """The module's source with the bug in it.  Raises MutantDisarmed."""
    count = source.count(mutant.before)
    if count != 1:
        raise MutantDisarmed(
            f"mutant {mutant.name}: its text occurs {count} times in {mutant.module}, and must occur once; "
            f"fit `before` and `after` to the code as it is now:\n{mutant.before}"
        )
    return source.replace(mutant.before, mutant.after)


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that one text has and the other has not: (gone, new)."""
    difference = list(unified_diff(before.splitlines(), after.splitlines(), n=0))[2:]
    gone = [line[1:] for line in difference if line.startswith("-")]
    new = [line[1:] for line in difference if line.startswith("+")]
    return gone, new


class _MutatedLoader(SourceFileLoader):
    """Compiles the changed source; the bytecode cache of the original is neither read nor written."""

    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = mutated(self._mutant, self.get_data(self.path).decode())
        code: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return code


class MutantFinder(importlib.abc.MetaPathFinder):
    """Finds every module of seatrial by its source file, and changes one of them."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        source = source_path(fullname)
        if not source.is_file():
            return None
        loader: SourceFileLoader = SourceFileLoader(fullname, str(source))
        if fullname == self.mutant.module:
            loader = _MutatedLoader(fullname, str(source), self.mutant)
        packages = [str(source.parent)] if source.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, source, loader=loader, submodule_search_locations=packages
        )


def plant(mutant: Mutant) -> None:
    """From here on this process imports seatrial with the bug in it; what was imported before is forgotten.

    For processes that do nothing else: objects made before belong to the old modules.  Raises MutantDisarmed.
    """
    path = source_path(mutant.module)
    if not path.is_file():
        raise MutantDisarmed(f"mutant {mutant.name}: there is no module {mutant.module} ({path})")
    mutated(mutant, path.read_text())
    assert not any(isinstance(finder, MutantFinder) for finder in sys.meta_path), "one mutant a process"
    finders: list[Any] = sys.meta_path
    finders.insert(0, MutantFinder(mutant))
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]

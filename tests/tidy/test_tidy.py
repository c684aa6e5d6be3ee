"""The house rules that a program can check: who imports whom, sizes, banned calls, names, dead modules, documents."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "seatrial"
MODULES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

SERVER_WING = frozenset({"raft", "storage", "transport", "machines", "kafka", "server"})
# Who may import whom, inside seatrial.  What is not listed is forbidden; a package may always import itself.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "env": frozenset(),
    "marks": frozenset(),
    "history": frozenset(),
    "rundir": frozenset({"history"}),
    "raft": frozenset({"marks"}),
    "storage": frozenset({"raft", "env", "marks"}),
    "transport": frozenset({"raft", "env", "marks"}),
    "machines": frozenset({"raft", "marks"}),
    "kafka": frozenset({"machines", "marks"}),
    "server": frozenset({"raft", "storage", "transport", "machines", "kafka", "env", "marks"}),
    "checkers": frozenset({"history"}),
    "workloads": frozenset({"history", "checkers", "env"}),
    "cluster": frozenset({"env", "rundir"}),
    "faults": frozenset({"cluster", "history", "env"}),
    "report": frozenset({"history", "rundir", "checkers"}),
    # The one place where the wings meet; of the faults only the pure plan and targets.
    "sim": SERVER_WING | {"env", "marks", "history", "rundir", "workloads", "checkers", "faults"},
    "trial": frozenset({"sim", "cluster", "faults", "workloads", "checkers", "history", "rundir", "report", "env"}),
    "scenario": frozenset({"cluster", "workloads", "faults", "history", "checkers", "trial", "sim", "env", "rundir"}),
    "plugin": frozenset({"scenario", "cluster", "sim", "checkers", "history", "rundir", "report"}),
    "pytest_plugin": frozenset({"plugin", "scenario", "cluster"}),
    "cli": frozenset({"trial", "sim", "server"}),
    "launcher": frozenset({"server", "cluster", "cli"}),
}
STANDARD_LIBRARY_ONLY = frozenset({"env", "marks", "history", "rundir", "raft"})
# A third-party package stands in as few modules as it can.
STANDS_IN: dict[str, frozenset[str]] = {
    "jinja2": frozenset({"report.html"}),
    "typer": frozenset({"cli"}),
    "prometheus_client": frozenset({"server.metrics", "cluster.proxy.metrics"}),
    "uvloop": frozenset({"server.process", "cluster.proxy.process"}),
    "numpy": frozenset({"checkers.registers_numpy"}),
    "grpc": frozenset({"transport.grpc"}),
    "google": frozenset({"transport.raft_pb2"}),
}
BANNED_IN_SERVER_WING = frozenset(
    {"time", "random", "secrets", "threading", "uuid", "datetime", "subprocess", "tempfile"}
)
BANNED_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})
MODULE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70
MOCK_FREE_TESTS = ("raft", "storage", "kafka", "sim", "transport", "machines", "server", "checkers")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


def name_of(path: Path) -> str:
    """`raft.node` for src/seatrial/raft/node.py; `raft` for its __init__."""
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


@functools.cache
def imports_of(path: Path) -> tuple[tuple[str, int], ...]:
    """Every module that a file imports, wherever in it, with the line; none of them is relative."""
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it in full"
            found.append((node.module or "", node.lineno))
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def package_of(module: str) -> str:
    return module.split(".")[0]


def nowhere(offences: Iterator[str]) -> None:
    """A rule is broken in no file; or else in these, all of them told."""
    assert not (found := list(offences)), "\n".join(found)


def test_imports_follow_the_table() -> None:
    def offences() -> Iterator[str]:
        for path in MODULES:
            if not (package := package_of(name_of(path))):
                continue
            if package not in MAY_IMPORT:
                yield f"{path}: {package} has no line in the import table; add it to ARCHITECTURE.md and here"
                continue
            allowed = MAY_IMPORT[package] | {package, "__version__"}
            for module, line in imports_of(path):
                if module.startswith("seatrial.") and (target := module.split(".")[1]) not in allowed:
                    yield f"{path}:{line}: {package} may not import {target}"

    nowhere(offences())


def test_third_party_imports_stand_where_they_may() -> None:
    def offences() -> Iterator[str]:
        for path in MODULES:
            name = name_of(path)
            for module, line in imports_of(path):
                top = package_of(module)
                if top in ("seatrial", "") or top in sys.stdlib_module_names:
                    continue
                if package_of(name) in STANDARD_LIBRARY_ONLY:
                    yield f"{path}:{line}: {name} is standard library only"
                if name not in STANDS_IN.get(top, {name}):
                    yield f"{path}:{line}: {top} belongs in {STANDS_IN[top]}"

    nowhere(offences())


def test_server_wing_takes_time_and_chance_from_the_seams() -> None:
    def offences() -> Iterator[str]:
        for path in MODULES:
            if package_of(name_of(path)) not in SERVER_WING:
                continue
            for module, line in imports_of(path):
                if package_of(module) in BANNED_IN_SERVER_WING:
                    yield f"{path}:{line}: {module} breaks replay; use env"
            for node in nodes_of(path):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                    yield f"{path}:{node.lineno}: open() bypasses env.Files"
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    dotted = f"{node.value.id}.{node.attr}"
                    if dotted in {"os.urandom", "os.getpid", "os.open"}:
                        yield f"{path}:{node.lineno}: {dotted} breaks replay"

    nowhere(offences())


def test_modules_and_functions_stay_small() -> None:
    def offences() -> Iterator[str]:
        for path in MODULES:
            lines = len(path.read_text().splitlines())
            if lines > MODULE_LINES_MAX:
                yield f"{path}: {lines} lines; split it"
            for node in nodes_of(path):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > FUNCTION_LINES_MAX:
                        yield f"{path}:{node.lineno}: {node.name} has {length} lines"

    nowhere(offences())


def test_every_module_says_what_it_is_for() -> None:
    def offences() -> Iterator[str]:
        for path in MODULES:
            tree = tree_of(path)
            if path.name == "__init__.py" and not tree.body:
                continue
            if not ast.get_docstring(tree):
                yield f"{path} has no docstring"
            if path.stem in BANNED_NAMES:
                yield f"{path}: a name that says nothing"

    nowhere(offences())


def test_package_init_files_hold_reexports_only() -> None:
    for path in MODULES:
        if path.name != "__init__.py":
            continue
        for node in tree_of(path).body:
            plain = isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.Expr)
            assert plain, f"{path}:{node.lineno}: code in __init__"


def test_no_module_is_dead() -> None:
    """Each module is imported by another, is run by another (`python -m`), or is an entry point."""
    imported = {module for path in MODULES for module, _ in imports_of(path)}
    imported |= {match for path in MODULES for match in re.findall(r'"-m", "([\w.]+)"', path.read_text())}
    entry_points = {"launcher", "pytest_plugin", "sim.strategies"}
    for path in MODULES:
        name = name_of(path)
        if path.name in ("__init__.py", "__main__.py") or name in entry_points:
            continue
        assert f"seatrial.{name}" in imported, f"{path} is imported by nobody"


def test_no_unowned_todo() -> None:
    def offences() -> Iterator[str]:
        for path in MODULES + TESTS:
            if path == Path(__file__):
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.search(r"\b(TODO|FIXME|XXX)\b", line) and not re.search(r"issue \d+", line):
                    yield f"{path}:{number}: a TODO without its issue"

    nowhere(offences())


def test_no_mocks_where_fakes_belong() -> None:
    def offences() -> Iterator[str]:
        for path in TESTS:
            in_scope = path.relative_to(ROOT / "tests").parts[0] in MOCK_FREE_TESTS
            if in_scope and "mock" in path.read_text():  # whoever imports it names it; parsing takes longer
                for module, line in imports_of(path):
                    if module.startswith("unittest.mock"):
                        yield f"{path}:{line}: unittest.mock is banned here"

    nowhere(offences())


def test_links_in_documents_lead_somewhere() -> None:
    def offences() -> Iterator[str]:
        for path in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
                if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                    yield f"{path}: broken link {target}"

    nowhere(offences())


def test_architecture_names_every_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for package in MAY_IMPORT:
        assert f"`{package}" in text, f"ARCHITECTURE.md does not mention `{package}`"

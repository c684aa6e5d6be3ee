"""The house rules that a program can check: who imports whom, sizes, banned calls, names, dead modules, documents."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def name_of(path: Path) -> str:
    """`raft.node` for src/seatrial/raft/node.py; `raft` for its __init__."""
    parts = list(path.relative_to(SOURCE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in it, with the line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it in full"
            yield node.module or "", node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def package_of(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_follow_the_table(path: Path) -> None:
    package = package_of(name_of(path))
    if not package:
        return
    allowed = MAY_IMPORT.get(package)
    assert allowed is not None, f"{package} has no line in the import table; add it to ARCHITECTURE.md and here"
    for module, line in imports_of(path):
        if module.startswith("seatrial."):
            target = module.split(".")[1]
            assert target == package or target in allowed or target == "__version__", (
                f"{path}:{line}: {package} may not import {target}"
            )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_third_party_imports_stand_where_they_may(path: Path) -> None:
    import sys

    name = name_of(path)
    for module, line in imports_of(path):
        top = module.split(".")[0]
        if top in ("seatrial", "") or top in sys.stdlib_module_names:
            continue
        assert package_of(name) not in STANDARD_LIBRARY_ONLY, f"{path}:{line}: {name} is standard library only"
        assert name in STANDS_IN.get(top, frozenset({name})), f"{path}:{line}: {top} belongs in {STANDS_IN[top]}"


@pytest.mark.parametrize("path", [p for p in MODULES if package_of(name_of(p)) in SERVER_WING], ids=name_of)
def test_server_wing_takes_time_and_chance_from_the_seams(path: Path) -> None:
    for module, line in imports_of(path):
        assert module.split(".")[0] not in BANNED_IN_SERVER_WING, f"{path}:{line}: {module} breaks replay; use env"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"{path}:{node.lineno}: open() bypasses env.Files"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = f"{node.value.id}.{node.attr}"
            assert dotted not in {"os.urandom", "os.getpid", "os.open"}, f"{path}:{node.lineno}: {dotted} breaks replay"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MODULE_LINES_MAX, f"{path}: {lines} lines; split it"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    tree = tree_of(path)
    if path.name == "__init__.py" and not tree.body:
        return
    assert ast.get_docstring(tree), f"{path} has no docstring"
    assert path.stem not in BANNED_NAMES, f"{path}: a name that says nothing"


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


@pytest.mark.parametrize("path", MODULES + TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_unowned_todo(path: Path) -> None:
    if path == Path(__file__):
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            assert re.search(r"issue \d+", line), f"{path}:{number}: a TODO without its issue"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_mocks_where_fakes_belong(path: Path) -> None:
    parts = path.relative_to(ROOT / "tests").parts
    if parts[0] in MOCK_FREE_TESTS:
        for module, line in imports_of(path):
            assert not module.startswith("unittest.mock"), f"{path}:{line}: unittest.mock is banned here"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path}: broken link {target}"


def test_architecture_names_every_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for package in MAY_IMPORT:
        assert f"`{package}" in text, f"ARCHITECTURE.md does not mention `{package}`"

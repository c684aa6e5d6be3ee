"""A directory with a test file of its own, and a pytest of its own run there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

# pytester gives each pytest a new home; the C shim is not to be compiled anew in each.
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
ETCD = Path("/usr/local/bin/etcd")
PLAIN = ("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider")

RunTests = Callable[..., pytest.RunResult]


@pytest.fixture
def run_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> RunTests:
    """Write a test file, and run pytest on it with these arguments in a process of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "COV"))]:
        monkeypatch.delenv(name)

    def run(source: str, *arguments: str, plain: bool = True) -> pytest.RunResult:
        if source:
            pytester.makepyfile(test_it=source)
        return pytester.runpytest_subprocess(*(PLAIN if plain else ()), *arguments, timeout=100)

    return run


def properties_in(path: Path) -> dict[str, dict[str, str]]:
    """Of a JUnit file, each test's properties."""
    return {
        case.attrib["name"]: {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        for case in ElementTree.parse(path).getroot().iter("testcase")
    }


def line_after(result: pytest.RunResult, beginning: str) -> str:
    """The rest of the first line of the output that begins so."""
    found = re.search(rf"^{re.escape(beginning)}(.*)$", result.stdout.str(), re.MULTILINE)
    assert found is not None, f"no line begins with {beginning!r} in:\n{result.stdout.str()}"
    return found[1].strip()

"""The pytest plugin: options, marks, fixtures, and the hooks through which tests that use `cluster` are run.

    async def test_majority_keeps_serving(cluster):
        leader = await cluster.wait_for_leader(timeout=5)
        ...

Rule: a pytest that runs no such test pays nothing for this: everything else of seatrial is imported when the first one
is found.  Tests that do not use `cluster` are left to whoever runs them.
Knows nothing of how a test is run (`seatrial.plugin`).
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from seatrial.plugin.conductor import Conductor  # noqa: F401  of the key's type
    from seatrial.scenario import ScenarioCluster

# The module search path as pytest was started, before any conftest or test added to it.
_START_PATHS = tuple(sys.path)
MARKS = (
    "cluster(nodes=3, system='own', version=None, options={}, boot=True, timeout=60): the cluster that a test gets",
    "environments(*names, reason=None): where a test can run: 'sim', 'local'; elsewhere it is skipped",
    "real(): a simulated test that is also worth its time on real processes (`-m real --cluster-env=local`)",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("seatrial", "clusters under test (seatrial)")
    add = group.addoption
    add(
        "--cluster-env",
        choices=("sim", "local", "netns"),
        help="where clusters run: simulated (exact replay), or as real processes; by default each test's first choice",
    )
    add("--cluster-system", metavar="NAME", help="own, etcd, or a driver's TOML file; by default as the test says")
    add("--cluster-seed", type=int, metavar="N", help="seed of every test; by default each test has its own")
    add("--cluster-repeat", type=int, default=1, metavar="N", help="run each test up to N times, until a seed fails")
    add(
        "--flake-hunt",
        type=int,
        nargs="?",
        const=20,
        metavar="N",
        help="run each test N times (20) over seeds and print the pass rates",
    )
    add(
        "--cluster-mutant",
        metavar="NAME",
        help="plant this bug of seatrial's own in every simulated node (docs/mutants.md)",
    )
    add("--cluster-keep", action="store_true", help="keep the run directories of tests that passed as well")
    add("--cluster-timeout", type=float, metavar="S", help="seconds that a test may take (60, or as it says itself)")
    add(
        "--cluster-real-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="real seconds that a simulated test may take (120)",
    )
    add("--cluster-directory", metavar="DIR", help="where run directories are made (.seatrial in pytest's root)")
    parser.addini("cluster_pass_env", "environment variables that simulated tests are to see", "args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if any(
        config.getoption(name) is not None for name in ("cluster_env", "cluster_system", "cluster_mutant", "flake_hunt")
    ):
        from seatrial.plugin.settings import settings_of

        settings_of(config)  # what makes no sense is refused at once


def pytest_unconfigure(config: pytest.Config) -> None:
    if _CONDUCTOR in config.stash:
        config.stash[_CONDUCTOR].close()


_CONDUCTOR = pytest.StashKey["Conductor"]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say of each test that uses `cluster` what it is to have; or why it is skipped."""
    ours = [item for item in items if isinstance(item, pytest.Function) and _uses_our_cluster(item)]
    if not ours or config.pluginmanager.has_plugin("seatrial-collector"):
        return
    from seatrial.plugin.settings import settings_of, wanted_by

    settings = settings_of(config)
    from seatrial.plugin.conductor import WANTED, Conductor

    for item in ours:
        wanted = wanted_by(item, settings)
        if wanted.skip is not None:
            item.add_marker(pytest.mark.skip(reason=wanted.skip))
        else:
            item.stash[WANTED] = wanted
    if _CONDUCTOR not in config.stash:
        config.stash[_CONDUCTOR] = Conductor(config, settings, paths=list(_START_PATHS))


def _uses_our_cluster(item: pytest.Function) -> bool:
    """Whether the test's `cluster` is the plugin's, or made of it; others have fixtures of that name too."""
    for definition in reversed(item._fixtureinfo.name2fixturedefs.get("cluster", ())):
        if definition.func.__module__ == __name__:
            return True
        if "cluster" not in definition.argnames:
            return False
    return False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    conductor = item.config.stash.get(_CONDUCTOR, None)
    if conductor is None:
        return None
    from seatrial.plugin.conductor import WANTED

    if WANTED not in item.stash:
        return None
    conductor.run(item, nextitem)
    return True


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Leave what pytest-timeout gives a test where the conductor finds it: it holds for each of the test's runs."""
    if _CONDUCTOR in item.config.stash:
        from seatrial.plugin.conductor import TIMER

        item.stash[TIMER] = settings


def _something_runs() -> bool:
    """Whether tests are run in this process: those that are simulated are run in others."""
    return "seatrial.plugin.items" in sys.modules


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    if "cluster" not in request.fixturenames or not _something_runs():
        return (yield)
    from seatrial.plugin.items import make_fixture_synchronous

    undo = make_fixture_synchronous(fixturedef, request)
    try:
        return (yield)
    finally:
        undo()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _something_runs():
        from seatrial.plugin.items import RUNNING, complete

        if RUNNING in item.stash:
            complete(report, item)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.option.flake_hunt is None:
        return
    from seatrial.plugin.flakes import hunted_in, table

    reports = [report for name in ("passed", "failed", "error") for report in terminalreporter.stats.get(name, [])]
    runs = [report for report in reports if isinstance(report, pytest.TestReport)]  # and no file that failed to import
    hunted = {report.nodeid: hunted_in(report.nodeid, report.user_properties) for report in runs}
    terminalreporter.section("flake hunt")
    for line in table(one for one in hunted.values() if one is not None):
        terminalreporter.write_line(line)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[ScenarioCluster]:
    """The test's own cluster: three nodes, or what `@pytest.mark.cluster(...)` says."""
    from seatrial.plugin.items import staged

    for stage in staged(request.node):
        yield stage.cluster


@pytest.fixture
def history(cluster: ScenarioCluster) -> Any:
    """Records operations of a test's own, beside those of `cluster.kv` and `cluster.log`, for the checkers."""
    return cluster.history


@pytest.fixture
def check(cluster: ScenarioCluster) -> Any:
    """Runs checkers, by name, on all that was recorded; fails with the anomalies."""
    return cluster.check


@pytest.fixture
def free_port() -> Iterator[Any]:
    """A function that gives an unused address "host:port" for a port; each is the test's until its end."""
    from seatrial.cluster.ports import lease_addresses

    lease = lease_addresses()
    slots = iter(range(1, 100))
    try:
        yield lambda port=8000: lease.address(next(slots), port)
    finally:
        lease.close()

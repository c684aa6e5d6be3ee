"""The inside of a simulated test: a pinned process that has collected one file, and forks for each run.

Rule: the process that forks does nothing but rehearse and collect; everything that a test or a fixture does happens in
its fork, which ends without tidying up anything that dies with it.  What a bug may be planted in is imported after the
planting.
Knows nothing of who asks (`zygotes`), and nothing of selections, repetitions and reports to people.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

from seatrial.plugin.measuring import is_measured, save_coverage
from seatrial.sim import escape

if TYPE_CHECKING:
    from seatrial.plugin.settings import Wanted

LEFT_OUT: Final = ("no:terminal", "no:xdist")
# What has changed the process already is not imported again when a bug is planted.
KEPT: Final = ("seatrial.sim.escape", "seatrial.sim.shim", "seatrial.sim.launch", "seatrial.sim.forked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What to collect, with the options of the command line (rootdir, ini file and temporary directory included)."""

    file: str
    option: dict[str, Any] = field(default_factory=dict)
    mutant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One run.  stacks: the file for what runs where, if it takes longer than real_timeout_s."""

    nodeid: str
    wanted: Wanted
    seed: int
    directory: str
    keep: bool
    real_timeout_s: float
    stacks: str


class _Collector:
    """A plugin of that pytest: once it has collected, it goes on as told, which does not return."""

    def __init__(self, go_on: Callable[[], NoReturn]) -> None:
        self._go_on = go_on
        self.session: pytest.Session | None = None
        self.items: dict[str, pytest.Item] = {}
        self.problems: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.items = {item.nodeid: item for item in items}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problems.append(report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.problems.append(str(excrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> NoReturn:
        if self.problems:
            raise pytest.UsageError("the file could not be collected")
        self.session = session
        # Each run's directories lie in this one; without it each process would make one of its own, and sweep others'.
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        self._go_on()


_collected: Final[list[_Collector]] = []


def collect(preparation: Preparation, go_on: Callable[[], NoReturn]) -> NoReturn:
    """Be a pytest that collects a file and then goes on as told, with everything that it has in memory."""
    if preparation.mutant is not None:
        from seatrial.sim.mutants_catalogue import MUTANTS
        from seatrial.sim.mutation import plant

        kept = {name: sys.modules[name] for name in KEPT}
        plant(MUTANTS[preparation.mutant])
        sys.modules.update(kept)
        from seatrial.plugin import inside as anew

        anew.collect_file(preparation, go_on)
    collect_file(preparation, go_on)


def collect_file(preparation: Preparation, go_on: Callable[[], NoReturn]) -> NoReturn:
    """As `collect`, with the code as it is imported now."""
    import seatrial.plugin.items  # noqa: F401  it is needed in every run
    from seatrial import scenario

    scenario.warm()
    # A planted bug may break a rehearsal, or never let it end; and what it ran would be taken for what the tests ran.
    if preparation.mutant is None and not is_measured():
        _rehearse()
    left_out = [word for name in LEFT_OUT for word in ("-p", name)]
    config = pytest.Config.fromdictargs(preparation.option, [*left_out, preparation.file])
    collector = _Collector(go_on)
    _collected.append(collector)
    config.pluginmanager.register(collector, "seatrial-collector")
    status = config.hook.pytest_cmdline_main(config=config)
    raise RuntimeError("\n".join(collector.problems) or f"pytest ended with {status!r}")


def _rehearse() -> None:
    """Have what the forks will do done once."""
    from seatrial.scenario.rehearsal import rehearse

    # What prevents it, the tests will meet and tell; it costs them nothing but time.
    with contextlib.suppress(Exception):
        rehearse()


def run_item(order: Order) -> list[dict[str, Any]]:
    """One run of one test in this process, which has to be a fork; its serialised reports."""
    from seatrial.plugin.items import run_protocol

    (collector,) = _collected
    item = collector.items.get(order.nodeid)
    if item is None:
        raise LookupError(f"collecting the whole file did not find {order.nodeid}")
    temporary = item.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    escape.allow_writing(f"{temporary}{os.sep}")
    with Path(order.stacks).open("w") as stacks:
        # The kernel's timer and no thread's: one that comes to run when time is virtual already would take virtual
        # for real time, and end a run that has just begun.
        faulthandler.register(signal.SIGALRM, file=stacks, chain=True)
        signal.setitimer(signal.ITIMER_REAL, order.real_timeout_s)
        try:
            reports = run_protocol(
                item, None, wanted=order.wanted, seed=order.seed, directory=Path(order.directory), keep=order.keep
            )
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.unregister(signal.SIGALRM)
    save_coverage()
    hook = item.config.hook
    return [hook.pytest_report_to_serializable(config=item.config, report=report) for report in reports]

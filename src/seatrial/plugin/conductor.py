"""Runs a test that uses `cluster` as often as it was asked for, and tells pytest of it as of one test.

Rule: a test that is repeated is one test in every report: of its runs the first that failed stands for it, or the last;
the seeds of all are in its properties, and so in JUnit's XML.
Knows nothing of what happens in a run (`items`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from seatrial.plugin.inside import Order
from seatrial.plugin.measuring import measure_other_processes
from seatrial.plugin.settings import SEED_MAX, Settings, Wanted
from seatrial.plugin.zygotes import Zygotes

RUNS_DIRECTORY: Final = ".seatrial"
NAME_LENGTH_MAX: Final = 100
WANTED: Final = pytest.StashKey[Wanted]()
TIMER: Final = pytest.StashKey[Any]()  # the settings that pytest-timeout gave a test, where it is installed


@dataclass(slots=True)
class Runs:
    """What became of the runs of one test.  shown: the reports that stand for it."""

    seeds: list[int] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)
    shown: list[pytest.TestReport] = field(default_factory=list)
    skipped: bool = False
    durations: dict[str, float] = field(default_factory=dict)

    def add(self, seed: int, reports: list[pytest.TestReport]) -> None:
        self.seeds.append(seed)
        failed = any(report.failed for report in reports)
        if not self.failing:
            self.shown = reports
        if failed:
            self.failing.append(seed)
        self.skipped = any(report.skipped and not hasattr(report, "wasxfail") for report in reports)
        for report in reports:
            self.durations[report.when] = self.durations.get(report.when, 0.0) + report.duration


class Conductor:
    """One for a pytest process."""

    def __init__(self, config: pytest.Config, settings: Settings, *, paths: list[str]) -> None:
        self._config = config
        self._settings = settings
        measure_other_processes()
        self._zygotes = Zygotes(
            config,
            paths=paths,
            passed_on=list(config.getini("cluster_pass_env")),
            real_timeout_s=settings.real_timeout_s,
            mutant=settings.mutant,
        )
        self._root = Path(settings.directory or config.rootpath / RUNS_DIRECTORY).absolute()

    def close(self) -> None:
        self._zygotes.close()

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """The whole protocol of one test, however often it is run."""
        wanted = item.stash[WANTED]
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        runs = Runs()
        for number in range(self._settings.repeat):
            if number > 0:
                _wind_up_again(item)
            seed = (wanted.seed + number) & SEED_MAX
            last = number == self._settings.repeat - 1
            # Between two runs what is the test's own is torn down, and what is its module's is not.
            following: Any = nextitem if last else item.parent
            runs.add(seed, self._run_once(item, following, wanted, seed))
            if runs.skipped or (runs.failing and not self._settings.hunt):
                break
        for report in [*runs.shown, *self._torn_down(item, nextitem)]:
            self._complete(report, wanted, runs)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _torn_down(self, item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
        """Tear down what this test has not: of ordinary tests before a simulated one, or of one that stopped early."""
        call = pytest.CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(nextitem), when="teardown")
        return [] if call.excinfo is None else [item.ihook.pytest_runtest_makereport(item=item, call=call)]

    def _run_once(
        self, item: pytest.Item, nextitem: pytest.Item | None, wanted: Wanted, seed: int
    ) -> list[pytest.TestReport]:
        directory = self._root / f"{file_name(item.nodeid)}-{wanted.environment}-{seed}"
        keep = self._settings.keep
        if wanted.environment == "local":
            from seatrial.plugin.items import run_protocol  # which imports what simulated tests import in their process

            self._root.mkdir(parents=True, exist_ok=True)
            return run_protocol(item, nextitem, wanted=wanted, seed=seed, directory=directory, keep=keep)
        temporary: Path = self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        stacks = temporary / "stacks.txt"
        order = Order(
            nodeid=item.nodeid,
            wanted=wanted,
            seed=seed,
            directory=str(directory),
            keep=keep,
            real_timeout_s=self._settings.real_timeout_s,
            stacks=str(stacks),
        )
        result = self._zygotes.run(item.path, order)
        if isinstance(result, str):
            return [self._without_result(item, order, result, stacks)]
        hook = self._config.hook
        return [hook.pytest_report_from_serializable(config=self._config, data=data) for data in result]

    def _without_result(self, item: pytest.Item, order: Order, reason: str, stacks: Path) -> pytest.TestReport:
        """A run whose process gave no reports is a failure, with what is known of it."""
        said = stacks.read_text() if stacks.exists() else ""
        if said:
            reason = f"the test took longer than {order.real_timeout_s:g} s of real time; it was at\n{_of_test(said)}"
            stacks.unlink()
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords=dict.fromkeys(item.keywords, 1),
            outcome="failed",
            longrepr=reason,
            when="call",
            sections=[
                (
                    "seatrial",
                    f"seed {order.seed}, {order.wanted.environment}\n"
                    f"replay with: {order.wanted.replay(item.nodeid, order.seed)}",
                )
            ],
        )

    def _complete(self, report: pytest.TestReport, wanted: Wanted, runs: Runs) -> None:
        properties: list[tuple[str, Any]] = [
            ("seed", runs.failing[0] if runs.failing else runs.seeds[0]),
            ("environment", wanted.environment),
            ("system", wanted.system),
        ]
        if self._settings.repeat > 1:
            properties += [("runs", len(runs.seeds)), ("failing_seeds", " ".join(map(str, runs.failing)))]
            report.duration = runs.durations.get(report.when, report.duration)
        report.user_properties = [*report.user_properties, *properties]
        if report.failed and len(runs.seeds) > 1:
            told = f"{len(runs.failing)} of {len(runs.seeds)} runs failed"
            if not self._settings.hunt:
                told = f"run {len(runs.seeds)} of {self._settings.repeat} failed; those before passed"
            report.sections.append(("repetition", told))


def _wind_up_again(item: pytest.Item) -> None:
    """Each run gets the time that pytest-timeout gives the test: its timer, which one test has once, begins anew."""
    settings = item.stash.get(TIMER, None)
    if settings is None or settings.func_only:  # that timer is each call's own
        return
    hook = item.config.pluginmanager.hook
    hook.pytest_timeout_cancel_timer(item=item)
    hook.pytest_timeout_set_timer(item=item, settings=settings)


def _of_test(stack: str) -> str:
    """Of what `faulthandler` wrote, most recent call first, what came after our own call of the test."""
    lines = stack.splitlines()
    ours = [number for number, line in enumerate(lines) if "/seatrial/plugin/stages.py" in line]
    return "\n".join(line for line in lines[: ours[0] if ours else None] if line.startswith("  "))


def file_name(nodeid: str) -> str:
    """A test's name as a directory may be called: readable, and its own."""
    name = re.sub(r"[^\w.-]+", "-", nodeid).strip("-.")
    if len(name) <= NAME_LENGTH_MAX and name.replace("-", "") == re.sub(r"[:/]+", "", nodeid):
        return name
    return f"{name[:NAME_LENGTH_MAX]}-{hashlib.blake2b(nodeid.encode(), digest_size=3).hexdigest()}"

"""Simulated tests, as seen from the pytest that was started: one pinned process a test file, one fork a run.

Rule: a test's run depends on its file, its name and its seed: the process that it is forked from collects the whole
file, whatever was selected, and has neither the terminal's nor any worker's settings.  A run that hangs, or whose
process dies, is a failed report like any other.
Knows nothing of what happens in there (`inside`).
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from seatrial.plugin import inside
from seatrial.plugin.inside import Order, Preparation
from seatrial.plugin.measuring import VARIABLES as MEASURING
from seatrial.sim.zygote import Died, Zygote, ZygoteFailed

# What decides which tests run, what is shown and where reports go: none of it is that process's matter.
RESET: Final[dict[str, Any]] = {
    "keyword": "",
    "markexpr": "",
    "deselect": None,
    "ignore": None,
    "ignore_glob": None,
    "maxfail": 0,
    "stepwise": False,
    "stepwise_skip": False,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "verbose": 0,
    "xmlpath": None,
    "log_file": None,
    "durations": None,
    "collectonly": False,
    "capture": "sys",
    "usepdb": False,
    "trace": False,
    "setupshow": False,
    "setuponly": False,
    "setupplan": False,
    "cacheclear": False,
    "continue_on_collection_errors": False,
    "numprocesses": None,
    "maxprocesses": None,
    "dist": "no",
    "tx": [],
    "looponfail": False,
    "cov_source": [],
    "cov_report": {},
    "no_cov": True,
    "cluster_seed": None,
    "cluster_env": None,
    "cluster_system": None,
    "cluster_mutant": None,
    "cluster_repeat": 1,
    "flake_hunt": None,
    "pyargs": False,
}
KEPT_MAX: Final = 3  # processes at a time: each is some 100 MB, and tests come file by file
DEADLINE_SLACK_S: Final = 10.0  # the process itself ends a run that takes too long, and says where it was
Serialised = dict[str, Any]


class Zygotes:
    """One process for each of the files of which tests were run last; `close` ends them.

    paths: the module search path there.  passed_on: environment variables to be seen there.
    """

    def __init__(
        self,
        config: pytest.Config,
        *,
        paths: list[str],
        passed_on: list[str],
        real_timeout_s: float,
        mutant: str | None,
    ) -> None:
        self._config = config
        self._paths = paths
        self._environment = {name: os.environ[name] for name in (*MEASURING, *passed_on) if name in os.environ}
        self._real_timeout_s = real_timeout_s
        self._mutant = mutant
        self._by_file: dict[Path, Zygote | str] = {}
        self._numbers = count()

    def run(self, file: Path, order: Order) -> list[Serialised] | str:
        """The serialised reports of one run, or why there are none."""
        zygote = self._of(file)
        if isinstance(zygote, str):
            return zygote
        try:
            result = zygote.run(inside.run_item, order, timeout_s=self._real_timeout_s + DEADLINE_SLACK_S)
        except ZygoteFailed as failed:
            self._close(file)  # the next test of the file gets a new one
            return str(failed)
        return f"the simulation ended without a result: {result.reason}" if isinstance(result, Died) else result

    def _of(self, file: Path) -> Zygote | str:
        known = self._by_file.pop(file, None)
        if known is None:
            if len(self._by_file) == KEPT_MAX:
                self._close(next(iter(self._by_file)))
            try:
                known = Zygote(
                    inside.run_item,
                    prepare=(inside.collect, self._preparation(file)),
                    paths=self._paths,
                    environment=self._environment,
                )
            except ZygoteFailed as failed:
                known = str(failed)
        self._by_file[file] = known  # the last used is the last
        return known

    def _preparation(self, file: Path) -> Preparation:
        config = self._config
        option = {name: value for name, value in vars(config.option).items() if _is_plain(value)}
        temporary: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        option.pop("file_or_dir", None)
        option |= {name: value for name, value in RESET.items() if name in option}
        option |= {
            "rootdir": str(config.rootpath),
            "inifilename": None if config.inipath is None else str(config.inipath),
            "basetemp": str(temporary / f"simulated{next(self._numbers)}"),
        }
        return Preparation(file=str(file), option=option, mutant=self._mutant)

    def close(self) -> None:
        for file in list(self._by_file):
            self._close(file)

    def _close(self, file: Path) -> None:
        zygote = self._by_file.pop(file)
        if isinstance(zygote, Zygote):
            zygote.close()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return value is None or isinstance(value, bool | int | float | str | Path)

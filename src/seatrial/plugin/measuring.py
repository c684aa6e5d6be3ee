"""Coverage of the processes that a test's cluster runs in: real nodes, and the forks of simulated tests.

coverage.py measures every Python process that is started with a configuration of its in the environment
(https://coverage.readthedocs.io/en/latest/subprocess.html), and saves what it has when the process exits.  What ends
otherwise has to be told: forks save before they end, and real nodes are terminated instead of killed at a test's end.

Rule: where nothing is measured, coverage.py is not even imported.
"""

from __future__ import annotations

import os
import sys
from typing import Final

VARIABLES: Final = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


def measure_other_processes() -> None:
    """Where this process is measured (`pytest --cov`), have those measured that it starts."""
    if is_measured() or "coverage" not in sys.modules:
        return
    import coverage

    current = coverage.Coverage.current()
    if current is not None:
        alone = current.config.parallel
        current.config.parallel = True  # each process writes a file of its own; they are combined at the end
        os.environ["COVERAGE_PROCESS_CONFIG"] = current.config.serialize()
        current.config.parallel = alone


def is_measured() -> bool:
    """Whether processes that are started now are measured."""
    return any(name in os.environ for name in VARIABLES)


def save_coverage() -> None:
    """Before a fork ends without exiting: save what was measured in it."""
    if not is_measured():
        return
    import coverage

    current = coverage.Coverage.current()
    if current is not None:
        current.stop()
        current.save()

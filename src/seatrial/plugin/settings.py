"""What the command line and a test's marks ask for, as data: where a test runs, with which system, seeds and deadlines.

    pytest --cluster-env=sim --cluster-seed=7 --cluster-repeat=20
    @pytest.mark.cluster(nodes=5, system="etcd", options={"heartbeat_ms": "20"}, boot=False, timeout=120)
    @pytest.mark.environments("sim")

Rule: what makes no sense is refused with what to write instead; where a test cannot run as asked, there is a reason to
skip it.  A seed that nobody gave is decided by the test's name, so that it is the same tomorrow.
Knows nothing of how a test is run.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

ENVIRONMENTS = ("sim", "local")
TEST_TIMEOUT_S = 60.0
REAL_TIMEOUT_S = 120.0  # of a simulated test, whose own seconds are virtual
SEED_MAX = (1 << 32) - 1
MARK_SETTINGS = ("nodes", "system", "options", "boot", "timeout", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The command line.  environment: None takes for each test the first that can run it, `sim` before `local`."""

    environment: str | None
    system: str | None
    seed: int | None
    repeat: int
    hunt: bool
    keep: bool
    timeout_s: float | None
    real_timeout_s: float
    directory: str | None
    mutant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One test's cluster.  skip: why it is not run as things are."""

    environment: str
    system: str
    system_chosen: bool  # on the command line, and not by the test
    nodes: int
    version: str | None
    options: Mapping[str, str] = field(default_factory=dict)
    boot: bool
    timeout_s: float
    seed: int
    mutant: str | None = None
    skip: str | None = None

    def replay(self, nodeid: str, seed: int) -> str:
        """The shell command that runs this test once more with this seed."""
        words = ["pytest", f"--cluster-env={self.environment}", f"--cluster-seed={seed}"]
        if self.system_chosen:
            words.append(f"--cluster-system={self.system}")
        if self.mutant is not None:
            words.append(f"--cluster-mutant={self.mutant}")
        return shlex.join([*words, nodeid])


def settings_of(config: pytest.Config) -> Settings:
    """Read the command line.  Raises pytest.UsageError."""
    option = config.option
    environment = option.cluster_env
    if environment == "netns":
        raise pytest.UsageError("--cluster-env=netns is not built yet: use sim or local")
    if option.cluster_system not in (None, "own") and environment == "sim":
        raise pytest.UsageError(
            f"--cluster-system={option.cluster_system} cannot be simulated: it is a program of its own; "
            "use --cluster-env=local"
        )
    if option.cluster_mutant is not None:
        environment = _of_mutants(option.cluster_mutant, environment, option.cluster_system)
    if option.cluster_seed is not None and not 0 <= option.cluster_seed <= SEED_MAX:
        raise pytest.UsageError(f"--cluster-seed={option.cluster_seed}: between 0 and {SEED_MAX}")
    hunt = option.flake_hunt
    if option.cluster_repeat < 1 or (hunt is not None and hunt < 1):
        raise pytest.UsageError("--cluster-repeat and --flake-hunt take a number of runs, 1 or more")
    if hunt is not None and option.cluster_repeat > 1:
        raise pytest.UsageError("--flake-hunt=N says itself how often each test is run: leave --cluster-repeat out")
    return Settings(
        environment=environment,
        system=option.cluster_system,
        seed=option.cluster_seed,
        repeat=option.cluster_repeat if hunt is None else hunt,
        hunt=hunt is not None,
        keep=option.cluster_keep,
        timeout_s=option.cluster_timeout,
        real_timeout_s=option.cluster_real_timeout,
        directory=option.cluster_directory,
        mutant=option.cluster_mutant,
    )


def _of_mutants(name: str, environment: str | None, system: str | None) -> str:
    """Where a planted bug runs.  Raises pytest.UsageError for one that is not known, or cannot be planted there."""
    from seatrial.sim.mutants_catalogue import MUTANTS

    if name not in MUTANTS:
        raise pytest.UsageError(f"--cluster-mutant={name}: there is no such mutant; docs/mutants.md lists them")
    if environment == "local" or system not in (None, "own"):
        raise pytest.UsageError("--cluster-mutant plants bugs in simulated nodes: leave --cluster-env and -system out")
    return "sim"


def wanted_by(item: pytest.Item, settings: Settings) -> Wanted:
    """What this test is to have.  Raises pytest.UsageError that names the test for a mark that makes no sense."""
    asked = _asked(item)
    can = _environments(item)
    system = settings.system or asked.get("system", "own")
    environment = settings.environment
    if environment is None:
        able = [name for name in can if name == "local" or system == "own"]
        environment = able[0] if able else can[0]
    return Wanted(
        environment=environment,
        system=system,
        system_chosen=settings.system is not None and system != asked.get("system"),
        nodes=asked.get("nodes", 3),
        version=asked.get("version"),
        options={name: str(value) for name, value in asked.get("options", {}).items()},
        boot=asked.get("boot", True),
        timeout_s=settings.timeout_s or asked.get("timeout", TEST_TIMEOUT_S),
        seed=seed_of(item.nodeid) if settings.seed is None else settings.seed,
        mutant=settings.mutant,
        skip=_why_not(item, asked, can, environment, system),
    )


def seed_of(nodeid: str) -> int:
    """A test's own seed: decided by its name."""
    return int.from_bytes(hashlib.blake2b(nodeid.encode(), digest_size=4).digest(), "big")


def _asked(item: pytest.Item) -> dict[str, Any]:
    """The settings of `@pytest.mark.cluster`; what stands nearer to the test wins."""
    asked: dict[str, Any] = {}
    for mark in item.iter_markers("cluster"):
        unknown = [name for name in mark.kwargs if name not in MARK_SETTINGS]
        if mark.args or unknown:
            wrong = repr(mark.args[0]) if mark.args else unknown[0]
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.cluster does not take {wrong}; it takes by name: "
                + ", ".join(MARK_SETTINGS)
            )
        asked = {**mark.kwargs, **asked}
    return asked


def _environments(item: pytest.Item) -> tuple[str, ...]:
    mark = item.get_closest_marker("environments")
    if mark is None:
        return ENVIRONMENTS
    wrong = [name for name in mark.args if name not in ENVIRONMENTS]
    if wrong or not mark.args or mark.kwargs.keys() - {"reason"}:
        raise pytest.UsageError(
            f"{item.nodeid}: @pytest.mark.environments takes names out of {', '.join(ENVIRONMENTS)}"
            + (f", not {wrong[0]!r}" if wrong else "")
        )
    return tuple(name for name in ENVIRONMENTS if name in mark.args)


def _why_not(
    item: pytest.Item, asked: Mapping[str, Any], can: tuple[str, ...], environment: str, system: str
) -> str | None:
    if environment not in can:
        mark = item.get_closest_marker("environments")
        reason = mark.kwargs.get("reason") if mark is not None else None
        told = f"this test is for the environment {' or '.join(can)}, and this is {environment}"
        return f"{told}: {reason}" if reason else told
    demanded = asked.get("system")
    if demanded is not None and demanded != system:
        return f"this test is for the system {demanded}, and this is {system}"
    if environment == "sim" and system != "own":
        return f"{system} cannot be simulated: it is a program of its own; use --cluster-env=local"
    return None

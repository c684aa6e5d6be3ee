"""The hunt for planted bugs: the proof that the simulator finds bugs.

    results = hunt_mutants("all", seeds_max=2000, jobs=2, progress=print)

For each mutant a fresh process plants it and runs cases, seed after seed, until one is INVALID; then another runs the
untouched code on that very case, which must be VALID: otherwise it is not the planted bug that was seen.
Rule: a mutant counts as found only where both hold.  About the real process: it starts and watches others.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from seatrial.sim.case import Level
from seatrial.sim.mutants_catalogue import chosen
from seatrial.sim.mutation import Mutant

SEEDS_MAX: Final = 2_000
SECONDS_MAX: Final = 1_800.0  # for one mutant
_STOP_S: Final = 60.0  # beyond its own limit, a hunting process is given so long to end


class MutantResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the hunt for one mutant.

    found: some case was INVALID with it, and the same case VALID without it.  seed: of that case.  seconds: until
    then, running cases.  violation: which promise was broken.  case: the case, as TOML.  problem: why the hunt itself
    failed, or what is wrong with the untouched code on that case; "" where nothing is.
    """

    name: str
    level: Level
    cases: str
    found: bool
    seeds_tried: int
    seconds: float
    seed: int | None = None
    violation: str = ""
    message: str = ""
    case: str = ""
    problem: str = ""


class HuntFailed(Exception):
    """A hunting process ended without a result."""


def hunt_mutants(
    names: Iterable[str] | str,
    *,
    seeds_max: int = SEEDS_MAX,
    first_seed: int = 0,
    seconds_max: float = SECONDS_MAX,
    jobs: int = 1,
    progress: Callable[[MutantResult], None] | None = None,
) -> list[MutantResult]:
    """Hunt the named mutants ("all": every one), `jobs` at a time; results in the order of the tables.

    progress: called with each result as it comes.  Raises UnknownMutant.
    """
    mutants = chosen(names)

    async def hunt_all() -> list[MutantResult]:
        places = asyncio.Semaphore(max(1, jobs))

        async def one(mutant: Mutant) -> MutantResult:
            async with places:
                result = await _hunt(mutant, first_seed, seeds_max, seconds_max)
            if progress is not None:
                progress(result)
            return result

        return list(await asyncio.gather(*[one(mutant) for mutant in mutants]))

    return asyncio.run(hunt_all())


async def _hunt(mutant: Mutant, first_seed: int, seeds_max: int, seconds_max: float) -> MutantResult:
    limits = ["--first-seed", str(first_seed), "--seeds", str(seeds_max), "--seconds", str(seconds_max)]
    try:
        found = await _hunting_process([mutant.name, *limits], seconds_max + _STOP_S)
        problem = found.get("problem", "")
        if found["found"]:
            problem = await _untouched_problem(mutant, found["case"])
    except HuntFailed as error:
        found, problem = {"found": False, "tried": 0, "seconds": 0.0}, str(error)
    return MutantResult(
        name=mutant.name,
        level=mutant.level,
        cases=mutant.cases,
        found=found["found"] and not problem,
        seeds_tried=found["tried"],
        seconds=round(found["seconds"], 3),
        seed=found.get("seed"),
        violation=found.get("violation", ""),
        message=found.get("message", ""),
        case=found.get("case", ""),
        problem=problem,
    )


async def _untouched_problem(mutant: Mutant, case: str) -> str:
    """What is wrong with the code without the bug on this case; "" where it is VALID, as it must be."""
    with tempfile.TemporaryDirectory(prefix="seatrial-mutant-") as directory:
        path = Path(directory) / "case.toml"
        path.write_text(case)
        found = await _hunting_process([mutant.name, "--untouched", "--case", str(path)], 10 * _STOP_S)
    if not found["found"]:
        return str(found.get("problem", ""))
    return f"the untouched code is INVALID on this case too ({found['violation']}: {found['message']})"


async def _hunting_process(arguments: list[str], seconds_max: float) -> dict[str, Any]:
    """The result of one `python -m seatrial.sim.mutants_hunt`.  Raises HuntFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "seatrial.sim.mutants_hunt", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        process_group=0,  # with what it forks
    )
    try:
        async with asyncio.timeout(seconds_max):
            out, err = await process.communicate()
    except TimeoutError:
        raise HuntFailed(f"the process of {arguments[0]} did not end within {seconds_max:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        raise HuntFailed(f"the process of {arguments[0]} ended with status {process.returncode}: {' '.join(last)}")
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result

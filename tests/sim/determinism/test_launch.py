"""A pinned process has its hash seed, addresses, environment and clocks pinned; what is not to be had is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.sim import shim
from seatrial.sim.launch import Pinning, pinned_command, pinned_environment, pinning

PROGRAMS = Path(__file__).parent / "programs.py"

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="address randomisation and preloading are pinned on Linux only"
)


def said(program: str, **environment: str) -> str:
    done = subprocess.run(
        pinned_command(["-c", program]),
        env=pinned_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@linux
@pytest.mark.slow
def test_a_pinned_process_lies_at_the_same_addresses_with_the_same_hashes() -> None:
    program = "import sys; print(id(object()), hash('text'), hash(None), sys.flags.hash_randomization)"
    assert said(program) == said(program)
    assert len({said(program) for _ in range(3)}) == 1


@linux
@pytest.mark.slow
def test_the_pinned_environment_does_not_depend_on_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pinned_environment()
    monkeypatch.setenv("SOMETHING_LONG", "x" * 5_000)
    assert pinned_environment() == before


def test_this_process_says_what_it_lacks() -> None:
    state = pinning()
    lacking = [state.hash_seed, state.addresses, state.shim].count(False)
    assert len(state.missing) == lacking


@linux
@pytest.mark.slow
def test_the_shim_is_built_once_for_each_source(tmp_path: Path) -> None:
    first = shim.built(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert shim.built(tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@linux
def test_a_missing_compiler_is_said_and_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(shim.ShimUnavailable, match="no C compiler"):
        shim.built()
    assert pinned_environment()["LD_PRELOAD"] == ""


@linux
@pytest.mark.slow
def test_without_the_shim_compiled_clients_are_warned_of() -> None:
    program = "from seatrial.sim.launch import pinning; print(pinning())"
    with_it, without = said(program), said(program, LD_PRELOAD="")
    assert "shim=True" in with_it
    assert "missing=()" in with_it
    assert "compiled clients (aiokafka's) may not replay" in without


@linux
@pytest.mark.slow
def test_the_shim_gives_compiled_code_the_hosts_clock_and_entropy() -> None:
    """`ctypes` calls libc past every Python patch, as a Cython module does."""
    program = """
import asyncio, ctypes, os
from time import monotonic as early
from seatrial.sim import SimNetwork, World, run
class Timeval(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]
libc = ctypes.CDLL(None)
async def probe():
    await asyncio.sleep(1)
    now = Timeval()
    libc.gettimeofday(ctypes.byref(now), None)
    entropy = ctypes.create_string_buffer(8)
    libc.getrandom(entropy, 8, 0)
    assert early() == asyncio.get_running_loop().time(), (early(), asyncio.get_running_loop().time())
    assert libc.nanosleep(ctypes.byref(Timeval(0, 1)), None) == -1
    return now.seconds, now.microseconds, entropy.raw, os.urandom(4)
world = World(1)
host = SimNetwork(world).add_host("h", drift_ppm=-200_000, wall_offset_us=5_000_000)
task = host.spawn(probe())
run(world, 10_000_000, until=task)
print(task.result())
print(early() > 0, libc.nanosleep(ctypes.byref(Timeval(0, 1)), None))
"""
    first = said(program)
    assert said(program) == first
    seconds, microseconds = first.split(", ")[:2]
    assert seconds == "(1700000006"
    assert int(microseconds) < 100
    assert "True 0" in first


@linux
@pytest.mark.slow
def test_a_program_pins_itself_by_starting_anew(tmp_path: Path) -> None:
    def digest(**more: str) -> str:
        environment = {**os.environ, **more}
        command = [sys.executable, str(PROGRAMS), "3"]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert digest(PYTHONHASHSEED="1") == digest(PYTHONHASHSEED="2", LONG="x" * 3_000)


def test_complete_pinning_needs_all_three() -> None:
    assert Pinning(hash_seed=True, addresses=True, shim=True).complete
    for lacking in ("hash_seed", "addresses", "shim"):
        assert not Pinning(**({"hash_seed": True, "addresses": True, "shim": True} | {lacking: False})).complete

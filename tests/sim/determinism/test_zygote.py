"""Runs in forked processes give their results or the reason why there is none, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import programs
import psutil
import pytest

from seatrial.sim.case import Case, Outcome
from seatrial.sim.hunt import run_case_of, run_quietly
from seatrial.sim.sources import were_edited_since
from seatrial.sim.swarm import draw_case
from seatrial.sim.zygote import Died, Zygote, ZygoteFailed, crashed, map_forked, reference_to, run_forked, run_many

pytestmark = pytest.mark.slow


def test_a_function_runs_in_another_process(zygote: Zygote) -> None:
    assert zygote.run(programs.double, 21) == 42


def test_what_a_run_raised_is_told(zygote: Zygote) -> None:
    died = zygote.run(programs.fail, "because")
    assert isinstance(died, Died)
    assert "ValueError: because" in died.reason


def test_a_run_that_takes_too_long_is_killed(zygote: Zygote) -> None:
    began = time.monotonic()
    died = zygote.run(programs.hang, None, timeout_s=0.3)
    assert isinstance(died, Died)
    assert "longer than 0.3 s" in died.reason
    assert time.monotonic() - began < 5


def test_a_crash_of_the_process_is_told_with_its_signal(zygote: Zygote) -> None:
    died = zygote.run(programs.abort, None)
    assert isinstance(died, Died)
    assert "SIGABRT" in died.reason
    died = zygote.run(programs.leave, 7)
    assert isinstance(died, Died)
    assert "exited with 7" in died.reason


def test_a_result_that_cannot_be_sent_is_a_death(zygote: Zygote) -> None:
    assert isinstance(zygote.run(programs.unpicklable, None), Died)


def test_a_function_without_a_name_is_refused(zygote: Zygote) -> None:
    with pytest.raises(ValueError, match="top of a module"):
        zygote.run(lambda _: None, None)


def test_a_module_that_cannot_be_imported_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def run(_): ...\n")
    sys.path.append(str(tmp_path))
    try:
        import broken as module  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    broken.write_text("raise RuntimeError('not today')\n")
    with pytest.raises(ZygoteFailed, match="not today"):
        run_forked(module.run, None)


def test_results_come_as_they_are_ready_and_all_of_them_do() -> None:
    assert dict(map_forked(programs.double, range(20), jobs=3)) == {number: 2 * number for number in range(20)}


def fake_run(case: Case) -> Outcome:
    if case.seed == 3:
        os.abort()
    return crashed(Died("made up"))


def test_a_case_whose_run_dies_has_a_violation() -> None:
    outcomes = dict(run_many((Case(level="full", seed=seed) for seed in range(5)), fake_run, jobs=2))
    assert {case.seed for case in outcomes} == set(range(5))
    died = next(outcome for case, outcome in outcomes.items() if case.seed == 3)
    assert died.violations[0].name == "simulator-crash"
    assert "SIGABRT" in died.violations[0].message


def test_functions_of_the_package_are_known_by_name_alone() -> None:
    """So that a zygote's state does not depend on where it was started from."""
    assert reference_to(crashed).file == ""
    assert reference_to(programs.double).file == programs.__file__


def test_a_process_that_had_to_compile_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run after a change must not differ from all later ones."""
    module = tmp_path / "compiled_late.py"
    module.write_text("def where(_):\n    return [id(object()) for _ in range(20)]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import compiled_late  # type: ignore[import-not-found]

    for cached in tmp_path.glob("__pycache__/*"):
        cached.unlink()
    assert run_forked(compiled_late.where, None) == run_forked(compiled_late.where, None)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if not is_gone(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_the_parent_is_interrupted_or_killed(how: signal.Signals) -> None:
    program = (
        f"import signal, sys; sys.path.append({str(Path(programs.__file__).parent)!r}); import programs\n"
        "from seatrial.sim.zygote import Zygote\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # what a shell starts with & ignores it
        "with Zygote(programs.hang) as zygote:\n"
        "    jobs = [zygote.start(programs.hang, None) for _ in range(2)]\n"
        "    print(zygote._process.pid, *(job.pid for job in jobs), flush=True)\n"
        "    zygote.finished(jobs)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        try:
            pids = [int(word) for word in parent.stdout.readline().split()]
            assert len(pids) == 3
            parent.send_signal(how)
            parent.wait(timeout=10)
        finally:
            parent.kill()  # or leaving this block would wait for it, and its runs spin, for ever
    until_gone(pids)


def test_a_run_whose_asker_has_gone_ends_without_a_word() -> None:
    """Ctrl-C in a hunt printed the traceback of an EOFError of each run that was just being started."""
    program = (
        f"import socket, sys; sys.path.append({str(Path(programs.__file__).parent)!r}); import programs\n"
        "from seatrial.sim.zygote import Job, Zygote, os\n"
        "with Zygote(programs.hang) as zygote:\n"
        "    ours, theirs = socket.socketpair()\n"
        "    os.write(zygote._go, b'f')\n"
        "    socket.send_fds(zygote._control, [b'f'], [theirs.fileno()])\n"
        "    theirs.close()\n"
        "    job = Job(None, ours, 0.0, 0.0)\n"
        "    zygote._starting.append(job)\n"
        "    while not job.pid:\n"
        "        zygote._hear(30)\n"
        "    ours.close()\n"
        "    while not job.ended:\n"
        "        zygote._hear(30)\n"
        "    print(job.ended)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0]\n", "")


def test_a_run_that_imports_a_part_of_ours_only_then_is_refused_and_told() -> None:
    """An edit between two runs would make them differ."""
    with Zygote(run_quietly) as zygote:  # which imports a level where it is first needed
        died = zygote.run(run_quietly, draw_case(1, "core", duration_us=100_000))
        assert isinstance(died, Died)
        assert "seatrial.sim.core.run" in died.reason
        assert "imported during the run" in died.reason
    with Zygote(run_quietly, run_case_of("core")) as zygote:
        assert isinstance(zygote.run(run_quietly, draw_case(1, "core", duration_us=100_000)), Outcome)


def test_an_edit_while_a_zygote_imports_is_seen_and_one_before_or_yet_to_come_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "edited_late.py"
    source.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_late  # type: ignore[import-not-found]  # noqa: F401

    began = time.time() + 10  # whatever else is edited meanwhile is before that
    monkeypatch.setattr(time, "time", lambda: began + 10)
    seen = {}
    for at in (began - 5, began + 5, began + 15):
        os.utime(source, (at, at))
        seen[at - began] = were_edited_since(began)
    assert list(seen.values()) == [False, True, False]


UNGUARDED = """
from seatrial.sim.zygote import Zygote

def run(number):
    return number

with Zygote(run) as zygote:
    print(zygote.run(run, 1))
"""


def test_a_program_that_runs_as_it_is_imported_is_told_so_instead_of_starting_itself_without_end(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(UNGUARDED)
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "under `if __name__ == '__main__':`" in ended.stderr
    program.write_text(
        UNGUARDED.replace("\nwith", "\nif __name__ == '__main__':\n  with").replace("    print", "      print")
    )
    assert subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60).stdout == "1\n"

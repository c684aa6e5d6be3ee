"""What the plugin tells of tests: what a failure leaves, deadlines, repetitions, JUnit's XML, what makes no sense."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from tests.plugin.conftest import RunTests, line_after, properties_in

from seatrial.plugin.conductor import file_name
from seatrial.plugin.flakes import Hunted, hunted_in, table, wilson
from seatrial.plugin.settings import seed_of

pytest_plugins = ["pytester"]

FAILS = """
async def test_fails(cluster):
    leader = await cluster.wait_for_leader()
    await cluster.kv.put("x", 1)
    async with cluster.isolate(leader):
        print("said by the test")
        assert await cluster.kv.get("x") == 2
"""

OVERDUE = """
import asyncio, os, pytest

async def never():
    await asyncio.Event().wait()

@pytest.mark.cluster(timeout=2, nodes=1)
async def test_waits(cluster):
    await never()

async def test_hangs(cluster):
    if cluster.env == "sim":
        os.read(os.pipe()[0], 1)

async def test_dies(cluster):
    os._exit(9)

async def test_passes(cluster):
    await cluster.wait_for_leader()
"""

SEEDS = """
import pytest

async def test_every_third_fails(cluster):
    assert cluster.seed % 3 != 0

def test_passes(cluster):
    assert cluster.seed in range(10, 14)

@pytest.mark.environments("local", reason="it needs a process")
def test_elsewhere(cluster):
    pass
"""

SPEECHLESS = """
import pytest

@pytest.mark.cluster(nodes=1)
async def test_fails(cluster):
    async def look():
        raise RuntimeError("nobody can be asked")

    cluster.look = look
    assert 1 == 2
"""

# What stands in for pytest-timeout's own timers, as its documentation offers.
TIMERS = """
def tell(what):
    with open("timers", "a") as timers:
        print(what, file=timers)

def pytest_timeout_set_timer(item, settings):
    tell(f"begun {item.name}")
    return True

def pytest_timeout_cancel_timer(item):
    tell(f"ended {item.name}")
    return True
"""


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["sim", "local"])
def test_a_failure_leaves_everything_and_can_be_replayed(
    run_tests: RunTests, pytester: pytest.Pytester, environment: str
) -> None:
    result = run_tests(FAILS, f"--cluster-env={environment}", "--junitxml=report.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*assert 1 == 2*", "*said by the test*", "seed *", "replay with: *", "node 1: running *", "  | *"]
    )
    root, page = Path(line_after(result, "run directory:")), Path(line_after(result, "report:"))
    assert {"verdict.json", "history.jsonl", "faults.jsonl", "status.jsonl", "nodes"} <= {
        p.name for p in root.iterdir()
    }
    assert "assert 1 == 2" in page.read_text()
    verdict = json.loads((root / "verdict.json").read_text())
    assert (verdict["validity"], verdict["stats"]["ok"]) == ("INVALID", 2)
    assert sum(verdict["faults"]["injected"].values()) == 1
    told = properties_in(pytester.path / "report.xml")["test_fails"]
    assert (told["environment"], told["report"]) == (environment, str(page))
    assert str(seed_of("test_it.py::test_fails")) == told["seed"] == line_after(result, "seed").split(",")[0]

    replayed = shlex.split(line_after(result, "replay with: pytest"))
    if environment == "sim":
        run_tests("", *replayed, "--junitxml=again.xml").assert_outcomes(failed=1)
        assert properties_in(pytester.path / "again.xml")["test_fails"]["trace"] == told["trace"]


@pytest.mark.slow
def test_what_passes_leaves_nothing_unless_it_is_kept(run_tests: RunTests, pytester: pytest.Pytester) -> None:
    passes = """
import json, pathlib, pytest

@pytest.fixture(scope="module")
def seeds():
    seeds = []
    yield seeds
    pathlib.Path("seeds.json").write_text(json.dumps(seeds))

@pytest.mark.cluster(nodes=1)
async def test_passes(cluster, seeds):
    await cluster.wait_for_leader()
    seeds.append(cluster.seed)
"""
    run_tests(passes, "--cluster-env=local", "--cluster-seed=5", "--cluster-repeat=2").assert_outcomes(passed=1)
    # Each run had a cluster of its own, and both the module's fixture.
    assert json.loads((pytester.path / "seeds.json").read_text()) == [5, 6]
    assert not list((pytester.path / ".seatrial").iterdir())
    run_tests(passes, "--cluster-keep").assert_outcomes(passed=1)
    (kept,) = (pytester.path / ".seatrial").iterdir()
    assert json.loads((kept / "verdict.json").read_text())["validity"] == "VALID"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "told"),
    [("sim", "*asking the nodes once more failed as well: "), ("local", "the nodes could not be asked once more: ")],
)
def test_that_the_nodes_could_not_be_asked_is_told_beside_the_failure(
    run_tests: RunTests, environment: str, told: str
) -> None:
    result = run_tests(SPEECHLESS, f"--cluster-env={environment}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines_random(["*assert 1 == 2*", f"{told}RuntimeError: nobody can be asked", "report: *"])


@pytest.mark.slow
def test_what_is_overdue_hangs_or_dies_is_a_failure_with_its_place(run_tests: RunTests) -> None:
    begun = time.monotonic()
    result = run_tests(OVERDUE, "--cluster-env=sim", "--cluster-real-timeout=3")
    assert time.monotonic() - begun < 60
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "it was not done within 2 s; it was waiting at",
            "*in never",
            "node 1: running *leader*",
            "the test took longer than 3 s of real time; it was at",
            "*in test_hangs",
            "the simulation ended without a result: the process exited with 9",
        ]
    )


@pytest.mark.slow
def test_an_overdue_test_on_real_processes_says_where_it_waited(run_tests: RunTests) -> None:
    result = run_tests(OVERDUE, "--cluster-env=local", "-k", "waits")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["it was not done within 2 s; it was waiting at", "*in never", "node 1: running *"])


@pytest.mark.slow
def test_a_cluster_that_does_not_start_leaves_its_logs(run_tests: RunTests) -> None:
    source = """
    import pytest

    @pytest.mark.cluster(nodes=1, options={"durability": "none at all"})
    async def test_unstartable(cluster):
        pass
    """
    result = run_tests(source, "--cluster-env=local")
    result.assert_outcomes(errors=1)
    logs = list((Path(line_after(result, "run directory:")) / "nodes" / "1").glob("*.log"))
    assert any("none at all" in log.read_text() for log in logs)


@pytest.mark.slow
def test_a_repeated_test_stops_at_the_first_seed_that_fails_and_each_run_has_pytest_timeouts_time(
    run_tests: RunTests, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(TIMERS)
    result = run_tests(
        SEEDS,
        "--cluster-env=sim",
        "--cluster-seed=10",
        "--cluster-repeat=4",
        "--timeout=100",
        "--junitxml=report.xml",
        "-rs",
    )
    result.assert_outcomes(failed=1, passed=1, skipped=1)
    told = properties_in(pytester.path / "report.xml")
    assert (told["test_every_third_fails"]["runs"], told["test_every_third_fails"]["failing_seeds"]) == ("3", "12")
    assert (told["test_passes"]["runs"], told["test_passes"]["failing_seeds"]) == ("4", "")
    result.stdout.fnmatch_lines(["run 3 of 4 failed; those before passed", "*it needs a process"])
    timers = (pytester.path / "timers").read_text().splitlines()
    assert [line for line in timers if "passes" in line] == ["begun test_passes", "ended test_passes"] * 4


@pytest.mark.slow
def test_a_flake_hunt_prints_pass_rates_with_what_fails_first(run_tests: RunTests) -> None:
    result = run_tests(SEEDS, "--cluster-env=sim", "--cluster-seed=10", "--flake-hunt=4", "-n", "1")
    result.assert_outcomes(failed=1, passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*= flake hunt =*",
            "*::test_every_third_fails*3 of 4*75.0%*30.1% to 95.4%*12",
            "*::test_passes*4 of 4*100.0%*51.0% to 100.0%",
        ]
    )


@pytest.mark.slow
def test_a_flake_hunt_of_a_file_that_cannot_be_imported_says_why_and_prints_an_empty_table(run_tests: RunTests) -> None:
    result = run_tests("import a_module_that_is_not_there", "--cluster-env=sim", "--flake-hunt=2")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*ModuleNotFoundError: No module named 'a_module_that_is_not_there'", "*= flake hunt =*"]
    )
    result.stderr.no_fnmatch_line("*AttributeError*")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "arguments", "complaint"),
    [
        ("cluster(node=5)", (), "does not take node; it takes by name: nodes, system,"),
        ("environments('docker')", (), "takes names out of sim, local, not 'docker'"),
        ("real", ("--cluster-env=netns",), "not built yet: use sim or local"),
        ("real", ("--cluster-env=sim", "--cluster-system=etcd"), "etcd cannot be simulated"),
        ("real", ("--cluster-mutant=nothing",), "there is no such mutant"),
        ("real", ("--cluster-mutant=half-is-a-majority", "--cluster-env=local"), "simulated nodes"),
        ("real", ("--flake-hunt=0",), "1 or more"),
        ("real", ("--cluster-seed=-1",), "between 0 and"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(
    pytester: pytest.Pytester, mark: str, arguments: tuple[str, ...], complaint: str
) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.{mark}\nasync def test_x(cluster): pass\n")
    result = pytester.runpytest_inprocess("-p", "no:asyncio", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert complaint in re.sub(r"\s+", " ", result.stderr.str() + result.stdout.str())


@pytest.mark.slow
def test_a_pytest_without_such_tests_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        import pytest

        @pytest.fixture
        def cluster():
            return "of somebody else's"

        def test_nothing(cluster):
            assert cluster == "of somebody else's"
            ours = {name for name in sys.modules if name.split(".")[0] == "seatrial"}
            assert ours <= {"seatrial", "seatrial.pytest_plugin"}
        """
    )
    pytester.runpytest_subprocess("-p", "no:asyncio", "-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_wilsons_interval_holds_at_the_edges() -> None:
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(50, 100) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_the_table_has_the_worst_first_and_no_more_seeds_than_can_be_read() -> None:
    good = Hunted(test="good", runs=10, failing=())
    bad = Hunted(test="bad", runs=10, failing=tuple(range(7)))
    header, *rows = table([good, bad])
    assert header.split()[:2] == ["test", "passed"]
    assert [row.split()[0] for row in rows] == ["bad", "good"]
    assert rows[0].endswith("0 1 2 3 4 and 2 more")


def test_a_report_tells_of_repetitions_only_where_there_were_any() -> None:
    assert hunted_in("x", [("seed", 3)]) is None
    assert hunted_in("x", [("runs", "3"), ("failing_seeds", "4 5")]) == Hunted(test="x", runs=3, failing=(4, 5))


def test_run_directories_are_named_after_their_tests_and_differ() -> None:
    assert file_name("tests/test_a.py::test_b") == "tests-test_a.py-test_b"
    assert file_name("a.py::test_b[x/y]") != file_name("a.py::test_b[x-y]")
    assert len(file_name("a.py::test_b[" + "x" * 300 + "]")) < 120

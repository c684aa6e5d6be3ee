"""The plugin runs a test on a cluster: in the simulator, exactly again; on real processes; beside other plugins."""

from __future__ import annotations

import shutil

import pytest
from tests.plugin.conftest import RunTests, properties_in

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

# The first example of the documentation, to the letter.
EXAMPLE = """
async def test_majority_keeps_serving(cluster):                 # 3 nodes; @pytest.mark.cluster(nodes=5, system="etcd", …) for others
    leader = await cluster.wait_for_leader(timeout=5)
    async with cluster.partition([leader], cluster.others(leader)):
        new = await cluster.wait_for_leader(timeout=5, among=cluster.others(leader))
        await cluster.kv.put("x", 1, via=new)
    await cluster.wait_for_consensus(timeout=5)
    assert await cluster.kv.get("x") == 1
"""  # noqa: E501

FIXTURES = """
import asyncio
import pytest

@pytest.fixture
async def leader(cluster):
    yield await cluster.wait_for_leader()
    assert await cluster.kv.get("last") == "written by the test"

@pytest.fixture
async def slept():
    await asyncio.sleep(0.1)
    return True

@pytest.fixture(scope="module")
def shared():
    yield []

@pytest.fixture
def cluster(cluster):
    cluster.is_made_of_ours = True
    return cluster

class TestGroup:
    @pytest.mark.cluster(nodes=2)
    @pytest.mark.parametrize("number", [1, 2])
    async def test_fixtures(self, cluster, leader, slept, shared, number, tmp_path, history, check, free_port):
        assert leader in cluster.nodes and len(cluster.nodes) == 2 and slept and cluster.is_made_of_ours
        (tmp_path / "notes").write_text("a test may write its own files")
        with history.record("write", key="mine", value=1) as op:
            op.ok()
        await cluster.kv.put("last", "written by the test")
        check("linearizability")
        assert free_port() != free_port()

def test_synchronous(cluster):
    assert cluster.nodes == (1, 2, 3)

def test_ordinary(shared):
    assert shared == []
"""

COLLEAGUES = """
import asyncio, pytest

@pytest.mark.asyncio
async def test_of_pytest_asyncio():
    assert type(asyncio.get_running_loop()).__module__.split(".")[0] in ("asyncio", "uvloop")

@pytest.mark.anyio
async def test_of_anyio(anyio_backend_name):
    assert anyio_backend_name == "asyncio"

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def led(cluster):
    yield await cluster.wait_for_leader()

@pytest.mark.cluster(nodes=1)
async def test_of_ours(cluster, led):
    assert (type(asyncio.get_running_loop()).__name__ == "SimLoop") == (cluster.env == "sim")
"""


def test_the_example_passes_on_real_processes_and_parallel_tests_do_not_collide(run_tests: RunTests) -> None:
    twice = EXAMPLE.replace("async def", 'import pytest\n@pytest.mark.parametrize("n", [1, 2])\nasync def')
    twice = twice.replace("(cluster):", "(cluster, n):")
    run_tests(twice, "--cluster-env=local", "-n", "2").assert_outcomes(passed=2)


@pytest.mark.external
def test_the_example_passes_on_etcd(run_tests: RunTests) -> None:
    if shutil.which("etcd") is None:
        pytest.skip("there is no etcd on the PATH")
    run_tests(EXAMPLE, "--cluster-env=local", "--cluster-system=etcd").assert_outcomes(passed=1)


def test_fixtures_and_ordinary_tests_work_beside_it(run_tests: RunTests) -> None:
    run_tests(FIXTURES, "--cluster-env=sim").assert_outcomes(passed=4)


def test_a_failing_teardown_before_a_simulated_test_is_an_error_of_its_own(run_tests: RunTests) -> None:
    source = """
    import pytest

    @pytest.fixture(scope="module")
    def broken():
        yield
        raise RuntimeError("the module's own")

    def test_ordinary(broken):
        pass

    def test_simulated(cluster):
        pass
    """
    result = run_tests(source, "--cluster-env=sim")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*RuntimeError: the module's own"])


def test_fixtures_work_on_real_processes(run_tests: RunTests) -> None:
    run_tests(FIXTURES, "--cluster-env=local", "-k", "fixtures and 1").assert_outcomes(passed=1, deselected=3)


@pytest.mark.parametrize(("environment", "mode"), [("sim", "auto"), ("local", "strict")])
def test_other_plugins_for_coroutines_keep_their_tests_and_lose_ours(
    run_tests: RunTests, environment: str, mode: str
) -> None:
    run_tests(
        COLLEAGUES, f"--cluster-env={environment}", "--strict-markers", f"--asyncio-mode={mode}", plain=False
    ).assert_outcomes(passed=3)


def test_a_plugin_that_takes_every_coroutine_loses_ours(run_tests: RunTests) -> None:
    of_anyio = COLLEAGUES.replace("@pytest.mark.asyncio", "@pytest.mark.anyio")
    run_tests(of_anyio, "--cluster-env=sim", "--anyio-mode=auto", "-p", "no:asyncio", plain=False).assert_outcomes(
        passed=3
    )


def test_the_example_passes_in_the_simulator_and_a_run_is_decided_by_file_test_and_seed(
    run_tests: RunTests, pytester: pytest.Pytester
) -> None:
    two = EXAMPLE + EXAMPLE.replace("test_majority", "test_again_majority")
    traces = set()
    for passed, *arguments in ((1, "-k", "test_again", "-vv"), (2, "-n", "1")):
        result = run_tests(two, "--cluster-env=sim", "--cluster-seed=7", "--junitxml=report.xml", *arguments)
        result.assert_outcomes(passed=passed, deselected=2 - passed)
        traces.add(properties_in(pytester.path / "report.xml")["test_again_majority_keeps_serving"]["trace"])
    assert len(traces) == 1


def test_a_planted_bug_is_in_the_nodes_and_in_the_replay_command(run_tests: RunTests) -> None:
    split = """
    import pytest

    @pytest.mark.cluster(nodes=4)
    async def test_half_is_no_majority(cluster):
        async with cluster.partition([1, 2], [3, 4]):
            with pytest.raises(Exception):
                await cluster.wait_for_leader(timeout=3)
    """
    run_tests(split, "--cluster-env=sim").assert_outcomes(passed=1)
    planted = run_tests("", "--cluster-mutant=half-is-a-majority")
    planted.assert_outcomes(failed=1)
    planted.stdout.fnmatch_lines(["replay with: pytest --cluster-env=sim*--cluster-mutant=half-is-a-majority*"])

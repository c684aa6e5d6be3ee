"""A case at the full level: the same in every process, found out where the server has a planted bug, and quick."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seatrial.sim.case import Case, Disk, Fault, Load, Network, Raft
from seatrial.sim.full import run_case
from seatrial.sim.single import single_runner
from seatrial.sim.swarm import draw_case
from seatrial.sim.zygote import Died, Zygote

MakeCase = Callable[..., Case]
MakeFault = Callable[..., Fault]


def digest_with_trace(case: Case) -> tuple[str, int]:
    lines: list[str] = []
    return run_case(case, trace=lines.append).digest, len("".join(lines))


def digest(case: Case) -> tuple[str, int]:
    return run_case(case).digest, 0


@pytest.mark.slow
def test_a_case_gives_the_same_trace_in_every_process_with_the_trace_on_or_off(
    make_case: MakeCase, make_fault: MakeFault
) -> None:
    faults = [
        make_fault("crash", 1.2, nodes=(1,), mode="power"),
        make_fault("cut", 1.8, links=((1, 2), (2, 1)), mode="link"),
    ]
    case = make_case(*faults, seconds=2.4, drift_ppm=20_000, disk=Disk(unsynced="some"))
    with Zygote(digest, digest_with_trace) as zygote:
        first = zygote.run(digest, case, timeout_s=60)
        second = zygote.run(digest_with_trace, case, timeout_s=60)
    with Zygote(digest) as zygote:
        third = zygote.run(digest, case, timeout_s=60)
    assert not isinstance(first, Died), first.reason
    assert not isinstance(second, Died), second.reason
    assert not isinstance(third, Died), third.reason
    assert first[0] == second[0] == third[0]
    assert second[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 146, 166])
def test_a_swarm_of_faults_breaks_no_promise(seed: int) -> None:
    """Each of these once found something: a term that was never durable, replicas that only fragile nodes had."""
    outcome = run_case(draw_case(seed, "full", duration_us=4_000_000))
    assert [(violation.name, violation.message) for violation in outcome.violations] == []
    assert outcome.virtual_us >= 4_000_000


# The server's own planted bugs


@pytest.mark.slow
def test_an_acknowledgement_before_the_commit_is_found(make_case: MakeCase, make_fault: MakeFault) -> None:
    """Leaders that are cut off, then crash, take with them what they alone had acknowledged."""
    faults = []
    for node in (1, 2, 3):
        links = tuple((a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b and node in (a, b))
        at = 0.8 + 0.8 * node
        faults += [
            make_fault("cut", at, 0.7, links=links, mode="isolate"),
            make_fault("crash", at + 0.4, 0.4, nodes=(node,), mode="power"),
        ]
    case = make_case(*faults, seconds=4.5, disk=Disk(unsynced="lost"), load=Load(rate=20.0, kafka_rate=40.0))
    names = {violation.name for violation in run_case(case, unsafe=frozenset({"ack-before-commit"})).violations}
    assert names & {"lost-write", "nonlinearizable", "inconsistent-offsets", "unseen"}, names


@pytest.mark.slow
def test_a_stale_read_is_found(make_case: MakeCase, make_fault: MakeFault) -> None:
    """Each node in turn is cut off, so that the leader is; it answers with what it knew."""
    faults = []
    for node in (1, 2, 3):
        links = tuple((a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b and node in (a, b))
        faults.append(make_fault("cut", 0.2 + 0.8 * node, 0.7, links=links, mode="isolate"))
    load = Load(rate=60.0, clients=8, keys=1, reads=0.6, kafka_rate=0.0)
    case = make_case(*faults, seconds=3.5, load=load)
    names = {violation.name for violation in run_case(case, unsafe=frozenset({"stale-reads"})).violations}
    assert "nonlinearizable" in names, names


@pytest.mark.slow
def test_a_vote_given_twice_is_found_and_the_run_can_end_there(make_case: MakeCase, make_fault: MakeFault) -> None:
    """The switch also lets the election timers coincide; crashes of all make for many elections."""
    faults = [make_fault("crash", 0.6 + 0.7 * place, 0.1, nodes=(1, 2, 3), mode="kill") for place in range(4)]
    raft = Raft(election_timeout_us=200_000, heartbeat_us=40_000, pre_vote=False)
    case = make_case(*faults, seconds=3.5, raft=raft, load=Load(rate=5.0, kafka_rate=5.0))
    unsafe = frozenset({"forget-vote"})
    whole = run_case(case, unsafe=unsafe)
    names = {violation.name for violation in whole.violations}
    assert "election-safety" in names, names
    stopped = run_case(case, unsafe=unsafe, stops_at_first=True)
    first, same = whole.violations[0], stopped.violations[0]
    assert (same.name, same.message, same.at_us) == (first.name, first.message, first.at_us)
    assert stopped.virtual_us < first.at_us + 1_000 < whole.virtual_us


@pytest.mark.slow
def test_first_violations_of_cases_that_run_together_come_in_the_order_of_the_cases(make_case: MakeCase) -> None:
    fine, far = make_case(seconds=0.3), make_case(seconds=0.3, network=Network(delay_us=(2_000_000, 2_000_001)))
    with single_runner("full") as runner:
        found = runner.first_violations([fine, far, fine])
        assert [violation and violation.name for violation in found] == [None, "liveness", None]
        assert found[1] == runner.run(far).violations[0]


def test_a_case_of_another_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level 'core'"):
        run_case(Case(level="core", seed=1))

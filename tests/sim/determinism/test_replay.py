"""The same seed gives the same trace: in other processes, environments, after other seeds, watched or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import programs
import pytest

from seatrial.sim import NotFinished, SimNetwork, compare_traces, simulate
from seatrial.sim.trace import Trace, name_of
from seatrial.sim.zygote import Zygote, run_forked

pytestmark = pytest.mark.slow


def test_a_seed_replays_after_others_in_one_zygote(zygote: Zygote) -> None:
    first = zygote.run(programs.echo, (1, ""))
    other = zygote.run(programs.echo, (2, ""))
    assert zygote.run(programs.echo, (1, "")) == first
    assert first[0] != other[0]
    assert first[1]["answers"] > 300
    assert first[1]["errors"] > 5


def test_watching_a_run_does_not_change_it(zygote: Zygote, tmp_path: Path) -> None:
    silent, _ = zygote.run(programs.echo, (4, ""))
    watched, _ = zygote.run(programs.echo, (4, str(tmp_path / "trace")))
    assert silent == watched
    lines = (tmp_path / "trace").read_text().splitlines()
    assert len(lines) > 5_000
    assert any(" tcp " in line for line in lines)
    assert any(line.endswith("programs.echo.<locals>.ask") or "echo.<locals>.ask" in line for line in lines)


def test_a_seed_replays_in_fresh_processes_with_other_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for hash_seed, filler in (("0", ""), ("1", "x" * 700), ("random", "y" * 4_000)):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        monkeypatch.setenv("FILLER", filler)
        digests.add(run_forked(programs.echo, (5, ""))[0])
    assert len(digests) == 1


def test_what_differs_between_processes_is_pinned_for_programs(zygote: Zygote) -> None:
    assert zygote.pinning.complete, zygote.pinning.missing
    first = zygote.run(programs.observed, 1)
    assert isinstance(first, dict), first
    with Zygote(programs.echo) as other:
        second = other.run(programs.observed, 1)
    assert first == second
    assert zygote.run(programs.observed, 2) != first


def test_a_third_party_web_server_and_client_replay(zygote: Zygote) -> None:
    first = zygote.run(programs.web, 1)
    assert isinstance(first, tuple), first
    digest, told = first
    assert told["answers"] > 20
    assert told["errors"] >= 2
    with Zygote(programs.echo) as other:
        assert other.run(programs.web, 1) == first
    assert zygote.run(programs.web, 2)[0] != digest


def test_a_third_party_server_stops_at_a_simulated_signal(zygote: Zygote) -> None:
    assert zygote.run(programs.stop_gracefully, 1) == "stopped"


def test_the_digest_is_of_every_line() -> None:
    def digest(*lines: str) -> str:
        trace = Trace()
        for line in lines:
            trace.line(line)
        return trace.digest()

    many = [str(number) for number in range(1_000)]
    assert digest(*many) == digest(*many)
    assert digest(*many) != digest(*many[:-1])
    assert digest("a", "b") != digest("b", "a")


def test_two_traces_are_compared_up_to_the_first_line_that_differs() -> None:
    one = ["1 a", "2 b", "3 c", "4 d", "5 e"]
    assert compare_traces(one, list(one)) is None
    said = compare_traces(one, [*one[:4], "5 f"])
    assert said is not None
    assert said.startswith("line 5 differs")
    assert "< 5 e" in said
    assert "> 5 f" in said
    assert "4 d" in said
    assert "1 a" not in said
    assert "ends here" in str(compare_traces(one, one[:2]))


def test_names_in_a_trace_hold_no_address() -> None:
    import functools

    assert name_of(functools.partial(os.getpid)) == "getpid"
    assert "0x" not in name_of(object())


async def lonely(network: SimNetwork) -> int:
    import asyncio

    await asyncio.sleep(2)
    return network.world.now_us


async def stuck(network: SimNetwork) -> None:
    import asyncio

    await asyncio.Event().wait()


async def broken(network: SimNetwork) -> None:
    async def program() -> None:
        raise ConnectionError("nobody caught this")

    import asyncio

    network.add_host("other").spawn(program())
    await asyncio.sleep(1)


def test_simulate_returns_what_main_returns() -> None:
    simulated = simulate(lonely, seed=1)
    assert simulated.value >= 2_000_000
    assert simulated.virtual_us >= 2_000_000
    assert simulate(lonely, seed=1).digest == simulated.digest


def test_simulate_says_where_main_is_stuck() -> None:
    with pytest.raises(NotFinished, match="stuck"):
        simulate(stuck, seed=1, deadline_s=5)


def test_simulate_raises_what_nobody_caught() -> None:
    with pytest.raises(ConnectionError, match="nobody caught"):
        simulate(broken, seed=1)


def test_simulate_hands_on_the_trace() -> None:
    text: list[Any] = []
    simulate(lonely, seed=1, sink=text.append)
    assert "operator lonely" in "".join(text)

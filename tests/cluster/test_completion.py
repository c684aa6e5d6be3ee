"""Undoing is finished even when nobody waits for it any more."""

from __future__ import annotations

import asyncio

import pytest

from seatrial.cluster.completion import to_the_end


def test_work_is_finished_before_a_cancellation_goes_on() -> None:
    async def scenario() -> list[str]:
        steps: list[str] = []
        gate = asyncio.Event()

        async def work() -> str:
            steps.append("begun")
            await gate.wait()
            steps.append("finished")
            return "result"

        task = asyncio.ensure_future(to_the_end(work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return steps

    assert asyncio.run(scenario()) == ["begun", "finished"]


def test_results_and_errors_come_through() -> None:
    async def succeed() -> int:
        return 3

    async def fail() -> None:
        raise ValueError("no")

    assert asyncio.run(to_the_end(succeed())) == 3
    with pytest.raises(ValueError, match="no"):
        asyncio.run(to_the_end(fail()))

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


@pytest.mark.parametrize("steps", range(8))
def test_no_cancellation_is_lost_however_near_to_the_end_it_comes(steps: int) -> None:
    """A flapping link went on for ever: it was cancelled in the very step in which its last cut had been undone."""

    async def scenario() -> None:
        gate = asyncio.Event()
        task = asyncio.ensure_future(to_the_end(gate.wait()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert task.result() is True

    asyncio.run(scenario())


def test_an_error_after_a_cancellation_is_its_cause() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ValueError("no")

    async def scenario() -> BaseException | None:
        task = asyncio.ensure_future(to_the_end(fail()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        return raised.value.__cause__

    assert isinstance(asyncio.run(scenario()), ValueError)


def test_results_and_errors_come_through() -> None:
    async def succeed() -> int:
        return 3

    async def fail() -> None:
        raise ValueError("no")

    assert asyncio.run(to_the_end(succeed())) == 3
    with pytest.raises(ValueError, match="no"):
        asyncio.run(to_the_end(fail()))

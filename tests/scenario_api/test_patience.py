"""Waiting and retrying, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seatrial.scenario import NeverSo, NotDone, Refused, Unavailable, eventually, retry
from seatrial.scenario.attempts import NoAnswer, until_done
from seatrial.sim import simulate


def virtually(scenario: Any) -> Any:
    """Run it on one simulated host."""
    return simulate(lambda network: scenario(), seed=1).value


def test_eventually_gives_the_first_true_answer_of_a_function_or_a_coroutine() -> None:
    async def scenario() -> None:
        answers = [0, "", "here"]
        assert await eventually(lambda: answers.pop(0)) == "here"
        numbers = [0, 7]

        async def number() -> int:
            return numbers.pop(0)

        assert await eventually(number) == 7

    virtually(scenario)


def test_eventually_takes_a_failed_assertion_for_not_yet_and_tells_it_at_the_end() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()

        def look() -> bool:
            assert loop.time() > begun + 1, "too early"
            return True

        assert await eventually(look, timeout=2)
        with pytest.raises(NeverSo, match=r"not so within 0\.5 s; it last failed with: never"):
            await eventually(_never, timeout=0.5)
        with pytest.raises(NeverSo, match=r"it last was \[\]"):
            await eventually(list, timeout=0.5)
        with pytest.raises(KeyError):
            await eventually(_broken)

    virtually(scenario)


def _broken() -> bool:
    raise KeyError("missing")


def _never() -> bool:
    raise AssertionError("never")


def test_retry_repeats_what_raises_the_named_errors_alone_and_raises_the_last_at_the_deadline() -> None:
    async def scenario() -> None:
        failures: list[Exception] = [Unavailable("one", definite=True), Refused("two")]

        async def action() -> str:
            if failures:
                raise failures.pop(0)
            return "done"

        assert await retry(action) == "done"

        def broken() -> None:
            raise Unavailable("again", definite=False)

        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(Unavailable, match="again") as caught:
            await retry(broken, timeout=1)
        assert 1 <= loop.time() - begun < 1.3
        assert "tried" in caught.value.__notes__[0]
        with pytest.raises(NotDone):
            await retry(broken, on=KeyError)

    virtually(scenario)


def test_a_refusal_after_an_attempt_without_an_answer_is_not_definite() -> None:
    async def scenario() -> None:
        answers: list[Exception] = [NoAnswer("lost", definite=False), Refused("too late")]

        async def attempt(turn: int, seconds: float) -> None:
            raise answers[turn]

        settings = {"timeout": 5.0, "attempt_s": 1.0, "retries": True, "again": True}
        with pytest.raises(Unavailable) as caught:
            await until_done("it", attempt, **settings)  # type: ignore[arg-type]
        assert not caught.value.definite
        answers[0] = NoAnswer("no connection", definite=True)
        with pytest.raises(Refused) as refused:
            await until_done("it", attempt, **settings)  # type: ignore[arg-type]
        assert refused.value.definite

    virtually(scenario)


def test_what_may_not_be_repeated_is_tried_until_its_outcome_is_unknown() -> None:
    async def scenario() -> None:
        tried: list[float] = []

        async def attempt(turn: int, seconds: float) -> None:
            tried.append(seconds)
            raise NoAnswer("gone", definite=turn < 2)

        with pytest.raises(Unavailable, match="3 attempts"):
            await until_done("it", attempt, timeout=5, attempt_s=1, retries=True, again=False)
        assert len(tried) == 3 and min(tried) > 4, "none is cut short"
        tried.clear()
        with pytest.raises(Unavailable) as caught:
            await until_done("it", attempt, timeout=5, attempt_s=1, retries=False, again=True)
        assert tried == [5] and caught.value.definite

    virtually(scenario)


def test_an_attempt_after_one_that_used_all_its_time_has_twice_as_much() -> None:
    async def scenario() -> None:
        given: list[float] = []

        async def attempt(turn: int, seconds: float) -> str:
            given.append(seconds)
            if turn != 1:
                await asyncio.sleep(seconds)
            if seconds < 4:
                raise NoAnswer("too short", definite=False)
            return "done"

        assert await until_done("it", attempt, timeout=20, attempt_s=1, retries=True, again=True) == "done"
        assert given == [1, 2, 2, 4]

    virtually(scenario)

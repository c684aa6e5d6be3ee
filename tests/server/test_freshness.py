"""How fresh a follower's reads are: only by an answer to a question that was asked late enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from seatrial.server.freshness import NEVER, RETRY_S, Freshness


class FakeReplica:
    """Its leader answers when the test says so."""

    closed = False

    def __init__(self) -> None:
        self.clock_us = 1_000_000
        self.asked: list[asyncio.Future[None]] = []
        self.woken = 0

    def now_us(self) -> int:
        return self.clock_us

    def read_barrier(self) -> asyncio.Future[None]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]

    def wake_watchers(self) -> None:
        self.woken += 1


def in_a_loop(scenario: Callable[[FakeReplica, Freshness], Awaitable[None]]) -> None:
    async def run() -> None:
        replica = FakeReplica()
        await scenario(replica, Freshness(replica))

    asyncio.run(run())


def test_nothing_is_asked_before_somebody_wants_to_know() -> None:
    async def scenario(replica: FakeReplica, freshness: Freshness) -> None:
        assert (freshness.vouched_us, replica.asked) == (NEVER, [])

    in_a_loop(scenario)


def test_an_answer_vouches_for_the_time_of_its_question_and_wakes_who_waits() -> None:
    async def scenario(replica: FakeReplica, freshness: Freshness) -> None:
        freshness.want(990_000, 2_000_000)
        replica.clock_us = 1_500_000  # when the answer comes
        replica.asked[0].set_result(None)
        await asyncio.sleep(0)
        assert (freshness.vouched_us, replica.woken) == (1_000_000, 1)

    in_a_loop(scenario)


def test_those_that_a_question_under_way_will_do_for_share_it() -> None:
    async def scenario(replica: FakeReplica, freshness: Freshness) -> None:
        freshness.want(1_000_000, 2_000_000)
        replica.clock_us += 10
        freshness.want(900_000, 2_000_000)
        assert len(replica.asked) == 1
        freshness.want(1_000_010, 2_000_000)  # who came later than it was asked needs another
        assert len(replica.asked) == 2
        replica.asked[1].set_result(None)
        await asyncio.sleep(0)
        replica.asked[0].set_result(None)
        await asyncio.sleep(0)
        assert freshness.vouched_us == 1_000_010

    in_a_loop(scenario)


def test_what_is_known_to_be_fresh_enough_is_not_asked_again() -> None:
    async def scenario(replica: FakeReplica, freshness: Freshness) -> None:
        freshness.want(1_000_000, 2_000_000)
        replica.asked[0].set_result(None)
        await asyncio.sleep(0)
        freshness.want(1_000_000, 2_000_000)
        assert len(replica.asked) == 1

    in_a_loop(scenario)


def test_a_question_that_was_refused_is_asked_again_while_somebody_waits() -> None:
    async def scenario(replica: FakeReplica, freshness: Freshness) -> None:
        freshness.want(1_000_000, 2_000_000)
        replica.asked[0].set_exception(RuntimeError("no leader"))
        await asyncio.sleep(0)
        assert (freshness.vouched_us, len(replica.asked)) == (NEVER, 1)
        await asyncio.sleep(2 * RETRY_S)
        assert len(replica.asked) == 2
        replica.clock_us = 2_000_000  # everybody has left
        replica.asked[1].set_exception(RuntimeError("no leader"))
        await asyncio.sleep(2 * RETRY_S)
        assert len(replica.asked) == 2

    in_a_loop(scenario)


def test_a_closed_replica_asks_nobody() -> None:
    async def scenario(replica: FakeReplica, freshness: Freshness) -> None:
        replica.closed = True
        freshness.want(1_000_000, 2_000_000)
        assert replica.asked == []

    in_a_loop(scenario)

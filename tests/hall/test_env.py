"""The real versions of the seams keep the contracts that their Protocols state."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest

from seatrial.env import HELPERS, Clock, Files, RealClock, RealFiles, Rng


def test_a_child_stream_does_not_move_when_its_parent_is_used() -> None:
    fresh, used = Rng(7), Rng(7)
    for _ in range(10):
        used.random()
    assert [fresh.child("disk").random() for _ in range(3)] == [used.child("disk").random() for _ in range(3)]
    assert fresh.child("disk").random() != fresh.child("network").random()


def test_integer_reaches_both_ends() -> None:
    rng = Rng(1)
    assert {rng.integer(3, 5) for _ in range(200)} == {3, 4, 5}


def test_the_clock_never_goes_back() -> None:
    clock: Clock = RealClock()
    samples = [clock.now_us() for _ in range(1000)]
    assert samples == sorted(samples)


def test_a_write_of_many_buffers_reads_back_whole(tmp_path: Path) -> None:
    files: Files = RealFiles()
    file = files.open(str(tmp_path / "f"), create=True)
    buffers = [bytes([i % 256]) * (i % 7) for i in range(3000)]
    file.write(5, buffers)
    assert file.read(5, 1 << 20) == b"".join(buffers)
    assert file.size() == 5 + sum(map(len, buffers))
    file.truncate(10)
    file.allocate(4096)
    assert file.size() == 4096
    assert file.read(10, 10) == bytes(10)
    file.close()


def test_a_lock_is_refused_while_another_holds_it(tmp_path: Path) -> None:
    files = RealFiles()
    held = files.lock(str(tmp_path / "lock"))
    with pytest.raises(BlockingIOError):
        files.lock(str(tmp_path / "lock"))
    held.close()
    files.lock(str(tmp_path / "lock")).close()


def test_a_directory_is_removed_with_everything_in_it(tmp_path: Path) -> None:
    files = RealFiles()
    files.make_directory(str(tmp_path / "a/b/c"))
    files.open(str(tmp_path / "a/b/x"), create=True).close()
    assert files.list_directory(str(tmp_path / "a/b")) == ["c", "x"]
    files.remove_directory(str(tmp_path / "a"))
    assert not files.exists(str(tmp_path / "a"))
    assert files.list_directory(str(tmp_path / "a")) == []


def test_the_worker_runs_jobs_in_order_and_answers_on_the_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop_thread = os.getpid(), __import__("threading").get_ident()
        worker = RealFiles().worker("test")
        answers: list[object] = []
        finished = asyncio.Event()

        def fail() -> int:
            raise OSError(5, "planted")

        def done(result: object) -> None:
            assert (os.getpid(), __import__("threading").get_ident()) == loop_thread
            answers.append(result)
            if len(answers) == 101:
                finished.set()

        for number in range(100):
            worker.submit(lambda number=number: number, done)
        worker.submit(fail, done)
        await asyncio.wait_for(finished.wait(), 5)
        assert answers[:100] == list(range(100))
        assert isinstance(answers[100], OSError)
        worker.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [2, 40])
def test_jobs_side_by_side_have_all_ended_when_one_of_them_is_reported_to_have_failed(count: int) -> None:
    """A sync that goes on behind a failure's back could be taken for one of the next batch."""
    ended: list[int] = []

    def job(number: int) -> None:
        ended.append(number)
        if number == count - 1:
            raise OSError(5, "planted")

    with pytest.raises(OSError, match="planted"):
        RealFiles().side_by_side([partial(job, number) for number in range(count)])
    assert sorted(ended) == list(range(count))


def test_many_jobs_run_at_once() -> None:
    """Each of them waits for all the others: one after the other they would never end."""
    together = Barrier(HELPERS, timeout=5)
    passed: list[int] = []
    RealFiles().side_by_side([lambda: passed.append(together.wait()) for _ in range(HELPERS)])
    assert sorted(passed) == list(range(HELPERS))

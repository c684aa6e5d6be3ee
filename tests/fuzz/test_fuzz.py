"""A short campaign against each parser, and that a planted bug of each kind is found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import campaign
from fake_broker import FakeBroker, as_backend
from hypothesis import given
from hypothesis import strategies as st
from raft_frames import Receiver
from victim import Victim, framed

from seatrial.kafka.apis import APIS
from seatrial.kafka.backend import BrokerSettings
from seatrial.kafka.dispatch import Dispatcher


@pytest.mark.slow
@pytest.mark.parametrize("target", ["kafka", "raft"])
def test_damaged_inputs_harm_nobody(target: str) -> None:
    """As `make fuzz`, with a thousandth of its inputs."""
    report = campaign(target, 1, 10_000)
    assert report.found == {}
    assert report.inputs >= 10_000


class Bugged:
    """A dispatcher that does something else with one input of some: those of which the correlation id ends in 1."""

    def __init__(self, bug: Callable[[], Any]) -> None:
        self._inner = Dispatcher(as_backend(FakeBroker()), BrokerSettings())
        self._bug = bug

    def handle(self, frame: memoryview, client: Any) -> Any:
        if len(frame) > 14 and frame[7] & 0xF == 1:
            return self._bug()
        return self._inner.handle(frame, client)


def raise_key_error() -> Any:
    raise KeyError("planted")


def raise_later() -> Any:
    async def fail() -> Any:
        raise KeyError("planted")

    return asyncio.get_running_loop().create_task(fail())


def break_the_framing() -> Any:
    return [b"\0\0\0\x09abc"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (raise_key_error, "kafka_request_failed: KeyError('planted')"),
        (raise_later, "kafka_request_failed: KeyError('planted')"),
        (break_the_framing, "an answer of 7 bytes with a frame of 9 at 0"),
    ],
)
def test_a_planted_bug_is_found(bug: Callable[[], Any], told: str) -> None:
    report = campaign("kafka", 1, 500, dispatcher=Bugged(bug))
    assert told in report.found
    assert report.found[told]


@pytest.mark.slow
def test_a_request_that_never_ends_is_found() -> None:
    def spin() -> Any:
        while True:
            pass

    loop = asyncio.new_event_loop()
    frame = b"\0\3\0\0\0\0\0\x01\xff\xff" + bytes(20)
    victim = Victim(loop, dispatcher=Bugged(spin), longest_s=0.5)
    assert victim.suffer([framed(frame)])[0] == "it took longer than 0.5 s"
    loop.close()


@pytest.mark.slow
@given(st.sampled_from(sorted(APIS)), st.integers(-1, 20), st.binary(max_size=60))
def test_any_body_of_any_api_is_answered_or_refused(key: int, version: int, body: bytes) -> None:
    loop = asyncio.new_event_loop()
    victim = Victim(loop)
    head = key.to_bytes(2, "big") + (version & 0xFFFF).to_bytes(2, "big") + bytes(4) + b"\xff\xff"
    assert victim.suffer([framed(head + body)]) == []
    victim.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@given(st.integers(0, 255), st.binary(max_size=80))
def test_any_body_of_a_raft_frame_is_decoded_or_refused(kind: int, body: bytes) -> None:
    receiver = Receiver()
    receiver.feed(len(body).to_bytes(4, "little") + bytes([kind, 0, 0, 0]) + body)
    assert receiver.refused or receiver.messages or kind < 16 or not body


@pytest.mark.slow
@pytest.mark.external
@pytest.mark.parametrize("target", ["kafka", "raft"])
def test_a_coverage_guided_fuzzer_finds_nothing_either(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install atheris")
    script = Path(__file__).with_name("with_atheris.py")
    done = subprocess.run(
        [sys.executable, str(script), target, "-runs=2000", "-seed=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

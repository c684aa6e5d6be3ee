"""A client in another language: a process that is told what to do by one JSON object a line.

Rule: the program on the other side does each thing in its client's own way; here is only what it is asked and told.
Bytes go as base64.  Calls may run at the same time, and are answered by their number.
"""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from client_under_test import DEADLINE_S, Found, Producing, Record


class JsonClient:
    """The process, started at once; `log` is where its standard error goes."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self._reader = threading.Thread(target=self._read_answers, daemon=True)
        self._reader.start()

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"])
            if "error" in answer:
                future.set_exception(RuntimeError(answer["error"]))
            else:
                future.set_result(answer["result"])
        for future in self._waiting.values():
            future.set_exception(RuntimeError(f"the client's process has ended: {self._log.read_text()[-2000:]}"))

    def call(self, call: str, **arguments: Any) -> Any:
        """The program's result.  Raises RuntimeError with its error."""
        number, future = next(self._numbers), Future[Any]()
        self._waiting[number] = future
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"id": number, "call": call, **arguments}) + "\n")
            self._process.stdin.flush()
        return future.result(DEADLINE_S + 15)

    def create_topic(self, topic: str, partitions: int) -> None:
        self.call("create_topic", topic=topic, partitions=partitions)

    def produce(self, topic: str, records: Sequence[Record], how: Producing) -> list[int]:
        offsets: list[int] = self.call(
            "produce",
            topic=topic,
            records=[
                {
                    "value": _text(record.value),
                    "key": _text(record.key),
                    "headers": [[name, _text(value)] for name, value in record.headers],
                    "timestamp_ms": record.timestamp_ms,
                }
                for record in records
            ],
            acks=how.acks,
            idempotent=how.idempotent,
            codec=how.codec,
            pause_ms=round(how.pause_s * 1000),
        )
        return offsets

    def read(self, topic: str, offset: int, count: int, *, rack: str = "") -> list[Found]:
        found = self.call("read", topic=topic, offset=offset, count=count, rack=rack)
        return [
            Found(
                one["offset"],
                _bytes(one["value"]) or b"",
                _bytes(one["key"]),
                tuple((name, _bytes(value) or b"") for name, value in one["headers"]),
                one["timestamp_ms"],
            )
            for one in found
        ]

    def read_as_group(self, group: str, topic: str, count: int) -> list[int]:
        values: list[int] = self.call("read_as_group", group=group, topic=topic, count=count)
        return values

    def offset_at(self, topic: str, when: int) -> int:
        offset: int = self.call("offset_at", topic=topic, when=when)
        return offset

    def admin(self, call: str, **arguments: Any) -> Any:
        result = self.call(call, **arguments)
        if call in ("replicas_of", "group_offsets", "partition_sizes"):
            return {int(number): value for number, value in result.items()}  # JSON has no numbers as names
        return result

    def close(self) -> None:
        """The process ends when it has nothing more to read."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(10)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)

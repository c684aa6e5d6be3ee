"""Requests as real clients sent them, one line each in testdata/requests.jsonl.

They were recorded while each client created a topic `cap` of two partitions (librdkafka, kafka-python), produced
`value-0` to `value-2` with the key `k` at 1700000000000 ms and after, and read them back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Capture(NamedTuple):
    client: str
    api_key: int
    version: int
    frame: bytes


def captures() -> list[Capture]:
    lines = (Path(__file__).parent / "testdata" / "requests.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [Capture(row["client"], row["api_key"], row["version"], bytes.fromhex(row["frame"])) for row in rows]

"""docs/kafka.md lists what is served; `SEATRIAL_REWRITE=1 pytest tests/docs` writes its table anew."""

from __future__ import annotations

import os
from pathlib import Path

from seatrial.kafka.apis import APIS
from seatrial.kafka.dispatch import NAMES_BYTES_MAX
from seatrial.kafka.topic_configs import DYNAMIC_BROKER_CONFIGS, TOPIC_CONFIGS
from seatrial.kafka.wire import ELEMENTS_MAX
from seatrial.server.listener import ListenerLimits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kafka.md"
BEGIN, END = "<!-- requests -->\n", "<!-- end -->\n"


def requests_table() -> str:
    rows = [
        f"| {row.message} | {int(row.key)} | {row.min_served} to {row.max_served} |"
        for row in sorted(APIS.values(), key=lambda row: row.message)
    ]
    return "\n".join(["| request | key | versions |", "| --- | --- | --- |", *rows]) + "\n"


def test_the_page_lists_the_requests_that_are_served() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = before + BEGIN + requests_table() + END + after
    if os.environ.get("SEATRIAL_REWRITE"):
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, "run SEATRIAL_REWRITE=1 pytest tests/docs/test_kafka_page.py"


def test_the_page_names_settings_and_bounds_as_they_are() -> None:
    page = PAGE.read_text()
    named = {
        line.split("`")[1] for line in page.split("## Settings")[1].split("## Bounds")[0].splitlines() if "| `" in line
    }
    assert named <= set(TOPIC_CONFIGS)
    effective = [name for name in DYNAMIC_BROKER_CONFIGS if "throttled" not in name and "alter" not in name]
    assert all(f"`{name}`" in page for name in effective)
    limits = ListenerLimits()
    assert f"| {ELEMENTS_MAX:,};" in page
    assert NAMES_BYTES_MAX == 4 << 20
    assert (limits.in_flight_requests, limits.in_flight_bytes, limits.unsent_bytes) == (256, 64 << 20, 8 << 20)
    patience = limits.patience
    assert (patience.idle_s, patience.frame_s, patience.waiting_bytes) == (600, 60, 512 << 20)
    assert "10 minutes (`--connections-max-idle-ms`" in page and "| 60 s from" in page and "| 512 MB of half" in page

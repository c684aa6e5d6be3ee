"""What the console says: readable logs where there is no terminal, everything needed at the end, silence when asked."""

from __future__ import annotations

import io
import json
from typing import Any

from seatrial.report.console import Console, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(elapsed_s: float) -> Progress:
    return Progress(
        elapsed_s=elapsed_s,
        duration_s=30.0,
        ok=1234,
        fail=3,
        info=2,
        faults=("partition {1} from {2,3}",),
        leaders={"metadata": 1, "kv": 2, "log/0": 2},
    )


def test_a_log_file_gets_a_line_every_five_seconds_and_at_each_phase() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.phase("under faults")
    for tenth in range(120):
        console.progress(progress(tenth / 10))
    console.phase("final reads")
    console.progress(progress(12.0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 + 3 + 1
    assert all("\x1b" not in line for line in lines)
    assert "under faults" in lines[1]
    assert "1,234 ok" in lines[1]
    assert "1: metadata · 2: kv, log/0" in lines[1]
    assert "partition {1} from {2,3}" in lines[1]


def test_a_terminal_is_left_as_it_was_found() -> None:
    stream = Terminal()
    console = Console(stream)
    console.phase("under faults")
    console.progress(progress(1.0))
    console.close()
    console.close()
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")  # the cursor is back


def test_a_replay_command_is_never_broken_by_the_width_of_the_console() -> None:
    stream = io.StringIO()
    command = "seatrial run " + " ".join(f"--option name{n}=value" for n in range(20))
    Console(stream).begin(command)
    assert command in stream.getvalue()


def test_the_final_block_has_the_verdict_the_reason_the_anomalies_and_where_the_report_is(synthetic: Any) -> None:
    run = synthetic(seconds=8.0, rate=100.0).write("INVALID")
    verdict = json.loads(run.verdict.read_text()) | {"report": "/runs/" + "x" * 120 + "/report.html"}
    stream = io.StringIO()
    Console(stream).verdict(verdict)
    said = " ".join(stream.getvalue().replace("│", " ").split())
    assert "✗ INVALID" in said
    for checker in verdict["checkers"]:
        assert checker["checker"] in said
        for anomaly in checker["anomalies"]:
            assert anomaly["message"] in said
    assert verdict["replay"] in said
    assert verdict["report"] in said


def test_square_brackets_in_messages_are_no_markup() -> None:
    stream = io.StringIO()
    checkers = [{"checker": "c", "validity": "UNKNOWN", "reason": "nodes [red]1[/red] were out"}]
    Console(stream).verdict({"validity": "UNKNOWN", "checkers": checkers})
    assert stream.getvalue().count("[red]1[/red]") >= 1


def test_a_quiet_console_says_nothing(synthetic: Any) -> None:
    stream = Terminal()
    console = Console(stream, quiet=True)
    console.begin("seatrial run")
    console.phase("under faults")
    console.progress(progress(1.0))
    console.verdict({"validity": "VALID"})
    assert stream.getvalue() == ""

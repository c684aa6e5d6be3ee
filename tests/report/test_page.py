"""What the page promises: everything is on it, nothing outside it is needed, and big runs stay small and quick."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from seatrial.history import FaultEvent, MalformedRecord, Op, OpType, to_json
from seatrial.report import MalformedVerdict, render
from seatrial.rundir import RunDirectory

Synthetic = Callable[..., Any]
VOID = frozenset({"meta", "line", "rect", "path", "circle", "br"})


class Page(HTMLParser):
    """A page's text, links, elements by id and class; fails on elements that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.classes: list[str] = []
        self.ids: list[str] = []
        self.data = ""
        self._open: list[str] = []
        self._optional = frozenset({"li", "td", "th", "tr", "dt", "dd", "p"})
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.classes += values.get("class", "").split()
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.data = self.data or data
        elif self._open and self._open[-1] != "style":
            self.text += data + " "


@pytest.mark.parametrize("validity", ["VALID", "INVALID", "UNKNOWN", "UNFINISHED"])
def test_the_page_is_whole_html_that_needs_nothing_from_outside(synthetic: Synthetic, validity: str) -> None:
    run = synthetic(seconds=6.0, rate=60.0).write(validity)
    path = render(run)
    assert path == run.report
    page = Page(path)
    assert validity in page.text
    assert not re.search(r"https?://|//[a-z]+\.[a-z]+|@import|url\(", path.read_text())
    for link in page.links:
        assert link.startswith("#") or (run.root / link).is_file(), f"{link} leads nowhere"
    assert len(page.ids) == len(set(page.ids))


def test_the_verdict_comes_first_with_its_reason_the_seed_and_the_replay_command(synthetic: Synthetic) -> None:
    run = synthetic(seconds=6.0, rate=60.0).write("INVALID")
    page = Page(render(run))
    verdict = json.loads(run.verdict.read_text())
    reason = verdict["checkers"][0]["anomalies"][0]["message"]
    first = page.text.index("INVALID", page.text.index("Light / dark"))
    assert first < page.text.index(reason[1:]) < page.text.index(verdict["replay"]) < page.text.index("Timeline")
    assert "seed 7" in page.text


def test_an_unknown_verdict_says_why_and_that_it_is_no_pass(synthetic: Synthetic) -> None:
    page = Page(render(synthetic(seconds=6.0, rate=60.0).write("UNKNOWN")))
    assert "No pause left evidence that it bit. This is not a pass." in page.text


def test_the_page_counts_acknowledged_operations_as_the_run_does(synthetic: Synthetic) -> None:
    """The console has only the run's count, which takes in final reads."""
    run = synthetic(seconds=6.0, rate=60.0).write("VALID")
    read = Op(index=10**6, time_ns=5_900_000_000, client=999, type=OpType.INVOKE, f="final-read", key="log/0")
    with run.history.open("a") as file:
        for op in (read, replace(read, index=read.index + 1, type=OpType.OK, value=[])):
            file.write(to_json(op) + "\n")
    counted = run.history.read_text().count('"type":"ok"')
    page = Page(render(run))
    assert f"found every promise kept in {counted:,} acknowledged operations" in page.text


def test_every_anomaly_is_shown_with_its_message_and_each_of_its_operations(synthetic: Synthetic) -> None:
    run = synthetic(seconds=8.0, rate=100.0).write("INVALID")
    page = Page(render(run))
    ops = {op.index: op for op in run.load_history()}
    for checker in json.loads(run.verdict.read_text())["checkers"]:
        for anomaly in checker["anomalies"]:
            assert page.text.count(anomaly["message"]) >= 1
            for index in anomaly["ops"]:
                assert f"client {ops[index].client} " in page.text
    assert page.classes.count("bar") >= 5
    assert "open" in page.classes  # an operation whose outcome nobody knows has no end


def test_many_anomalies_are_all_listed(synthetic: Synthetic) -> None:
    run = synthetic(seconds=6.0, rate=60.0).write("INVALID")
    verdict = json.loads(run.verdict.read_text())
    found = [{"name": "lost-write", "message": f"value number {n} is gone", "ops": [0]} for n in range(300)]
    verdict["checkers"][0]["anomalies"] = found
    run.verdict.write_text(json.dumps(verdict))
    page = Page(render(run))
    assert all(f"value number {n} is gone" in page.text for n in range(300))
    assert "And 300 more anomalies below." in page.text


def test_every_fault_is_shown_with_whether_it_bit_and_its_evidence(synthetic: Synthetic) -> None:
    made = synthetic(seconds=14.0, rate=60.0)
    run = made.write("VALID")
    page = Page(render(run))
    assert page.classes.count("fault") == len(made.outages)
    for event in run.load_faults():
        assert event.description in page.text
        for name in event.evidence or {}:
            assert name.replace("_", " ") in page.text
    assert "did not bite" in page.text
    assert "the run was about to end" in page.text  # why the last fault was skipped


def test_every_node_has_a_lane_with_its_roles_and_outages(synthetic: Synthetic) -> None:
    page = Page(render(synthetic(seconds=14.0, rate=60.0).write("VALID")))
    for node in (1, 2, 3):
        assert f"Node {node}" in page.text
    assert {"leader", "follower", "down", "hit", "term"} <= set(page.classes)


def test_every_checker_is_shown_with_its_verdict_and_figures(synthetic: Synthetic) -> None:
    run = synthetic(seconds=6.0, rate=60.0).write("INVALID")
    page = Page(render(run))
    for checker in json.loads(run.verdict.read_text())["checkers"]:
        assert checker["checker"] in page.text
    assert "longest unavailability s" in page.text
    assert page.text.rindex("INVALID") < page.text.index("raft-invariants")  # the worst first


def test_what_a_cluster_said_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    evil = '</script><script>alert("x")</script>'
    op = Op(index=0, time_ns=1, client=0, type=OpType.INVOKE, f=evil, key=evil, value=evil)
    run.history.write_text(to_json(op) + "\n")
    fault = FaultEvent(time_ns=5, type="inject", id=1, fault=evil, description=evil, targets=(1,))
    run.faults.write_text(to_json(fault) + "\n")
    (run.node(1)).mkdir(parents=True)
    (run.node(1) / "stderr.log").write_text(evil)
    path = render(run)
    assert path.read_text().count("<script") == 2
    assert json.loads(Page(path).data)["faults"][0][3] == evil


def test_an_empty_run_still_gives_a_page(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.history.write_text("")
    page = Page(render(run))
    assert "UNFINISHED" in page.text
    assert "No fault was injected" in page.text


def test_a_directory_without_a_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        render(RunDirectory(tmp_path))


def test_a_damaged_line_is_refused_with_its_number_and_a_torn_last_one_is_dropped(synthetic: Synthetic) -> None:
    run = synthetic(seconds=3.0, rate=30.0).write("UNFINISHED")
    assert "UNFINISHED" in Page(render(run)).text
    lines = run.history.read_text().split("\n")
    run.history.write_text("\n".join([lines[0], "{damaged", *lines[2:]]))
    with pytest.raises(MalformedRecord, match=r"history\.jsonl:2: not a Op record"):
        render(run)


def test_a_verdict_that_cannot_be_read_is_refused_by_name(synthetic: Synthetic) -> None:
    run = synthetic(seconds=3.0, rate=30.0).write("VALID")
    run.verdict.write_text('{"validity": 3}')
    with pytest.raises(MalformedVerdict, match=r"verdict\.json.*validity"):
        render(run)


@pytest.mark.slow
def test_a_run_of_100_000_operations_renders_in_seconds_to_under_3_mb(synthetic: Synthetic) -> None:
    run = synthetic(seconds=30.0, rate=60.0).write("INVALID")
    with run.history.open("w") as file:
        for number in range(100_000):
            at, client, key = number * 300_000, number % 12, f"kv.{number // 300}"
            f = ("read", "write")[number % 2]
            shared = f'"client":{client},"f":"{f}","key":"{key}","value":{number}'
            file.write(f'{{"index":{2 * number},"time_ns":{at},"type":"invoke",{shared}}}\n')
            file.write(f'{{"index":{2 * number + 1},"time_ns":{at + 250_000},"type":"ok",{shared},"node":1}}\n')
    began = time.process_time()
    path = render(run)
    assert time.process_time() - began < 10, "2 to 3 s; with anything quadratic it would be minutes"
    assert "100,000" in Page(path).text
    assert path.stat().st_size < 3_000_000


def in_browser(page: Path, profile: Path) -> tuple[str, str]:
    """The document after its scripts have run, and what the browser logged."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += [f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", "--dump-dom"]
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=90, check=True)
    return done.stdout, done.stderr


def ticks_of(document: str) -> list[str]:
    return re.findall(r'class="xtick"[^>]*>([^<]*)<', document)


@pytest.mark.slow
@pytest.mark.external
def test_a_browser_loads_the_page_without_an_error_and_its_script_draws_the_axis(
    synthetic: Synthetic, tmp_path: Path
) -> None:
    document, log = in_browser(render(synthetic(seconds=10.0, rate=100.0).write("INVALID")), tmp_path / "profile")
    assert "CONSOLE" not in log, log
    assert ticks_of(document)[:3] == ["0 s", "2 s", "4 s"]


@pytest.mark.slow
@pytest.mark.external
def test_showing_an_anomaly_in_the_timeline_zooms_every_chart_to_it(synthetic: Synthetic, tmp_path: Path) -> None:
    page = render(synthetic(seconds=10.0, rate=100.0).write("INVALID"))
    click = "<script>document.querySelectorAll('[data-zoom]')[1].click()</script></body>"
    page.write_text(page.read_text().replace("</body>", click))
    document, log = in_browser(page, tmp_path / "profile")
    assert "CONSOLE" not in log, log
    # The second anomaly is one append of a few milliseconds at the very beginning.
    spans = {float(width) for width in re.findall(r'class="zoomable[^>]*viewBox="[\d.]+ 0 ([\d.]+) ', document)}
    assert len(spans) == 1
    assert max(spans) < 100
    assert len(ticks_of(document)) >= 2
    assert ticks_of(document)[-1] != "10 s"


@pytest.mark.slow
@pytest.mark.external
@pytest.mark.parametrize("topic", ["log", "__consumer_offsets", "payments.transactions-of-a-region.v3"])
def test_no_name_of_a_lane_is_cut_off_or_stands_beside_another_lane(
    synthetic: Synthetic, tmp_path: Path, topic: str
) -> None:
    run = synthetic(seconds=3.0, rate=30.0).write("VALID")
    run.status.write_text(run.status.read_text().replace('"log/', f'"{topic}/'))
    page = render(run)
    measure = """<script>
      const wrong = [];
      for (const name of document.querySelectorAll(".groups small, .row.node .name")) {
        if (name.scrollWidth > name.clientWidth) wrong.push(`cut: ${name.textContent}`);
      }
      for (const row of document.querySelectorAll(".row.node")) {
        const names = [...row.querySelectorAll(".groups small")];
        const plot = row.querySelector(".plot").getBoundingClientRect();
        names.forEach((name, place) => {
          const box = name.getBoundingClientRect(), middle = (box.top + box.bottom) / 2;
          const lane = plot.top + ((place + 0.5) * plot.height) / names.length;
          if (Math.abs(middle - lane) > 2) wrong.push(`${name.textContent} is ${middle - lane} px below its lane`);
        });
      }
      document.title = `measured: ${wrong.join("; ") || "none"}`;
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", measure))
    document, _ = in_browser(page, tmp_path / "profile")
    assert re.findall(r"measured: ([^<]*)</title>", document) == ["none"]

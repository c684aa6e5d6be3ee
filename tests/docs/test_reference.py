"""docs/reference.md is made from the program itself; `SEATRIAL_REWRITE=1 pytest tests/docs` writes it anew."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from seatrial import checkers, pytest_plugin, rundir
from seatrial.cli import command_line
from seatrial.cluster.drivers import registry as systems
from seatrial.cluster.drivers import template
from seatrial.faults import registry as faults
from seatrial.faults.targets import Target
from seatrial.history import FaultEvent, Op, OpType, StatusSample
from seatrial.server.config import argument_parser
from seatrial.trial.model import ENVIRONMENTS, Trial
from seatrial.workloads import registry as workloads

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [head, ["---" for _ in head], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def first_paragraph(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def commands() -> str:
    parts = []
    group = typer.main.get_command(command_line())
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        if name in ("serve", "proxy"):
            continue
        rows = [
            ("`" + ", ".join(p.opts) + "`" if p.param_type_name == "option" else f"`{p.name.upper()}`", p.help or "")
            for p in command.params
        ]
        parts.append(f"### `seatrial {name}`\n\n{command.help}\n\n{table(('argument or option', 'meaning'), rows)}")
    options = [action for action in argument_parser()._actions if action.help != "==SUPPRESS=="]
    rows = [("`" + ", ".join(o.option_strings) + "`", (o.help or "").replace("%%", "%")) for o in options]
    parts.append(
        "### `seatrial serve`\n\nOne node of our own cluster. Each option is also `SEATRIAL_…` in the environment and "
        f"a key of the `--config` TOML file.\n\n{table(('option', 'meaning'), rows)}"
    )
    return "\n\n".join(parts)


def pytest_options() -> str:
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    options = [
        (f"`{option.names()[0]}`", option.attrs().get("help", "")) for option in parser.getgroup("seatrial").options
    ]
    named = [line.partition("): ") for line in pytest_plugin.MARKS]
    marks = [(f"`@pytest.mark.{mark})`" if told else f"`@pytest.mark.{mark}`", told) for mark, _, told in named]
    fixtures = [
        (f"`{name}`", first_paragraph(getattr(pytest_plugin, name)._get_wrapped_function()))
        for name in ("cluster", "history", "check", "free_port")
    ]
    return "\n\n".join(
        table(head, rows)
        for head, rows in (
            (("option", "meaning"), options),
            (("mark", "meaning"), marks),
            (("fixture", "what"), fixtures),
        )
    )


def page() -> str:
    records = [
        f"### {kind.__name__} ({file})\n\n{first_paragraph(kind)}\n\nFields: "
        + ", ".join(f"`{field.name}`" for field in fields(kind))
        for kind, file in ((Op, "history.jsonl"), (FaultEvent, "faults.jsonl"), (StatusSample, "status.jsonl"))
    ]
    return "\n\n".join(
        [
            "# Reference",
            "Made from the program's own docstrings and options; do not edit it by hand.",
            "## Commands",
            "Exit status of `run` and `check`: 0 VALID, 1 INVALID, 2 UNKNOWN or could not run, 64 usage.",
            commands(),
            "## pytest",
            "See [testing with pytest](testing-with-pytest.md).",
            pytest_options(),
            "## Systems",
            table(("name", "what"), [(f"`{e.name}`", e.summary) for e in systems.systems()]),
            "### A system of your own, from a TOML file",
            f"```text\n{inspect.getdoc(template)}\n```",
            "## Environments",
            table(("name", "what"), [(f"`{name}`", line) for name, line in ENVIRONMENTS.items()]),
            "## Workloads",
            table(("name", "what"), [(f"`{name}`", line) for name, line in workloads.names().items()]),
            "## Faults",
            "`--faults KIND` or `KIND:TARGET`, comma-separated; targets: " + ", ".join(f"`{t}`" for t in Target) + ".",
            table(
                ("name", "what", "settings"),
                [(f"`{e.name}`", e.summary, ", ".join(f"`{s}`" for s in e.settings)) for e in faults.entries()],
            ),
            "## Checkers",
            table(("name", "what"), [(f"`{name}`", line) for name, line in checkers.names().items()]),
            "## A trial file",
            first_paragraph(Trial),
            "Fields: " + ", ".join(f"`{name}`" for name in Trial.__struct_fields__),
            "## A run directory",
            f"```text\n{inspect.getdoc(rundir)}\n```",
            *records,
            "Types of an operation's events: " + ", ".join(f"`{kind}`" for kind in OpType) + ".",
        ]
    ) + "\n"  # fmt: skip


def test_the_reference_is_what_the_program_says() -> None:
    made = page()
    if os.environ.get("SEATRIAL_REWRITE"):
        PAGE.write_text(made)
    assert PAGE.read_text() == made, "run: SEATRIAL_REWRITE=1 pytest tests/docs"

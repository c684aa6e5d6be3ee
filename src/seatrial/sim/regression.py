"""What is kept of a failure: a case file that says which bug it was, and a test that can be pasted.

Rule: a file holds the whole case, so that it fails again on the code that failed, whatever the swarm draws by then.
`tests/sim/regressions` runs every file that is put there, and wants it VALID.
Knows nothing of how a case is found or run.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from seatrial.sim.case import Case, Violation

COMMENT_COLUMNS = 116


def case_file(case: Case, violation: Violation, *, found_by: str) -> str:
    """The case as TOML, under a comment: which promise it broke, when, and the command that found it."""
    said = " ".join(violation.message.split())
    about = [f"{violation.name}: {said}", f"Seen at {violation.at_us / 1e6:.3f} s; found by `{found_by}`."]
    comment = "\n".join(
        textwrap.fill(line, COMMENT_COLUMNS, initial_indent="# ", subsequent_indent="#   ") for line in about
    )
    return f"{comment}\n\n{case.to_toml()}"


def save(case: Case, violation: Violation, directory: Path, *, found_by: str) -> Path:
    """Write the case into the directory, which is made, under a name that no other file there has.  Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{_word(violation.name)}-{case.level}-seed-{case.seed}"
    path, number = directory / f"{stem}.toml", 1
    while path.exists():
        number += 1
        path = directory / f"{stem}-{number}.toml"
    path.write_text(case_file(case, violation, found_by=found_by))
    return path


def pasteable_test(case: Case, violation: Violation) -> str:
    """A pytest function, with its imports, that fails as long as the bug is there."""
    # Comment lines and not a docstring: whatever is in the message, it stays a comment.
    about = "\n".join(
        textwrap.wrap(
            f"{violation.name}: {' '.join(violation.message.split())}",
            COMMENT_COLUMNS,
            initial_indent="    # ",
            subsequent_indent="    # ",
        )
    )
    return (
        f"from seatrial.sim.case import {', '.join(sorted(_names(case)))}\n"
        f"from seatrial.sim.{case.level} import run_case\n"
        "\n\n"
        f"def test_no_{_word(violation.name).replace('-', '_')}_as_found_by_seed_{case.seed}() -> None:\n"
        f"{about}\n"
        f"    case = {_source(case, 4)}\n"
        "    assert run_case(case).violations == ()\n"
    )


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "violation"


def _given(settings: msgspec.Struct) -> dict[str, Any]:
    """The fields that differ from their defaults, and those that have none."""
    given = {}
    for field in msgspec.structs.fields(type(settings)):
        value = getattr(settings, field.name)
        if field.required or value != field.default:
            given[field.name] = value
    return given


def _names(settings: msgspec.Struct) -> set[str]:
    names = {type(settings).__name__}
    for value in _given(settings).values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, msgspec.Struct):
                names |= _names(one)
    return names


def _source(value: object, indent: int) -> str:
    """Python for it, one argument a line where it would not fit on one."""
    pad = " " * (indent + 4)
    if isinstance(value, msgspec.Struct):
        arguments = [f"{name}={_source(field, indent + 4)}" for name, field in _given(value).items()]
        one_line = f"{type(value).__name__}({', '.join(arguments)})"
        if len(one_line) + indent + 8 <= COMMENT_COLUMNS and "\n" not in one_line:
            return one_line
        lines = "".join(f"{pad}{argument},\n" for argument in arguments)
        return f"{type(value).__name__}(\n{lines}{' ' * indent})"
    if isinstance(value, tuple) and any(isinstance(one, msgspec.Struct) for one in value):
        lines = "".join(f"{pad}{_source(one, indent + 4)},\n" for one in value)
        return f"(\n{lines}{' ' * indent})"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    return repr(value)

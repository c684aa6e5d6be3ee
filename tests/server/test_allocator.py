"""The allocator keeps what is freed, so that the kernel need not zero it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

TIMES = 25
BLOCKS = 8
# Each time some blocks of a megabyte are written to, and freed.
SCRIPT = f"""
import resource, sys
from seatrial.server.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    raise SystemExit("mallopt refused it")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range({TIMES}):
    blocks = [b"x" * (1 << 20) for block in range({BLOCKS})]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_used_again_without_the_kernel() -> None:
    pages = BLOCKS * (1 << 20) // 4096
    assert page_faults("kept") < 2 * pages
    assert page_faults("as it comes") > TIMES // 2 * pages

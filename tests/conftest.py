"""What all tests share: Hypothesis without a time limit an example, because this machine may be busy, gRPC that leaves
forks alone, and a garbage collector that does not look through thousands of tests again and again."""

from __future__ import annotations

import gc
import os
import signal

from hypothesis import settings

# Nodes are forked from this process, and gRPC's handlers for that can hang in the child before it becomes a node.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Where these tests run in the background of a script, Ctrl-C is ignored, also by all that they start: and it is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# In CI the same examples every time: a red build is then about the change, and a seed found elsewhere becomes a test.
settings.register_profile("seatrial", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("seatrial")


def pytest_collection_finish() -> None:
    """What has been imported and collected stays: looking through it takes a tenth of the tests' CPU time."""
    gc.collect()
    gc.freeze()

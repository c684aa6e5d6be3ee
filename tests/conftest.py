"""What all tests share: Hypothesis without a time limit an example, because this machine may be busy."""

from __future__ import annotations

import os

from hypothesis import settings

# In CI the same examples every time: a red build is then about the change, and a seed found elsewhere becomes a test.
settings.register_profile("seatrial", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("seatrial")

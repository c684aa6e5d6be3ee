"""Lets the tests of this directory import the fakes that stand beside them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

with warnings.catch_warnings():
    # kafka-python reads its definitions, at import, in a way that Python deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka  # noqa: F401

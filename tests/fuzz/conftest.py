"""Lets these tests import what stands beside them, and the broker in memory of the Kafka tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "kafka"))

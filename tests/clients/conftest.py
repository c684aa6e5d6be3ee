"""Lets the tests of this directory import what stands beside them; one cluster of three nodes for each client."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from client_brokers import Brokers, started_brokers

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of kafka-python, in how it reads its own files
    import kafka_python_client  # noqa: F401


@pytest.fixture(scope="module")
def brokers() -> Iterator[Brokers]:
    """Three nodes as processes, each in a rack of its own."""
    with started_brokers() as started:
        yield started

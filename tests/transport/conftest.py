"""Lets the tests of this directory import what stands beside them, and runs each on every wire."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trustme

sys.path.append(str(Path(__file__).parent))

from wired_nodes import Certificates, Nodes, certificates

WIRES = ("framed", "framed with TLS", "grpc", "grpc with TLS")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Of the cluster under test."""
    return trustme.CA()


@pytest.fixture(scope="session")
def node_certificates(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"), authority)


@pytest.fixture(params=WIRES)
def nodes(request: pytest.FixtureRequest) -> Nodes:
    """On each wire in turn."""
    name, _, secured = str(request.param).partition(" with ")
    return Nodes(name, request.getfixturevalue("node_certificates").tls if secured else None)


@pytest.fixture(params=("framed", "grpc"))
def plain_nodes(request: pytest.FixtureRequest) -> Nodes:
    """On each wire without TLS."""
    return Nodes(str(request.param))


@pytest.fixture
def framed_nodes() -> Nodes:
    """For what only hand-framed TCP has."""
    return Nodes("framed")

"""Kafka's own Java clients and console tools of the current major version, against three brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold
from console_tools import TOOL_CLAIMS
from java_client import CURRENT, java_client, unavailable
from json_client import JsonClient

REASON = unavailable(CURRENT.version)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.external,
    pytest.mark.timeout(300),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]


@pytest.fixture(scope="module")
def client(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonClient]:
    started = java_client(CURRENT.version, brokers.bootstrap, tmp_path_factory.mktemp("java") / "stderr")
    yield started
    started.close()


@pytest.mark.parametrize("one", claims_for(CURRENT), ids=lambda one: one.name)
def test_java_client(one: Claim, client: JsonClient, brokers: Brokers) -> None:
    hold(one, client, brokers)


@pytest.mark.parametrize("check", TOOL_CLAIMS, ids=lambda check: check.__name__)
def test_console_tools(check: Callable[[str, Brokers], None], brokers: Brokers) -> None:
    check(CURRENT.version, brokers)

"""kafkajs against three brokers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold
from json_client import JsonClient
from kafkajs_client import PROFILE, kafkajs_client, unavailable

REASON = unavailable()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.external,
    pytest.mark.timeout(300),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]


@pytest.fixture(scope="module")
def client(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonClient]:
    started = kafkajs_client(brokers.bootstrap, tmp_path_factory.mktemp("kafkajs") / "stderr")
    yield started
    started.close()


@pytest.mark.parametrize("one", claims_for(PROFILE), ids=lambda one: one.name)
def test_kafkajs(one: Claim, client: JsonClient, brokers: Brokers) -> None:
    hold(one, client, brokers)

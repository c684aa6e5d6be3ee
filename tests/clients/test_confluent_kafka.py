"""confluent-kafka, as installed, against three brokers."""

from __future__ import annotations

import pytest
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold
from confluent_client import PROFILE, ConfluentClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def client(brokers: Brokers) -> ConfluentClient:
    return ConfluentClient(brokers.bootstrap)


@pytest.mark.parametrize("one", claims_for(PROFILE), ids=lambda one: one.name)
def test_confluent_kafka(one: Claim, client: ConfluentClient, brokers: Brokers) -> None:
    hold(one, client, brokers)

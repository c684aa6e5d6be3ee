"""aiokafka, as installed, against three brokers."""

from __future__ import annotations

import pytest
from aiokafka_client import PROFILE, AiokafkaClient
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def client(brokers: Brokers) -> AiokafkaClient:
    return AiokafkaClient(brokers.bootstrap)


@pytest.mark.parametrize("one", claims_for(PROFILE), ids=lambda one: one.name)
def test_aiokafka(one: Claim, client: AiokafkaClient, brokers: Brokers) -> None:
    hold(one, client, brokers)

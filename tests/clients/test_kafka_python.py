"""kafka-python, as installed, against three brokers."""

from __future__ import annotations

import pytest
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold
from kafka_python_client import PROFILE, KafkaPythonClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def client(brokers: Brokers) -> KafkaPythonClient:
    return KafkaPythonClient(brokers.bootstrap)


@pytest.mark.parametrize("one", claims_for(PROFILE), ids=lambda one: one.name)
def test_kafka_python(one: Claim, client: KafkaPythonClient, brokers: Brokers) -> None:
    hold(one, client, brokers)

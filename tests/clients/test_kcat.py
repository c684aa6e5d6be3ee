"""kcat, as Debian has it, against three brokers."""

from __future__ import annotations

import pytest
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold
from kcat_client import PROFILE, KcatClient, unavailable

REASON = unavailable()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.external,
    pytest.mark.timeout(300),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]


@pytest.fixture(scope="module")
def client(brokers: Brokers) -> KcatClient:
    return KcatClient(brokers.bootstrap)


@pytest.mark.parametrize("one", claims_for(PROFILE), ids=lambda one: one.name)
def test_kcat(one: Claim, client: KcatClient, brokers: Brokers) -> None:
    hold(one, client, brokers)

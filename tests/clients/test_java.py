"""Kafka's own Java clients and console tools, of the current and the previous major version, against three brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from client_brokers import Brokers
from client_claims import Claim, claims_for, hold
from client_under_test import Profile
from console_tools import TOOL_CLAIMS
from java_client import CURRENT, PREVIOUS, java_client, unavailable
from json_client import JsonClient

pytestmark = [pytest.mark.slow, pytest.mark.external, pytest.mark.timeout(300)]


def marked(profile: Profile) -> list[pytest.MarkDecorator]:
    reason = unavailable(profile.version)
    return [pytest.mark.skipif(reason is not None, reason=str(reason))]


PROFILES = [pytest.param(profile, id=profile.version, marks=marked(profile)) for profile in (CURRENT, PREVIOUS)]
HELD = [
    pytest.param(profile, one, id=f"{profile.version}-{one.name}", marks=marked(profile))
    for profile in (CURRENT, PREVIOUS)
    for one in claims_for(profile)
]


@pytest.fixture(scope="module")
def client(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JsonClient]:
    """Of one version, for all of its claims."""
    started = java_client(request.param.version, brokers.bootstrap, tmp_path_factory.mktemp("java") / "stderr")
    yield started
    started.close()


@pytest.mark.parametrize("client, one", HELD, indirect=["client"])
def test_java_client(one: Claim, client: JsonClient, brokers: Brokers) -> None:
    hold(one, client, brokers)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("check", TOOL_CLAIMS, ids=lambda check: check.__name__)
def test_console_tools(check: Callable[[str, Brokers], None], profile: Profile, brokers: Brokers) -> None:
    check(profile.version, brokers)

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
VERSIONS = [pytest.param(profile.version, id=profile.version, marks=marked(profile)) for profile in (CURRENT, PREVIOUS)]
CLAIMS = claims_for(CURRENT)
assert claims_for(PREVIOUS) == CLAIMS


@pytest.fixture(scope="module")
def client(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JsonClient]:
    """Of one version, for all of its claims."""
    started = java_client(request.param, brokers.bootstrap, tmp_path_factory.mktemp("java") / "stderr")
    yield started
    started.close()


# By a decorator of its own: together with a claim, the version would have a claim's scope, and each claim a JVM.
@pytest.mark.parametrize("client", VERSIONS, indirect=True)
@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.name)
def test_java_client(one: Claim, client: JsonClient, brokers: Brokers) -> None:
    hold(one, client, brokers)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("check", TOOL_CLAIMS, ids=lambda check: check.__name__)
def test_console_tools(check: Callable[[str, Brokers], None], profile: Profile, brokers: Brokers) -> None:
    check(profile.version, brokers)

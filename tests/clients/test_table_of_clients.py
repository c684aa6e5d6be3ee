"""docs/clients.md is made from the claims and the clients; `SEATRIAL_REWRITE=1 pytest tests/clients` writes it anew."""

from __future__ import annotations

import os
from pathlib import Path

import aiokafka_client
import confluent_client
import java_client
import kafka_python_client
import kafkajs_client
import kcat_client
import pytest
from client_claims import CLAIMS, Claim
from client_under_test import Profile
from console_tools import TOOL_CLAIMS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "clients.md"
FETCH = ROOT / "scripts" / "fetch-kafka-clients.sh"
PROFILES = (
    confluent_client.PROFILE,
    kcat_client.PROFILE,
    kafka_python_client.PROFILE,
    aiokafka_client.PROFILE,
    kafkajs_client.PROFILE,
    java_client.CURRENT,
    java_client.PREVIOUS,
)
HEAD = """# Kafka clients

Any Kafka client works with the server as it is: give it the nodes' Kafka addresses as bootstrap servers. Those below
are tried in the test suite (`tests/clients`), unmodified, each against three nodes as processes. A ✓ is a test that
passes; a number is what the client itself has no way to do, told below; "not served" is a request that the broker does
not answer yet.

Made from the tests: `SEATRIAL_REWRITE=1 pytest tests/clients/test_table_of_clients.py`.

"""
TAIL = """
## Worth knowing

- aiokafka asks the old leader again and again, for as long as `metadata_max_age_ms` (5 minutes), where leadership moves
  between its look at the metadata and its first question for offsets: give it a second.
- kafkajs's `deleteTopicRecords` fails on a topic that this administrator has not looked at before: call
  `fetchTopicOffsets` first.
- kafkajs reads as a member of a group even where nobody shares the work, so it reads again what it has not committed
  when the group loses its coordinator.
- kcat takes its version of librdkafka from Debian, which compresses because the server says that it serves Produce
  version 0 (it does not; no client asks for it).
- An administrator that is made while nodes still start may know some of them only: kafka-python's never asks again.

## Trying them

confluent-kafka, kafka-python and aiokafka come with `make install`; kcat, Node.js, a JDK and Maven are the system's;
`scripts/fetch-kafka-clients.sh` fetches kafkajs and the Java clients. What is missing is skipped, with its reason:

```text
scripts/fetch-kafka-clients.sh
.venv/bin/pytest -q tests/clients
```
"""


def table(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "".join("| " + " | ".join(row) + " |\n" for row in (head, ["---"] * len(head), *rest))


def page() -> str:
    notes: list[str] = []

    def cell(claim: Claim, profile: Profile) -> str:
        reason = profile.cannot.get(claim.name)
        if reason is None:
            return "✓" if claim.is_served else "not served"
        note = f"{profile.name}: {reason}"
        if note not in notes:
            notes.append(note)
        return f"({notes.index(note) + 1})"

    columns = [f"{profile.name} {profile.version}" for profile in PROFILES]
    rows = [[claim.text, *(cell(claim, profile) for profile in PROFILES)] for claim in CLAIMS]
    versions = " and ".join(profile.version for profile in (java_client.CURRENT, java_client.PREVIOUS))
    tools = "".join(f"- {' '.join((check.__doc__ or '').split())}\n" for check in TOOL_CLAIMS)
    return "".join(
        [
            HEAD,
            table([["", *columns], *rows, ["the setting for its rack", *(f"`{one.rack}`" for one in PROFILES)]]),
            "\n",
            *(f"{number}. {note}\n" for number, note in enumerate(notes, 1)),
            "\nkafka-python and aiokafka compress with snappy, lz4 and zstd where the packages for it are installed\n"
            "(`kafka-python[lz4,snappy,zstd]`, `aiokafka[lz4,snappy,zstd]`); kafkajs with plug-ins.\n",
            f"\n## Console tools\n\nOf Kafka {versions}, by the class that each script runs:\n\n{tools}",
            TAIL,
        ]
    )


def test_the_page_of_clients_says_what_is_tried() -> None:
    made = page()
    if os.environ.get("SEATRIAL_REWRITE"):
        PAGE.write_text(made)
    assert PAGE.read_text() == made, "docs/clients.md is behind: SEATRIAL_REWRITE=1 pytest tests/clients"


@pytest.mark.parametrize(
    "profile", [kafkajs_client.PROFILE, java_client.CURRENT, java_client.PREVIOUS], ids=lambda one: one.version
)
def test_what_is_tried_is_what_is_fetched(profile: Profile) -> None:
    assert profile.version in FETCH.read_text()

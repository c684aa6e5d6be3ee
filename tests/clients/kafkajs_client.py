"""kafkajs, in one process of Node.js."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from client_under_test import Profile, cache_directory, missing_program
from json_client import JsonClient

PROGRAM: Final = Path(__file__).parent / "node" / "kafkajs_client.js"
NO_CALL: Final = "no such call"
PROFILE: Final = Profile(
    name="kafkajs",
    version="2.2.4",
    rack="rackId",
    cannot={
        "reads_by_assignment": "it reads as a member of a group only",
        "deletes_group_offsets": NO_CALL,
        "elects_preferred_leaders": NO_CALL,
        "describes_log_directories": NO_CALL,
    },
)


def packages() -> Path:
    return cache_directory() / f"kafkajs-{PROFILE.version}" / "node_modules"


def unavailable() -> str | None:
    """Why it cannot be tried here, or None."""
    if missing_program("node"):
        return "node is not installed (Debian: nodejs)"
    if not (packages() / "kafkajs").is_dir():
        return f"kafkajs is not in {packages()}: scripts/fetch-kafka-clients.sh fetches it by npm"
    return None


def kafkajs_client(bootstrap: str, log: Path) -> JsonClient:
    environment = {**os.environ, "NODE_PATH": str(packages()), "KAFKAJS_NO_PARTITIONER_WARNING": "1"}
    return JsonClient(["node", str(PROGRAM), bootstrap], log, environment)

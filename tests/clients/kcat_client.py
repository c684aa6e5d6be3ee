"""kcat, as Debian has it (librdkafka 2.0)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Final

from client_under_test import DEADLINE_S, Found, Producing, Profile, Record, missing_program

_NO_ADMIN: Final = "it has no administrator's calls"
PROFILE: Final = Profile(
    name="kcat",
    version="1.7.1",
    rack="-X client.rack=",
    cannot={
        "creates_topics": _NO_ADMIN,
        "keeps_keys_headers_and_times": "it takes one set of headers for all its input, and no timestamps",
        "deletes_topics": _NO_ADMIN,
        "reads_configurations": _NO_ADMIN,
        "changes_configurations": _NO_ADMIN,
        "adds_partitions": _NO_ADMIN,
        "deletes_records": _NO_ADMIN,
        "administers_groups": _NO_ADMIN,
        "deletes_groups": _NO_ADMIN,
        "sets_group_offsets": _NO_ADMIN,
        "deletes_group_offsets": _NO_ADMIN,
        "elects_preferred_leaders": _NO_ADMIN,
        "moves_replicas": _NO_ADMIN,
        "describes_log_directories": _NO_ADMIN,
    },
)


def unavailable() -> str | None:
    """Why it cannot be tried here, or None."""
    return "kcat is not installed (Debian: kcat)" if missing_program("kcat") else None


class KcatClient:
    """As a shell would use it: one process for each thing that is asked of it."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def create_topic(self, topic: str, partitions: int) -> None:
        raise NotImplementedError(PROFILE.cannot["creates_topics"])

    def produce(self, topic: str, records: Sequence[Record], how: Producing) -> list[int]:
        """One line a record; kcat tells no offsets."""
        command = self._command("-P", "-t", topic, "-p", "0", "-X", f"acks={how.acks}", "-X", "linger.ms=2")
        command += ["-X", f"enable.idempotence={str(how.idempotent).lower()}", "-z", how.codec]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        for record in records:
            process.stdin.write(record.value + b"\n")
            process.stdin.flush()
            time.sleep(how.pause_s)
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, errors.decode()
        return []

    def read(self, topic: str, offset: int, count: int, *, rack: str = "") -> list[Found]:
        rest = ("-t", topic, "-p", "0", "-o", str(offset), "-c", str(count), "-X", f"client.rack={rack}")
        lines = self._run("-C", "-E", "-f", "%o %T %s\n", *rest).splitlines()
        found = [line.split(" ", 2) for line in lines]
        return [Found(int(at), value.encode(), timestamp_ms=int(timestamp)) for at, timestamp, value in found]

    def read_as_group(self, group: str, topic: str, count: int) -> list[int]:
        """It commits what it has printed when it ends."""
        settings = ("-X", "auto.offset.reset=earliest", "-c", str(count), "-f", "%s\n")
        return [int(line) for line in self._run("-E", *settings, "-G", group, topic).split()]

    def offset_at(self, topic: str, when: int) -> int:
        """Printed as `topic [0] offset 7`."""
        return int(self._run("-Q", "-t", f"{topic}:0:{when}").split()[-1])

    def admin(self, call: str, **arguments: Any) -> Any:
        return getattr(self, f"_{call}")(**arguments)

    def close(self) -> None:
        return None

    def _command(self, *arguments: str) -> list[str]:
        return ["kcat", "-q", "-b", self._bootstrap, "-X", "log_level=0", *arguments]

    def _run(self, *arguments: str) -> str:
        ended = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=DEADLINE_S)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def _metadata(self, *topic: str) -> Any:
        return json.loads(self._run("-L", "-J", *topic))

    def _list_topics(self) -> list[str]:
        return [topic["topic"] for topic in self._metadata()["topics"]]

    def _replicas_of(self, topic: str) -> dict[int, list[int]]:
        (found,) = self._metadata("-t", topic)["topics"]
        return {one["partition"]: sorted(node["id"] for node in one["replicas"]) for one in found["partitions"]}

    def _node_ids(self) -> list[int]:
        return [broker["id"] for broker in self._metadata()["brokers"]]

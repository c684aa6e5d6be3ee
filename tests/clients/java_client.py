"""Kafka's own Java clients and console tools, of any one version.

Rule: one JVM serves all that the clients are asked; each console tool runs in a JVM of its own, as its script does it.
Knows nothing of what is claimed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Final

from client_under_test import Profile, cache_directory, missing_program
from json_client import JsonClient

SOURCE: Final = Path(__file__).parent / "java" / "KafkaClient.java"
# Short-lived: compile little, and collect in one thread.
JVM: Final = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m")
CURRENT: Final = Profile(name="Java clients", version="4.3.0", rack="client.rack")
PREVIOUS: Final = Profile(name="Java clients", version="3.9.1", rack="client.rack")
TOOL_DEADLINE_S: Final = 120


def jars(version: str) -> Path:
    return cache_directory() / f"kafka-java-{version}"


def unavailable(version: str) -> str | None:
    """Why this version cannot be tried here, or None."""
    program = missing_program("java", "javac")
    if program is not None:
        return f"{program} is not installed (Debian: default-jdk-headless)"
    if not any(jars(version).glob("kafka-clients-*.jar")):
        return f"{jars(version)} has no Java clients: scripts/fetch-kafka-clients.sh fetches them by Maven"
    return None


def java_client(version: str, bootstrap: str, log: Path) -> JsonClient:
    """The clients in a JVM that has started when it answers."""
    classes = _compiled(version)
    return JsonClient([*JVM, "-cp", f"{classes}{os.pathsep}{jars(version)}/*", "KafkaClient", bootstrap], log)


def _compiled(version: str) -> Path:
    """The program's classes, made once for each text of it."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    classes = jars(version) / f"classes-{digest}"
    if not classes.exists():
        made = classes.with_suffix(f".{os.getpid()}")
        command = ["javac", "-nowarn", "-cp", f"{jars(version)}/*", "-d", str(made), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, timeout=TOOL_DEADLINE_S)
        made.rename(classes)
    return classes


def run_tool(version: str, main_class: str, *arguments: str, given: bytes = b"") -> str:
    """What a console tool prints; `given` is its standard input.  Raises with its errors where it ends badly."""
    command = [*JVM, "-cp", f"{jars(version)}/*", main_class, *arguments]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}  # the tools read and write in the locale's encoding
    ended = subprocess.run(command, input=given, capture_output=True, timeout=TOOL_DEADLINE_S, env=environment)
    assert ended.returncode == 0, f"{main_class} {arguments}: {ended.stdout.decode()}\n{ended.stderr.decode()}"
    return ended.stdout.decode()

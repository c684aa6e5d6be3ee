"""Driver of any system that a TOML file describes: a command line, its ports and how to ask it.

Everything between braces is filled in: {node}, {data_dir}, {peers}; {here}, this file's directory; for each port of
the file, such as `peer`: {peer_address} ("host:port"), {peer_host} and {peer_port}; {advertised_address}: where the
others reach this node.

    name = "mystore"
    command = ["mystore", "--id", "{node}", "--data", "{data_dir}", "--listen", "{peer_address}",
               "--http", "{http_address}", "--cluster", "{peers}"]
    links = "per_link"            # each node gets its own list of peers; "per_destination": all get the same
    install = "apt-get install mystore"         # said when the program is not there

    [ports]                       # `peer` is what the nodes talk to each other by
    peer = 7000
    http = 8000

    [environment]                 # optional
    MYSTORE_LOG = "debug"

    [peers]                       # optional: how {peers} is written
    format = "{node}={address}"
    separator = ","
    include_self = true

    [health]                      # optional: status 200 when the node is up; else accepting at `peer` is enough
    url = "http://{http_address}/health"

    [status]                      # optional: who leads, as this node sees it; without it nobody can be asked
    url = "http://{http_address}/status"
    leader = "raft.leader"        # path in the JSON answer; keys and list indexes, joined by dots
    leader_format = "{node}"      # how the system writes a node: "node-{node}", "{peer_address}", ...
    term = "raft.term"            # optional, and likewise commit_index, last_applied

    [endpoints]                   # optional: where clients go
    http = "http://{http_address}"
    kafka = "{kafka_address}"

Rule: what the file says wrongly is reported with the file, the key and what was expected.
Knows nothing of any particular system.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from seatrial.cluster.drivers.base import (
    Command,
    LinkStyle,
    NoAnswer,
    NodeAddresses,
    NodePlace,
    accepts,
    get_json,
)
from seatrial.cluster.errors import Unavailable
from seatrial.cluster.status import NodeStatus

KEYS: Mapping[str, type] = {
    "name": str,
    "command": list,
    "links": str,
    "install": str,
    "ports": dict,
    "environment": dict,
    "peers": dict,
    "health": dict,
    "status": dict,
    "endpoints": dict,
}
TABLES: Mapping[str, tuple[str, ...]] = {  # the tables whose keys are ours to name
    "peers": ("format", "separator", "include_self"),
    "health": ("url",),
    "status": ("url", "leader", "leader_format", "term", "commit_index", "last_applied"),
    "endpoints": ("http", "kafka"),
}


class TemplateDriver:
    """Any other system, described by a TOML file: command template, ports, health and status URLs."""

    status_is_atomic = False  # nobody knows
    gives_digests = False
    test_hooks = False

    def __init__(self, file: Path, options: Mapping[str, Any] | None = None) -> None:
        if options:
            raise ValueError(f"a system from a file has no options; write them into the command of {file}")
        self._file = file
        self._description = load(file)
        self.name: str = self._description["name"]
        self.version: str | None = None
        self.link_style = LinkStyle(self._description.get("links", LinkStyle.PER_LINK))
        self.ports: Mapping[str, int] = self._description["ports"]
        self.group = self.name

    def unavailable(self) -> str | None:
        program = self._description["command"][0]
        if shutil.which(program) is not None:
            return None
        install = self._description.get("install")
        return f"there is no program {program!r} here" + (f": {install}" if install else f"; {self._file} names it")

    def prepare(self) -> None:
        reason = self.unavailable()
        if reason is not None:
            raise Unavailable(reason)

    def command(self, place: NodePlace) -> Command:
        words = self._words(place)
        return Command(
            argv=tuple(self._fill(word, words) for word in self._description["command"]),
            environment={
                name: self._fill(str(value), words) for name, value in self._description.get("environment", {}).items()
            },
        )

    def addresses(self, place: NodePlace) -> NodeAddresses:
        words = self._words(place)
        endpoints = self._description.get("endpoints", {})
        http, kafka = endpoints.get("http"), endpoints.get("kafka")
        return NodeAddresses(
            node=place.node,
            kafka=self._fill(kafka, words) if kafka else None,
            http=self._fill(http, words) if http else None,
            peer=place.listen["peer"],
        )

    async def check_ready(self, place: NodePlace, http: httpx.AsyncClient) -> None:
        health = self._description.get("health")
        if health is None:
            await accepts(place.listen["peer"])
            return
        url = self._fill(health["url"], self._words(place))
        try:
            answer = await http.get(url)
        except httpx.HTTPError as error:
            raise NoAnswer(f"no answer from {url}: {error or type(error).__name__}") from error
        if answer.status_code != 200:
            raise NoAnswer(f"HTTP status {answer.status_code} from {url}")

    async def status(self, place: NodePlace, http: httpx.AsyncClient, *, digest: bool) -> tuple[NodeStatus, ...]:
        how = self._description.get("status")
        if how is None:
            raise NoAnswer(f"{self._file} has no [status], so nobody can say who leads")
        answer = await get_json(http, self._fill(how["url"], self._words(place)))
        leader = self._node_named(find(answer, how["leader"]), place)

        def figure(name: str) -> int | None:
            return _integer(find(answer, how[name])) if name in how else None

        return (
            NodeStatus(
                node=place.node,
                group=self.group,
                role="leader" if leader == place.node else "follower",
                leader=leader,
                term=figure("term"),
                commit_index=figure("commit_index"),
                last_applied=figure("last_applied"),
            ),
        )

    def _node_named(self, name: object, place: NodePlace) -> int | None:
        """The node that the system calls so; None for "nobody" in whatever form it says that."""
        written = self._description["status"].get("leader_format", "{node}")
        for peer in sorted(place.peers):
            if self._fill(written, {"node": str(peer), "peer_address": place.peers[peer]}) == str(name):
                return peer
        return None

    def _words(self, place: NodePlace) -> dict[str, str]:
        style = self._description.get("peers", {})
        peers = {**place.peers}
        if self.link_style is LinkStyle.PER_LINK:
            peers[place.node] = place.listen["peer"]
        if not style.get("include_self", True):
            del peers[place.node]
        form = style.get("format", "{node}@{address}")
        words = {
            "node": str(place.node),
            "data_dir": str(place.directory),
            "here": str(self._file.resolve().parent),
            "advertised_address": place.peers[place.node],
            "peers": style.get("separator", ",").join(
                self._fill(form, {"node": str(peer), "address": address}) for peer, address in sorted(peers.items())
            ),
        }
        for service, address in place.listen.items():
            host, _, port = address.rpartition(":")
            words |= {f"{service}_address": address, f"{service}_host": host, f"{service}_port": port}
        return words

    def _fill(self, template: str, words: Mapping[str, str]) -> str:
        try:
            return template.format_map(words)
        except (KeyError, ValueError, IndexError) as error:
            known = ", ".join(f"{{{word}}}" for word in sorted(words))
            raise ValueError(f"{self._file}: cannot fill in {template!r} ({error}); there are: {known}") from error


def load(file: Path) -> dict[str, Any]:
    """Read and check a description.  Raises ValueError that names the file, the key and what was expected."""
    try:
        description = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the system's description {file}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: not TOML: {error}") from error
    problem = _problem(description)
    if problem is not None:
        raise ValueError(f"{file}: {problem}")
    return description


def _problem(description: Mapping[str, Any]) -> str | None:
    for key, value in description.items():
        if key not in KEYS:
            return f"there is no key {key!r}; there are: {', '.join(KEYS)}"
        if not isinstance(value, KEYS[key]):
            return f"{key} has to be a {KEYS[key].__name__}, not {value!r}"
    for table, known in TABLES.items():
        unknown = sorted(set(description.get(table, ())) - set(known))
        if unknown:
            return f"[{table}] has no key {', '.join(unknown)}; there are: {', '.join(known)}"
    for key in ("name", "command", "ports"):
        if not description.get(key):
            return f"{key} is missing"
    if not all(isinstance(word, str) for word in description["command"]):
        return "command has to be a list of strings, program first"
    if "peer" not in description["ports"]:
        return "[ports] needs `peer`, the port that the nodes talk to each other by"
    if not all(isinstance(port, int) and 1024 <= port <= 65535 for port in description["ports"].values()):
        return "[ports] has to give numbers between 1024 and 65535"
    styles = [style.value for style in LinkStyle]
    if description.get("links", styles[0]) not in styles:
        return f"links has to be one of {', '.join(styles)}"
    for table, keys in (("health", ("url",)), ("status", ("url", "leader"))):
        missing = [key for key in keys if table in description and key not in description[table]]
        if missing:
            return f"[{table}] needs {', '.join(missing)}"
    return None


def find(answer: object, path: str) -> object:
    """What stands at "a.b.0" in a JSON value.  Raises NoAnswer when it is not there."""
    here = answer
    for step in path.split("."):
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, Sequence) and not isinstance(here, str) and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        else:
            raise NoAnswer(f"there is no {path!r} in the answer: {answer!r:.200}")
    return here


def _integer(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise NoAnswer(f"{value!r} is not a whole number") from error

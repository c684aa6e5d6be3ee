"""Conversations between nodes as text: each file of `testdata` is a script with what it printed (as etcd's rafttest).

A block is some commands, a line `----`, what they print, and an empty line.  A change of the core that changes a
conversation shows as a difference to read.  `SEATRIAL_REWRITE=1 pytest tests/raft/test_interaction.py` writes the files
anew.

    cluster 3 [spares=1] [log1=1,1,2] [term1=3] [setting=value …]   nodes 1 to 3; settings as in RaftConfig
    elect N                                              let it win, without a word
    campaign N · propose N DATA … · forward N DATA · read N CONTEXT … · transfer N TO · unreachable N PEER
    change N v4 l5 r1 [explicit]   make 4 a voter, 5 a learner, remove 1 · leave N   joint consensus
    time MS                   move the clock; nobody is ticked
    tick N                    tick a node (at its deadline, if that is later than now)
    deliver | drop [from=N] [to=N] [type=T]      what is under way, and what follows from it
    stabilize                 deliver everything
    slow-disk N · sync N      saves wait · finish them
    crash N · restart N · isolate N … · heal
    snapshot N [KEEP]         of the machine, compacting all but KEEP entries
    status [N …] · log [N …]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from raft_network import Filter, Host, Network

from seatrial.raft import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange, ProposalRefused, Ready
from seatrial.raft.describe import describe_message, describe_ready, describe_status
from seatrial.raft.ids import NodeId
from seatrial.raft.messages import Message

TESTDATA = Path(__file__).parent / "testdata"
SCRIPTS = sorted(TESTDATA.glob("*.txt"))


class ToldNetwork(Network):
    """A network that tells what happens in it."""

    def __init__(self, tell: Callable[[str], None], nodes: int, **settings: Any) -> None:
        self.tell = tell
        super().__init__(nodes, **settings)

    def deliver_one(self, message: Message) -> None:
        to = self.hosts.get(message.to)
        self.tell(describe_message(message) + ("" if to is not None and to.up else " (lost: down)"))
        super().deliver_one(message)

    def took_ready(self, host: Host, ready: Ready) -> None:
        text = describe_ready(ready)
        if text:
            self.tell(f"{host.node.node_id} {text}")


class Script:
    """Runs commands, and collects what they print."""

    def __init__(self) -> None:
        self.network: ToldNetwork | None = None
        self.output: list[str] = []

    def run(self, commands: list[str]) -> list[str]:
        self.output = []
        for command in commands:
            name, *arguments = command.split()
            try:
                getattr(self, "do_" + name.replace("-", "_"))(*arguments)
            except (ProposalRefused, ValueError) as error:
                self.output.append(f"{type(error).__name__}: {error}")
        return self.output or ["ok"]

    @property
    def net(self) -> ToldNetwork:
        assert self.network is not None, "a script begins with `cluster`"
        return self.network

    def host(self, number: str) -> Host:
        return self.net[int(number)]

    def hosts(self, numbers: tuple[str, ...]) -> list[Host]:
        return [self.host(n) for n in numbers] if numbers else list(self.net.hosts.values())

    def do_cluster(self, nodes: str, *options: str) -> None:
        logs: dict[int, list[int]] = {}
        terms: dict[int, int] = {}
        settings: dict[str, Any] = {}
        for option in options:
            key, value = option.split("=")
            if key.startswith("log"):
                logs[int(key[3:])] = [int(term) for term in value.split(",")]
            elif key.startswith("term"):
                terms[int(key[4:])] = int(value)
            else:
                settings[key] = {"true": True, "false": False}.get(value) if value.isalpha() else int(value)
        self.network = ToldNetwork(self.output_line, int(nodes), logs=logs, terms=terms, **settings)

    def output_line(self, line: str) -> None:
        self.output.append(line)

    def do_campaign(self, number: str) -> None:
        self.host(number).node.campaign(self.net.now_us)
        self.host(number).pump()

    def do_elect(self, number: str) -> None:
        before = list(self.output)
        self.net.elect(int(number))
        self.output = before

    def do_propose(self, number: str, *commands: str) -> None:
        for data in commands:
            self.host(number).node.propose(data.encode(), self.net.now_us)
        self.host(number).pump()

    def do_forward(self, number: str, data: str) -> None:
        self.host(number).node.forward(data.encode(), self.net.now_us)
        self.host(number).pump()

    def do_read(self, number: str, *contexts: str) -> None:
        for context in contexts:
            self.host(number).node.read_index(int(context), self.net.now_us)
        self.host(number).pump()

    def do_transfer(self, number: str, to: str) -> None:
        self.host(number).node.transfer_leadership(NodeId(int(to)), self.net.now_us)
        self.host(number).pump()

    def do_unreachable(self, number: str, peer: str) -> None:
        self.host(number).node.report_unreachable(NodeId(int(peer)))
        self.host(number).pump()

    def do_change(self, number: str, *words: str) -> None:
        operations = {"v": ADD_VOTER, "l": ADD_LEARNER, "r": REMOVE}
        changes = [(operations[word[0]], NodeId(int(word[1:]))) for word in words if word != "explicit"]
        change = ConfigurationChange(changes, explicit_leave="explicit" in words)
        self.host(number).node.propose_configuration(change, self.net.now_us)
        self.host(number).pump()

    def do_leave(self, number: str) -> None:
        self.host(number).node.leave_joint(self.net.now_us)
        self.host(number).pump()

    def do_time(self, ms: str) -> None:
        self.net.now_us += int(ms) * 1000

    def do_tick(self, number: str) -> None:
        host = self.host(number)
        self.net.now_us = max(self.net.now_us, host.node.next_deadline())
        host.node.tick(self.net.now_us)
        host.pump()

    def do_deliver(self, *options: str) -> None:
        self.net.deliver(_filter(options))

    def do_stabilize(self) -> None:
        self.net.deliver()

    def do_drop(self, *options: str) -> None:
        for message in self.net.drop(_filter(options)):
            self.output.append("dropped " + describe_message(message))

    def do_slow_disk(self, number: str) -> None:
        self.host(number).auto_sync = False

    def do_sync(self, number: str) -> None:
        self.host(number).sync()

    def do_crash(self, number: str) -> None:
        self.host(number).crash()

    def do_restart(self, number: str) -> None:
        self.host(number).start()

    def do_isolate(self, *numbers: str) -> None:
        self.net.isolate(*(int(n) for n in numbers))

    def do_heal(self) -> None:
        self.net.heal()

    def do_snapshot(self, number: str, keep: str = "0") -> None:
        self.host(number).make_snapshot(keep=int(keep))

    def do_status(self, *numbers: str) -> None:
        for host in self.hosts(numbers):
            self.output.extend(describe_status(host.node.status()))

    def do_log(self, *numbers: str) -> None:
        for host in self.hosts(numbers):
            log = " ".join(f"{entry_id.term}/{entry_id.index}" for entry_id in host.log())
            self.output.append(f"{host.node.node_id} {log}")


def _filter(options: tuple[str, ...]) -> Filter:
    wanted = dict(option.split("=") for option in options)
    unknown = wanted.keys() - {"from", "to", "type"}
    assert not unknown, f"unknown option {unknown}"

    def matches(message: Message) -> bool:
        return (
            wanted.get("from", str(message.sender)) == str(message.sender)
            and wanted.get("to", str(message.to)) == str(message.to)
            and wanted.get("type", type(message).__name__) == type(message).__name__
        )

    return matches


def blocks(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(lines before `----`, lines after it) of each block."""
    for block in text.strip().split("\n\n"):
        before, _, after = block.partition("\n----")
        yield before.splitlines(), after.strip("\n").splitlines()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_conversation_is_as_written(path: Path) -> None:
    script = Script()
    written = []
    for before, expected in blocks(path.read_text()):
        commands = [line for line in before if line and not line.startswith("#")]
        if not commands:
            written.append("\n".join(before))
            continue
        output = script.run(commands)
        written.append("\n".join([*before, "----", *output]))
        if "SEATRIAL_REWRITE" not in os.environ:
            assert output == expected, f"{path.name}: after {commands}"
    if "SEATRIAL_REWRITE" in os.environ:
        path.write_text("\n\n".join(written) + "\n")


def test_there_are_conversations() -> None:
    assert len(SCRIPTS) >= 10

"""`seatrial members`: asks a node's HTTP API about members, or to change them, and tells it for people or programs.

Rule: exit status 0 done (with --wait: carried out), 2 refused or not reachable, 64 usage; with --json one object on
stdout and nothing else there; a refusal is told with what to do, as the node said it.
Knows nothing of how changes are carried out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from seatrial.server.config import read_address

COULD_NOT: Final = 2
USAGE: Final = 64
ANSWER_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.2
USAGES: Final = {
    "list": "members list",
    "add": "members add NODE-ID HOST:RAFT-PORT [--learner]",
    "promote": "members promote NODE-ID",
    "remove": "members remove NODE-ID",
    "replace": "members replace OLD-ID NEW-ID [HOST:RAFT-PORT]",
    "move": "members move TOPIC/PARTITION [--add IDS] [--remove IDS] [--learners IDS]",
}


class Usage(Exception):
    """The command line asks for something that cannot be."""


class Failed(Exception):
    """The node refused it, or none answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersOptions:
    """`http`: base URL of any member.  `wait_s`: how long to wait until a change is carried out; 0: not at all."""

    http: str = "http://127.0.0.1:9644"
    token: str = ""
    wait_s: float = 0.0
    learner: bool = False
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    json: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, and when its answer to `watch` says that it was carried out."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    watch: str = "/api/v1/members"
    done: Callable[[dict[str, Any]], bool] = lambda answer: True


def members_command(action: str, arguments: Sequence[str], options: MembersOptions) -> int:
    """Run one action; the exit status."""
    try:
        plan = plan_of(action, arguments, options)
        answer = asyncio.run(carry_out(plan, options))
    except Usage as error:
        print(f"seatrial: {error}", file=sys.stderr)
        return USAGE
    except Failed as error:
        if options.json:
            print(json.dumps({"error": str(error)}))
        print(f"seatrial: {error}", file=sys.stderr)
        return COULD_NOT
    print(json.dumps(answer) if options.json else told(answer))
    return 0


# ---- what to ask ---------------------------------------------------------------------------------------------------


def plan_of(action: str, arguments: Sequence[str], options: MembersOptions) -> Plan:
    """Raises Usage."""
    if action not in USAGES:
        raise Usage(f"there is no `members {action}`; there are: {', '.join(USAGES)}")
    wanted = {"list": (0,), "add": (2,), "promote": (1,), "remove": (1,), "replace": (2, 3), "move": (1,)}[action]
    if len(arguments) not in wanted:
        raise Usage(f"write: seatrial {USAGES[action]}")
    if action == "list":
        return Plan("GET", "/api/v1/members")
    if action == "move":
        return _move(arguments[0], options)
    node = _node_id(arguments[0])
    if action == "add":
        body = {"node_id": node, "raft_addr": _address(arguments[1]), "learner": options.learner}
        state = "learner" if options.learner else "voter"
        return Plan("POST", "/api/v1/members", body, done=lambda answer: _state(answer, node) == state)
    if action == "promote":
        path = f"/api/v1/members/{node}/promote"
        return Plan("POST", path, done=lambda answer: _state(answer, node) == "voter")
    if action == "remove":
        return Plan("DELETE", f"/api/v1/members/{node}", done=lambda answer: _state(answer, node) is None)
    body = {"node_id": _node_id(arguments[1])}
    if len(arguments) == 3:
        body["raft_addr"] = _address(arguments[2])
    path = f"/api/v1/members/{node}/replace"
    return Plan("POST", path, body, done=lambda answer: _state(answer, node) is None)


def _move(name: str, options: MembersOptions) -> Plan:
    topic, slash, number = name.rpartition("/")
    if not slash or not topic or not number.isdigit():
        raise Usage(f"{name!r} is not TOPIC/PARTITION, such as orders/0")
    changes = {"add": options.add, "remove": options.remove, "learners": options.learners}
    if not any(changes.values()):
        raise Usage(f"nothing to change; write: seatrial {USAGES['move']}")
    path = f"/api/v1/raft/groups/{name}/members"
    return Plan("POST", path, dict(changes), path, lambda answer: bool(answer["settled"]))


def _node_id(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 0xFFFF:
        raise Usage(f"{text!r} is not a node id: 1 to 65535")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(read_address(text))
    except ValueError as error:
        raise Usage(str(error)) from None


def _state(answer: dict[str, Any], node: int) -> str | None:
    return next((str(member["state"]) for member in answer["members"] if member["node_id"] == node), None)


# ---- asking --------------------------------------------------------------------------------------------------------


async def carry_out(plan: Plan, options: MembersOptions) -> dict[str, Any]:
    """The node's answer; with `wait_s`, the one that says that it was carried out.  Raises Failed."""
    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    base = options.http.rstrip("/")
    try:
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=ANSWER_S, trust_env=False) as client:
            answer = await _ask(client, plan.method, plan.path, plan.body)
            deadline = asyncio.get_running_loop().time() + options.wait_s
            while options.wait_s:
                answer = {**answer, **await _ask(client, "GET", plan.watch, None)}
                if plan.done(answer):
                    break
                if asyncio.get_running_loop().time() >= deadline:
                    waits = answer.get("waiting_for") or "nothing that this node knows of; ask the leader"
                    raise Failed(f"decided, but not carried out within {options.wait_s:g} s; it waits for {waits}")
                await asyncio.sleep(LOOK_AGAIN_S)
            return answer
    except httpx.InvalidURL as error:
        raise Failed(f"--http {options.http}: {error}") from None


async def _ask(client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    try:
        response = await client.request(method, path, json=body)
        answer: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Failed(f"{client.base_url} did not answer as a node does: {error or type(error).__name__}") from None
    if response.status_code >= 400:
        raise Failed(str(answer.get("error", f"{response.status_code} {response.reason_phrase}")))
    return answer


# ---- telling -------------------------------------------------------------------------------------------------------


def told(answer: dict[str, Any]) -> str:
    """For people: a table of the members, or a partition's places; then what is under way."""
    lines = [_table(answer["members"])] if "members" in answer else _partition(answer)
    if answer.get("message"):
        lines.append(answer["message"])
    if answer.get("never_registered"):
        lines.append(f"vote, and have never come up: {', '.join(map(str, answer['never_registered']))}")
    if answer.get("removed"):
        lines.append(f"removed for good: {', '.join(map(str, answer['removed']))}")
    if answer.get("moving"):
        lines.append(f"moving: {', '.join(answer['moving'])}")
    waiting = answer.get("waiting_for")
    if isinstance(waiting, dict):
        lines += [f"{group} waits for {what}" for group, what in waiting.items()]
    return "\n".join(lines)


def _table(members: Sequence[dict[str, Any]]) -> str:
    head = ("node", "state", "alive", "raft", "kafka", "http", "rack", "keeps")
    keys = ("node_id", "state", "alive", "raft_addr", "kafka_addr", "http_addr", "rack", "keeps")
    rows = [head, *([_cell(member.get(key)) for key in keys] for member in members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


def _partition(answer: dict[str, Any]) -> list[str]:
    target = answer["target"]
    lines = [f"{answer['group']}: {'settled' if answer['settled'] else 'moving'}, led by {answer['leader_id']}"]
    lines.append(f"replicas {target['replicas']}, learners {target['learners']}")
    if answer["leaving"]:
        lines.append(f"leaving {answer['leaving']}")
    if answer["lingering"]:
        lines.append(f"still to delete their files {answer['lingering']}")
    if answer["waiting_for"]:
        lines.append(f"waits for {answer['waiting_for']}")
    return lines

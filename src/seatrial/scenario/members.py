"""`cluster.members`: who belongs to the cluster, changed as an operator changes it, over HTTP.

What is asked for is asked of one node after the other until it is decided, and then waited for until it is carried out
(`wait=False`: not).  To ask twice is harmless: the server answers as if it had just been done.

Rule: a refusal of the system is raised as Refused, with its `code`; what was decided and not carried out in time is
Unavailable, and says what it waits for.
Knows our own server's API as documented, and nothing of how changes are carried out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx

from seatrial.scenario.attempts import NoAnswer, until_done
from seatrial.scenario.errors import NotHere, Refused, Unavailable

TIMEOUT_S = 20.0
ATTEMPT_S = 3.0  # of one request of several: a node decides within this, or asks in vain
LOOK_AGAIN_S = 0.1
PASSING = frozenset({"NOT_LEADER"})  # refusals that are over when there is a leader


class Plant(Protocol):
    """What changing members needs of a cluster."""

    @property
    def system(self) -> str: ...

    def running(self) -> tuple[int, ...]: ...

    def http_url(self, node: int) -> str: ...

    def open_http(self) -> Any: ...

    async def new_node(self) -> tuple[int, Mapping[str, str]]:
        """A node that runs and waits to be made a member: its number, never used before, and its addresses."""

    def member_came(self, node: int) -> None:
        """From now on it counts as one of the cluster's nodes."""

    def member_left(self, node: int) -> None:
        """From now on it does not."""

    async def wait_for_leader(self, timeout: float, *, group: str | None = None) -> int: ...


class Members:
    """The members of one cluster.  timeout: seconds, for asking and waiting together."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._http: Any = None

    async def status(self, *, via: int | None = None, timeout: float = TIMEOUT_S) -> dict[str, Any]:
        """`GET /api/v1/members`: members with their state, removed ids, and what changes wait for."""
        return await self._ask("GET", "/api/v1/members", None, via=via, timeout=timeout)

    async def states(self, *, via: int | None = None) -> dict[int, str]:
        """Each member's state: "voter", "joining", "learner" or "leaving"."""
        told = await self.status(via=via)
        return {member["node_id"]: member["state"] for member in told["members"]}

    async def add(
        self, *, learner: bool = False, wait: bool = True, via: int | None = None, timeout: float = TIMEOUT_S
    ) -> int:
        """Start a new node on empty storage and add it; its number.

        It becomes a voter when it has caught up, or stays a learner until it is promoted.
        """
        self._own_alone()
        node, addresses = await self._plant.new_node()
        body = {"node_id": node, "learner": learner, **addresses}
        await self._ask("POST", "/api/v1/members", body, via=via, timeout=timeout)
        self._plant.member_came(node)
        if wait:
            state = "learner" if learner else "voter"
            await self._until(lambda told: _state(told, node) == state, f"node {node} as a {state}", timeout)
        return node

    async def promote(
        self, node: int, *, wait: bool = True, via: int | None = None, timeout: float = TIMEOUT_S
    ) -> None:
        """Make a learner a voter; asked again while it has not caught up, unless `wait` is False."""
        path = f"/api/v1/members/{node}/promote"
        passing = PASSING | {"NOT_CAUGHT_UP"} if wait else PASSING
        await self._ask("POST", path, None, via=via, timeout=timeout, passing=passing)
        if wait:
            await self._until(lambda told: _state(told, node) == "voter", f"node {node} as a voter", timeout)

    async def remove(self, node: int, *, wait: bool = True, via: int | None = None, timeout: float = TIMEOUT_S) -> None:
        """Have its replicas move away and the node leave.  Its process goes on running, as no member.

        Without `wait` it stays one of `cluster.nodes`.
        """
        via = via or self._other_than(node)
        await self._ask("DELETE", f"/api/v1/members/{node}", None, via=via, timeout=timeout)
        if wait:
            await self._until(
                lambda told: _state(told, node) is None, f"cluster without node {node}", timeout, not_from=node
            )
            self._plant.member_left(node)

    async def replace(self, node: int, *, wait: bool = True, via: int | None = None, timeout: float = TIMEOUT_S) -> int:
        """Start a new node, which takes every place of this one; its number."""
        self._own_alone()
        new, addresses = await self._plant.new_node()
        via = via or self._other_than(node)
        await self._ask(
            "POST", f"/api/v1/members/{node}/replace", {"node_id": new, **addresses}, via=via, timeout=timeout
        )
        self._plant.member_came(new)
        if wait:
            await self._until(
                lambda told: _state(told, node) is None and _state(told, new) == "voter",
                f"node {new} in the place of node {node}",
                timeout,
                not_from=node,
            )
            self._plant.member_left(node)
        return new

    async def move(
        self,
        partition: str,
        *,
        add: tuple[int, ...] = (),
        remove: tuple[int, ...] = (),
        learners: tuple[int, ...] = (),
        wait: bool = True,
        via: int | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        """Change who holds "topic/0"; the nodes have to be members."""
        path = f"/api/v1/raft/groups/{partition}/members"
        body = {"add": add, "remove": remove, "learners": learners}
        await self._ask("POST", path, body, via=via, timeout=timeout)
        if wait:
            await self._until(lambda told: bool(told["settled"]), f"{partition} with {body}", timeout, path=path)

    async def group(self, group: str, *, via: int, timeout: float = TIMEOUT_S) -> dict[str, Any]:
        """`GET /api/v1/raft/groups/{group}` of one node: role, term, voters, voters_outgoing, learners, …"""
        return await self._ask("GET", f"/api/v1/raft/groups/{group}", None, via=via, timeout=timeout)

    async def snapshot(
        self, group: str, *, via: int, keep_entries: int | None = None, timeout: float = TIMEOUT_S
    ) -> None:
        """Have one node make a snapshot of the group, and drop the log before it, but for so many entries (None: as
        many as the node keeps anyway).  Returns when it is begun."""
        path = f"/api/v1/raft/groups/{group}/snapshot"
        parameters = None if keep_entries is None else {"keep": str(keep_entries)}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not (await self._ask("POST", path, None, via=via, timeout=timeout, parameters=parameters))["made"]:
            if loop.time() >= deadline:
                raise Unavailable(f"node {via} still saves another snapshot after {timeout:g} s", definite=True)
            await asyncio.sleep(LOOK_AGAIN_S)

    async def transfer(
        self, to: int, *, group: str = "metadata", wait: bool = True, timeout: float = TIMEOUT_S
    ) -> None:
        """Have the group's leader give the lead to this node; with `wait`, until it leads."""
        self._own_alone()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            leader = await self._plant.wait_for_leader(max(0.1, deadline - loop.time()), group=group)
            if leader == to:
                return
            path = f"/api/v1/raft/groups/{group}/transfer"
            left = max(0.1, deadline - loop.time())
            try:
                await self._ask(
                    "POST", path, None, via=leader, timeout=left, parameters={"to": str(to)}, retries=not wait
                )
            except Unavailable:
                if not wait or loop.time() >= deadline:
                    raise
            if not wait:
                return
            # A transfer may come to nothing, and then the leader leads on: it is asked again.
            await asyncio.sleep(LOOK_AGAIN_S * 4)

    async def close(self) -> None:
        """Hang up."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    # -- asking

    async def _until(
        self,
        condition: Callable[[Mapping[str, Any]], bool],
        what: str,
        timeout: float,
        *,
        path: str = "/api/v1/members",
        not_from: int | None = None,
    ) -> None:
        """Look until all that runs and is asked says so.  Raises Unavailable with what it waits for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            via = None if not_from is None else self._other_than(not_from)
            told = await self._ask("GET", path, None, via=via, timeout=timeout)
            if condition(told) and not told.get("moving"):
                return
            if loop.time() >= deadline:
                waits = json.dumps(told.get("waiting_for")) if told.get("waiting_for") else "nothing that it tells of"
                raise Unavailable(f"no {what} within {timeout:g} s; the cluster waits for {waits}", definite=False)
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        via: int | None,
        timeout: float,
        parameters: Mapping[str, str] | None = None,
        passing: frozenset[str] = PASSING,
        retries: bool = True,
    ) -> dict[str, Any]:
        self._own_alone()
        if self._http is None:
            self._http = self._plant.open_http()
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}

        async def attempt(turn: int, seconds: float) -> dict[str, Any]:
            running = self._plant.running() if via is None else (via,)
            if not running:
                raise NoAnswer("no node runs", definite=True)
            node = running[turn % len(running)]
            try:
                async with asyncio.timeout(seconds):
                    url = self._plant.http_url(node) + path
                    response = await self._http.request(
                        method, url, params=parameters, content=content, headers=headers
                    )
            except (TimeoutError, httpx.HTTPError) as error:
                raise NoAnswer(f"node {node}: {type(error).__name__}: {error}", definite=False) from error
            answer: dict[str, Any] = response.json()
            if response.status_code < 300:
                return answer
            return _raised(node, response.status_code, answer, passing)

        what = f"{method} {path}"
        return await until_done(what, attempt, timeout=timeout, attempt_s=ATTEMPT_S, retries=retries, again=True)

    def _other_than(self, node: int) -> int | None:
        """A node that can tell that this one has left: it may not hear of that itself."""
        return next((other for other in self._plant.running() if other != node), None)

    def _own_alone(self) -> None:
        if self._plant.system != "own":
            raise NotHere(f"members of {self._plant.system} cannot be changed from here: use system own")


def _raised(node: int, status: int, answer: Mapping[str, Any], passing: frozenset[str]) -> dict[str, Any]:
    code = str(answer.get("code", ""))
    text = f"node {node}: HTTP {status} {code} {answer.get('error', '')}".replace("  ", " ").rstrip()
    if status >= 500 or code in passing:
        raise NoAnswer(text, definite=answer.get("definite") is True)
    raise Refused(text, code=code)


def _state(told: Mapping[str, Any], node: int) -> str | None:
    return next((str(member["state"]) for member in told["members"] if member["node_id"] == node), None)

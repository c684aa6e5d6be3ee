"""How a new node becomes a member: it asks one, again and again, until it finds itself among the members.

Rule: asking is harmless to repeat, and every refusal that will not pass is fatal, with what to do.  Until it is a
member the node serves nothing and votes for nobody.
Knows nothing of how members are changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from seatrial.raft.ids import NodeId
from seatrial.server.config import ServerConfig
from seatrial.server.directory import Directory
from seatrial.server.errors import StartError
from seatrial.server.http_json import NoAnswer, ask_json
from seatrial.server.logs import Logger

ASK_AGAIN_S: Final = 1.0
ANSWER_S: Final = 5.0
# What a member's refusal means for the process (`process.EXIT_STATUS`); others may pass.
FATAL: Final[Mapping[str, int]] = {
    "CLUSTER_ID_MISMATCH": 11,
    "DIRECTORY_DIFFERS": 16,
    "NODE_REMOVED": 17,
    "INVALID_ASSIGNMENT": 17,
    "BAD_REQUEST": 17,
}


async def join(
    config: ServerConfig,
    directory: Directory,
    logger: Logger,
    *,
    is_member: Callable[[], bool],
    changed: Callable[[], asyncio.Future[None]],
    add_peer: Callable[[NodeId, str], None],
) -> None:
    """Ends when this node is a member; `changed` gives what ends when that may have changed.

    Raises:
        StartError: it cannot become one as it is.
    """
    request = {
        "node_id": config.node_id,
        "cluster_id": config.cluster_id,
        "directory": directory.number,
        "raft_addr": str(config.advertise_raft or config.raft_addr),
        "kafka_addr": str(config.advertise_kafka),
        "http_addr": str(config.http_addr),
        "rack": config.rack,
    }
    told = ""
    attempt = 0
    while not is_member():
        problem = "no operator has added this node yet: seatrial members add"
        if config.join:
            url = config.join[attempt % len(config.join)]
            problem = await _ask(url, request, config.http_token, add_peer)
            attempt += 1
        if problem and problem != told:
            told = problem
            logger.warning("not_joined_yet", reason=problem)
        await asyncio.wait([changed()], timeout=ASK_AGAIN_S)
    logger.info("joined")


async def _ask(url: str, request: Mapping[str, Any], token: str, add_peer: Callable[[NodeId, str], None]) -> str:
    """Why it is not done yet; empty where a member agreed."""
    try:
        status, answer = await ask_json("POST", f"{url}/api/v1/members", request, token=token, timeout_s=ANSWER_S)
    except NoAnswer as error:
        return str(error)
    if status >= 400:
        code, reason = str(answer.get("code")), str(answer.get("error"))
        if code in FATAL:
            raise StartError(FATAL[code], f"{url} refuses this node: {reason}")
        return f"{url} answered {status}: {reason}"
    for member in answer["members"]:
        if member["node_id"] != request["node_id"]:
            add_peer(NodeId(member["node_id"]), member["raft_addr"])
    return ""

"""DescribeConfigs, AlterConfigs and IncrementalAlterConfigs: the settings of topics and of brokers.

Rule: a resource is changed as a whole or not at all.  What a change leads to is checked as if it had been given when
the topic was made; what a broker was started with cannot be changed while it runs.
Knows nothing of what settings do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeAlias

from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.controller import Refused, propose, timeout_s
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_configs import (
    DYNAMIC_BROKER_CONFIGS,
    EVERYWHERE,
    TOPIC_CONFIGS,
    ConfigEntry,
    ConfigType,
    Known,
    broker_entries,
    default_broker_entries,
    inherited,
    refuse_config,
    refuse_promise,
    topic_entries,
)
from seatrial.kafka.topic_requests import known_topic
from seatrial.machines.metadata import SetBrokerConfigs, SetTopicConfigs
from seatrial.machines.topics import changed_configs

DESCRIBED_A_TURN: Final = 50
TOPIC: Final = 2  # resource types
BROKER: Final = 4


class Operation(IntEnum):
    """What IncrementalAlterConfigs does to one setting; the last two are for lists alone."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class Change(NamedTuple):
    """One setting to change."""

    name: str
    operation: int
    value: str | None


ConfigCommand: TypeAlias = SetTopicConfigs | SetBrokerConfigs


# ---- showing -------------------------------------------------------------------------------------------------------


async def describe_configs(call: Call) -> Any:
    """DescribeConfigs 1 to 4, of topics and of this broker."""
    results = []
    for number, resource in enumerate(call.request.resources, 1):
        results.append(_describe_one(call, resource))
        if number % DESCRIBED_A_TURN == 0:
            await asyncio.sleep(0)  # each has dozens of settings, and others want to be served as well
    return message("DescribeConfigsResponse").new(results=results)


def _describe_one(call: Call, resource: Any) -> Any:
    codec = message("DescribeConfigsResponse")
    identity = {"resource_type": resource.resource_type, "resource_name": resource.resource_name}
    result = codec.structure("DescribeConfigsResult")
    try:
        entries = _entries(call, resource.resource_type, resource.resource_name)
    except Refused as refused:
        return result(error_code=refused.error, error_message=refused.text, **identity)
    wanted = resource.configuration_keys
    config = codec.structure("DescribeConfigsResourceResult")
    synonym = codec.structure("DescribeConfigsSynonym")
    configs = [
        config(
            name=entry.name,
            value=entry.value,
            read_only=resource.resource_type == BROKER and entry.name not in DYNAMIC_BROKER_CONFIGS,
            config_source=entry.source,
            config_type=entry.kind,
            synonyms=[synonym(name=s.name, value=s.value, source=s.source) for s in entry.synonyms]
            if call.request.include_synonyms
            else (),
            documentation=None,
        )
        for entry in entries
        if wanted is None or entry.name in wanted
    ]
    return result(configs=configs, error_message=None, **identity)


def _entries(call: Call, resource_type: int, name: str) -> list[ConfigEntry]:
    """Raises Refused."""
    defaults = inherited(call.backend, call.settings)
    if resource_type == TOPIC:
        return topic_entries(known_topic(call.backend, name).configs, defaults)
    _refuse_other_types(resource_type)
    if name == EVERYWHERE:
        return default_broker_entries(defaults.brokers)
    if name != str(call.backend.node_id):
        text = f"this is broker {call.backend.node_id}: ask broker {name} itself"
        raise Refused(ErrorCode.INVALID_REQUEST, text)
    return broker_entries(defaults)


def _refuse_other_types(resource_type: int) -> None:
    if resource_type != BROKER:
        text = f"resources of type {resource_type} have no settings here, only topics (2) and brokers (4)"
        raise Refused(ErrorCode.INVALID_REQUEST, text)


# ---- changing ------------------------------------------------------------------------------------------------------


async def alter_configs(call: Call) -> Any:
    """AlterConfigs 0 to 2: what is not named goes back to its default."""
    named = [[Change(c.name, Operation.SET, c.value) for c in resource.configs] for resource in call.request.resources]
    return await _alter(call, "AlterConfigsResponse", named, replaces=True)


async def incremental_alter_configs(call: Call) -> Any:
    """IncrementalAlterConfigs 0 and 1 (KIP-339)."""
    named = [
        [Change(c.name, c.config_operation, c.value) for c in resource.configs] for resource in call.request.resources
    ]
    return await _alter(call, "IncrementalAlterConfigsResponse", named, replaces=False)


async def _alter(call: Call, response: str, named: Sequence[Sequence[Change]], *, replaces: bool) -> Any:
    resources = call.request.resources
    times = Counter((resource.resource_type, resource.resource_name) for resource in resources)

    async def one(resource: Any, changes: Sequence[Change]) -> Any:
        kind, name = resource.resource_type, resource.resource_name
        result = message(response).structure("AlterConfigsResourceResponse")
        try:
            if times[kind, name] > 1:
                raise Refused(ErrorCode.INVALID_REQUEST, f"the request names resource {name!r} more than once")
            command = _plan(call, kind, name, changes, replaces)
            if not call.request.validate_only:
                await propose(call.backend, command, timeout_s(call.settings.metadata_timeout_ms))
        except Refused as refused:
            return result(error_code=refused.error, error_message=refused.text, resource_type=kind, resource_name=name)
        return result(error_message=None, resource_type=kind, resource_name=name)

    done = await asyncio.gather(*(one(*pair) for pair in zip(resources, named, strict=True)))
    return message(response).new(responses=done)


def _plan(call: Call, kind: int, name: str, changes: Sequence[Change], replaces: bool) -> ConfigCommand:
    """The command that changes one resource.  Raises Refused."""
    if kind == TOPIC:
        topic = known_topic(call.backend, name)
        values = _values(changes, topic.configs, TOPIC_CONFIGS)
        after = changed_configs(topic.configs, values, replaces=replaces)
        reason = refuse_promise(after, min(len(p.replicas) for p in topic.partitions), call.settings)
        if reason is not None:
            raise Refused(ErrorCode.INVALID_CONFIG, reason)
        return SetTopicConfigs(topic.topic_id, values, replaces)
    _refuse_other_types(kind)
    if name != EVERYWHERE and name not in {str(node) for node in call.backend.metadata.nodes}:
        raise Refused(ErrorCode.INVALID_REQUEST, f"there is no broker {name!r}; brokers are named by their ids")
    fixed = {entry.name for entry in broker_entries(inherited(call.backend, call.settings))}
    for change in changes:
        if change.name in fixed and change.name not in DYNAMIC_BROKER_CONFIGS:
            text = f"{change.name} is what the broker was started with: change it there, and start the broker again"
            raise Refused(ErrorCode.INVALID_REQUEST, text)
    before = call.backend.metadata.broker_configs.get(name, {})
    return SetBrokerConfigs(name, _values(changes, before, DYNAMIC_BROKER_CONFIGS), replaces)


def _values(changes: Sequence[Change], before: Mapping[str, str], known: Mapping[str, Known]) -> dict[str, str | None]:
    """What each setting becomes; None: its default.  Raises Refused."""
    values: dict[str, str | None] = {}
    for change in changes:
        name = change.name
        if name in values:
            raise Refused(ErrorCode.INVALID_REQUEST, f"the request changes {name} more than once")
        value = change.value
        if change.operation == Operation.DELETE:
            if name not in known:
                raise Refused(ErrorCode.INVALID_CONFIG, refuse_config(name, value, known) or name)
            values[name] = None
            continue
        if change.operation != Operation.SET:
            value = _edited_list(change, before, known)
        reason = refuse_config(name, value, known)
        if reason is not None:
            raise Refused(ErrorCode.INVALID_CONFIG, reason)
        values[name] = value
    return values


def _edited_list(change: Change, before: Mapping[str, str], known: Mapping[str, Known]) -> str:
    setting = known.get(change.name)
    if change.operation not in (Operation.APPEND, Operation.SUBTRACT):
        raise Refused(ErrorCode.INVALID_REQUEST, f"{change.operation} is no operation on a setting")
    if setting is None or setting.kind != ConfigType.LIST:
        text = f"{change.name} is no list, so nothing can be appended to it or taken from it"
        raise Refused(ErrorCode.INVALID_CONFIG, text)
    items = [item for item in before.get(change.name, setting.default).split(",") if item]
    named = [item for item in (change.value or "").split(",") if item]
    if change.operation == Operation.APPEND:
        items += [item for item in named if item not in items]
    else:
        items = [item for item in items if item not in named]
    return ",".join(items)

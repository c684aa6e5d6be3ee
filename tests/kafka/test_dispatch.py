"""Frames: versions, headers, and what closes a connection."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest
from fake_broker import FakeBroker, Wire, decode_response, request_frame

from kafka import errors as errors_of_peer
from seatrial.kafka.apis import APIS, ApiKey
from seatrial.kafka.codec import message
from seatrial.kafka.dispatch import HANDLERS, CloseConnection, admin_handlers, group_handlers
from seatrial.kafka.errors import APPEND_ERRORS, ErrorCode
from seatrial.machines.partition_log import AppendError


def reason_for_closing(frame: bytes) -> str:
    with pytest.raises(CloseConnection) as caught:
        Wire(FakeBroker()).start_frame(frame)
    return caught.value.reason


def test_the_table_and_the_handlers_agree() -> None:
    tables = (HANDLERS, admin_handlers(), group_handlers())
    assert {ApiKey.PRODUCE, ApiKey.FETCH}.union(*tables) == set(APIS)
    assert sum(map(len, tables)) == len(APIS) - 2, "each request has one handler"
    for key, api in APIS.items():
        assert key == api.key == message(f"{api.message}Request").schema.api_key
        request, response = message(f"{api.message}Request"), message(f"{api.message}Response")
        for version in range(api.min_served, api.max_served + 1):
            assert request.schema.valid.covers(version) and response.schema.valid.covers(version)
            assert request.is_flexible(version) == response.is_flexible(version) == (version >= api.flexible_from)


def test_append_errors_have_the_numbers_of_kafka_s() -> None:
    assert {int(error): int(code) for error, code in APPEND_ERRORS.items()} == {e: e for e in map(int, AppendError)}


def test_codes_have_the_numbers_that_kafka_python_knows() -> None:
    older_names = {6: "NOT_LEADER_FOR_PARTITION", 10: "MESSAGE_SIZE_TOO_LARGE", 17: "INVALID_TOPIC"}
    older_names |= {-1: "UNKNOWN", 0: "NO_ERROR", 39: "INVALID_REPLICATION_ASSIGNMENT"}
    compared = 0
    for item in vars(errors_of_peer).values():
        number = getattr(item, "errno", None)
        if isinstance(item, type) and number in ErrorCode._value2member_map_:
            assert item.message in (ErrorCode(number).name, older_names.get(number))  # type: ignore[attr-defined]
            compared += 1
    assert compared > 80


@pytest.mark.parametrize("version", range(5))
def test_api_versions_tells_the_table(version: int) -> None:
    fields = {"client_software_name": "tests", "client_software_version": "1.0"}
    wire = Wire(FakeBroker())
    started = wire.start(ApiKey.API_VERSIONS, version, **fields)
    decoded = decode_response(ApiKey.API_VERSIONS, version, started)
    assert decoded.error_code == 0
    assert [(r.api_key, r.min_version, r.max_version) for r in decoded.api_keys] == sorted(
        (api.key, api.min_advertised, api.max_served) for api in APIS.values()
    )
    assert wire.client.software == ("tests/1.0" if version >= 3 else "")
    assert wire.client.client_id == "test"


@pytest.mark.parametrize("version", [5, 99, -1, 32767])
def test_a_client_that_is_too_new_gets_version_0_with_error_35(version: int) -> None:
    frame = struct.pack(">hhi", ApiKey.API_VERSIONS, version, 9) + b"\xff\xff whatever this version holds"
    decoded = decode_response(ApiKey.API_VERSIONS, 0, Wire(FakeBroker()).start_frame(frame), 9)
    assert decoded.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert {row.api_key for row in decoded.api_keys} == set(APIS)


def test_a_client_software_name_that_kafka_refuses_is_refused() -> None:
    started = Wire(FakeBroker()).start(ApiKey.API_VERSIONS, 3, client_software_name="a b", client_software_version="1")
    assert decode_response(ApiKey.API_VERSIONS, 3, started).error_code == ErrorCode.INVALID_REQUEST


def test_an_unknown_api_closes_the_connection() -> None:
    assert "unknown API key 999" in reason_for_closing(request_frame(999, 0, b""))
    assert "unknown API key 24" in reason_for_closing(request_frame(24, 0, b""))  # of transactions


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.message)
def test_a_version_that_is_not_served_closes_the_connection(api: object) -> None:
    key, low, high = api.key, api.min_served, api.max_served  # type: ignore[attr-defined]
    if key != ApiKey.API_VERSIONS:
        for version in (low - 1, high + 1):
            assert f"version {version} is not served" in reason_for_closing(request_frame(key, version, b""))


@pytest.mark.parametrize("frame", [b"", b"\0", b"\0\x03\0\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", bytes(3)])
def test_garbage_closes_the_connection(frame: bytes) -> None:
    assert reason_for_closing(frame)


def test_random_frames_are_answered_or_close_the_connection_and_nothing_else() -> None:
    async def scenario() -> None:
        rng = random.Random(1)
        broker = FakeBroker()
        broker.create("t")
        wire = Wire(broker)
        for _ in range(1500):
            api = rng.choice(list(APIS.values()))
            version = rng.randint(api.min_served, api.max_served)
            frame = request_frame(api.key, version, rng.randbytes(rng.randrange(60)))
            try:
                started = wire.start_frame(frame)
            except CloseConnection:
                continue
            if isinstance(started, asyncio.Future):
                started.cancel()

    asyncio.run(scenario())


def test_a_null_client_id_is_fine() -> None:
    wire = Wire(FakeBroker())
    wire.start_frame(struct.pack(">hhih", ApiKey.API_VERSIONS, 0, 1, -1))
    assert wire.client.client_id is None


def test_a_handler_s_fault_comes_out_of_the_future() -> None:
    async def scenario() -> None:
        broker = FakeBroker()
        broker.refuse_metadata = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            await Wire(broker).ask(ApiKey.INIT_PRODUCER_ID, 4, transactional_id=None)

    asyncio.run(scenario())

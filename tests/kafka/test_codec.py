"""The generated codec against kafka-python's, and against bytes that no good client sends."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys

import pytest
from kafka_python import peer_round_trip, random_message, served_messages

from seatrial.kafka.codec import message
from seatrial.kafka.wire import MalformedMessage

SAMPLES = 6


every_message = pytest.mark.parametrize(
    ("name", "versions"), [pytest.param(name, versions, id=name) for name, versions in served_messages()]
)


@every_message
def test_every_version_survives_a_round_trip(name: str, versions: range) -> None:
    codec = message(name)
    for version in versions:
        rng = random.Random(f"{name}/{version}")
        for _ in range(SAMPLES):
            original = random_message(codec, version, rng)
            encoded = codec.encode(original, version)
            decoded, end = codec.decode(bytes(encoded), 0, version)
            assert (decoded, end) == (original, len(encoded)), f"version {version}"
            shifted = codec.decode(memoryview(b"\1\2" + encoded), 2, version)
            assert shifted == (original, len(encoded) + 2), f"version {version}"


@every_message
def test_kafka_python_reads_and_writes_the_same_bytes(name: str, versions: range) -> None:
    codec = message(name)
    for version in versions:
        rng = random.Random(f"peer/{name}/{version}")
        for _ in range(SAMPLES):
            original = random_message(codec, version, rng)
            if name == "ApiVersionsResponse":
                original.error_code = 0  # kafka-python reads one with an error as version 0, whatever it was asked for
            encoded = bytes(codec.encode(original, version))
            assert peer_round_trip(name, encoded, version) == encoded, f"version {version}"


@every_message
def test_a_message_cut_anywhere_is_malformed_and_nothing_else(name: str, versions: range) -> None:
    codec = message(name)
    for version in versions:
        encoded = bytes(codec.encode(random_message(codec, version, random.Random(f"cut/{name}/{version}")), version))
        for length in range(min(len(encoded), 200)):
            with pytest.raises(MalformedMessage):
                print(f"version {version}", codec.decode(encoded[:length], 0, version))


@every_message
def test_random_bytes_are_a_message_or_malformed(name: str, versions: range) -> None:
    codec = message(name)
    for version in versions:
        rng = random.Random(f"noise/{name}/{version}")
        for _ in range(25):
            with contextlib.suppress(MalformedMessage):
                codec.decode(rng.randbytes(rng.randrange(1, 80)), 0, version)


def test_unknown_tagged_fields_are_skipped_and_trailing_bytes_ignored() -> None:
    codec = message("ListOffsetsRequest")
    request = codec.new(replica_id=-1, isolation_level=1, topics=[])
    encoded = codec.encode(request, 6)
    assert encoded[-1] == 0  # no tagged fields
    with_tags = encoded[:-1] + b"\x02\x05\x03abc\x63\x00" + b"rest"
    assert codec.decode(bytes(with_tags), 0, 6) == (request, len(with_tags) - 4)


def test_librdkafka_s_wrong_encoding_of_all_topics_is_read() -> None:
    """librdkafka writes "all topics" as four zero bytes in flexible versions (its issue 5049), where one is right."""
    for version, rest in ((9, b"\1\0\0\0"), (10, b"\1\0\0\0"), (12, b"\1\0\0"), (13, b"\1\0\0")):
        request, _ = message("MetadataRequest").decode(b"\0\0\0\0" + rest, 0, version)
        assert request.topics is None


def test_known_tagged_fields_are_written_only_when_they_are_not_default() -> None:
    codec = message("ApiVersionsResponse")
    assert len(codec.encode(codec.new(), 3)) < len(codec.encode(codec.new(finalized_features_epoch=7), 3))
    decoded, _ = codec.decode(bytes(codec.encode(codec.new(finalized_features_epoch=7), 3)), 0, 3)
    assert decoded.finalized_features_epoch == 7


def test_a_null_where_none_may_be_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="topics must not be null"):
        message("ListOffsetsRequest").decode(b"\xff\xff\xff\xff" + b"\0" + b"\xff\xff\xff\xff", 0, 2)


def test_a_count_that_cannot_fit_costs_no_memory() -> None:
    with pytest.raises(MalformedMessage, match="cannot fit"):
        message("ListOffsetsRequest").decode(b"\xff\xff\xff\xff" + b"\0" + b"\x7f\xff\xff\xff", 0, 2)


def test_fields_that_a_version_lacks_have_their_defaults() -> None:
    codec = message("InitProducerIdRequest")
    encoded = codec.encode(codec.new(transaction_timeout_ms=5, producer_id=9), 2)
    decoded, _ = codec.decode(bytes(encoded), 0, 2)
    assert (decoded.transaction_timeout_ms, decoded.producer_id) == (5, -1)


def test_the_codec_does_not_import_kafka_python() -> None:
    program = (
        "import sys; from seatrial.kafka.codec import message; message('MetadataRequest').encode("
        "message('MetadataRequest').new(), 9); sys.exit('kafka' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Which transport a node uses, from its settings."""

from __future__ import annotations

import pytest

from seatrial.server.config import ServerConfig, UsageError, parse
from seatrial.transport import FramedWire, make_wire

BASE = ["--node-id", "1", "--data-dir", "d"]


def parsed(*flags: str, environment: dict[str, str] | None = None, file: str = "") -> ServerConfig:
    return parse([*BASE, *flags], environment or {}, lambda path: file.encode())


def test_the_transport_is_framed_unless_flag_environment_or_file_say_grpc() -> None:
    assert parsed().transport == "framed"
    assert parsed("--transport", "grpc").transport == "grpc"
    assert parsed(environment={"SEATRIAL_TRANSPORT": "grpc"}).transport == "grpc"
    assert parsed("--config", "f.toml", file='transport = "grpc"').transport == "grpc"
    with pytest.raises(UsageError, match="'pigeon' is none of framed, grpc"):
        parsed("--transport", "pigeon")


def test_tls_settings_come_from_flag_environment_or_file() -> None:
    environment = {"SEATRIAL_RAFT_TLS_KEY": "k", "SEATRIAL_RAFT_TLS_CA": "a"}
    file = 'raft-tls-cert = "c"\nraft-tls-name = "from-file"'
    config = parsed("--config", "f.toml", "--raft-tls-name", "n", environment=environment, file=file)
    assert (config.raft_tls_cert, config.raft_tls_key) == ("c", "k")
    assert (config.raft_tls_ca, config.raft_tls_name) == ("a", "n")


@pytest.mark.parametrize("lonely", ["cert", "key", "ca", "name"])
def test_half_of_the_tls_settings_are_refused(lonely: str) -> None:
    with pytest.raises(UsageError, match="--raft-tls-cert and --raft-tls-key go together"):
        parsed(f"--raft-tls-{lonely}", "x")


def test_a_wire_is_made_by_its_name() -> None:
    assert isinstance(make_wire("framed"), FramedWire)
    assert type(make_wire("grpc")).__name__ == "GrpcWire"
    with pytest.raises(ValueError, match="choose one of: framed, grpc"):
        make_wire("pigeon")

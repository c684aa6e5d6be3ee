"""raft_pb2.py and raft_pb2.pyi are what protoc makes of raft.proto; `SEATRIAL_REWRITE=1` writes them anew.

Only the line of the compiler's version may differ: it is the oldest protobuf that the generated code runs on.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
SOURCE = Path(__file__).resolve().parents[2] / "src"
PROTO = "seatrial/transport/raft.proto"


def without_version(text: str) -> str:
    text = re.sub(r"# Protobuf Python Version: .*", "", text)
    return re.sub(r"Domain\.PUBLIC,\s+\d+,\s+\d+,\s+\d+,", "", text)


@pytest.mark.slow
def test_the_generated_code_is_what_the_proto_file_gives(tmp_path: Path) -> None:
    target = SOURCE if os.environ.get("SEATRIAL_REWRITE") else tmp_path
    assert protoc.main(["protoc", f"-I{SOURCE}", f"--python_out={target}", f"--pyi_out={target}", PROTO]) == 0
    for name in ("raft_pb2.py", "raft_pb2.pyi"):
        made = (target / "seatrial" / "transport" / name).read_text()
        committed = (SOURCE / "seatrial" / "transport" / name).read_text()
        assert without_version(made) == without_version(committed), f"{name} is not made from {PROTO}"

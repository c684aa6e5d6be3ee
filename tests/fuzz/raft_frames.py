"""A peer's connection in memory: frames of the Raft transport, good ones and damaged ones, and what must hold.

Whatever comes, each frame is decoded into messages or refused as malformed; nothing else is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.membership import encode_configuration
from seatrial.raft.messages import (
    COMMAND,
    CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    ForwardProposal,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)
from seatrial.transport.codec import (
    MalformedFrame,
    decode_messages,
    encode_heartbeat_responses,
    encode_heartbeats,
    encode_message,
)
from seatrial.transport.receiver import FrameReceiver

_ONE: Final = NodeId(1)
_TWO: Final = NodeId(2)


class Receiver(FrameReceiver):
    """Decodes what comes, as a node does."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.messages = 0
        self.refused = ""

    def frame(self, kind: int, body: memoryview) -> None:
        if kind >= 16:  # the lower ones are of the handshake
            self.messages += len(decode_messages(kind, body, _TWO, _ONE))

    def failed(self, error: MalformedFrame) -> None:
        self.refused = str(error)


def drawn_frames(chance: Random) -> bytes:
    """A few frames, one after the other."""
    out: list[Any] = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(10)
        numbers = [chance.randrange(1 << chance.choice((4, 32, 64))) for _ in range(12)]
        if kind == 0:
            encode_heartbeats(numbers, out)
        elif kind == 1:
            encode_heartbeat_responses(numbers, out)
        else:
            encode_message(GroupId(numbers[0]), _drawn_message(numbers, chance), out)
    return b"".join(out)


def _drawn_message(numbers: Sequence[int], chance: Random) -> Any:
    ends = (_TWO, _ONE, Term(numbers[1]))
    a, b, c = (Index(number) for number in numbers[2:5])
    configuration = Configuration([_ONE, _TWO], learners=[NodeId(3)])
    entries = [
        Entry(Term(1), Index(a % 1000 + 1 + i), kind, encode_configuration(configuration) if kind else b"x" * 20)
        for i, kind in enumerate(chance.choices((COMMAND, CONFIGURATION), k=chance.randint(0, 3)))
    ]
    meta = SnapshotMeta(a, Term(b), configuration)
    return chance.choice(
        (
            AppendEntries(*ends, Index(a % 1000), Term(b), c, entries),
            AppendEntriesResponse(*ends, chance.random() < 0.5, a, b, Term(c)),
            InstallSnapshot(*ends, meta, 0, 100, chance.randbytes(100)),
            InstallSnapshotResponse(*ends, a, b),
            ForwardProposal(*ends, chance.randbytes(30)),
            PreVote(*ends, a, Term(b)),
            PreVoteResponse(*ends, True),
            RequestVote(*ends, a, Term(b), False),
            RequestVoteResponse(*ends, True),
            ReadIndexRequest(*ends, a),
            ReadIndexResponse(*ends, a, b),
            TimeoutNow(*ends),
        )
    )


def suffer(inputs: Sequence[bytes]) -> list[str]:
    found = []
    for data in inputs:
        try:
            Receiver().feed(data)
        except Exception as error:
            found.append(f"raised {error!r}")
    return found

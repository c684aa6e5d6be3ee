"""Every message survives the wire, and no bytes make the decoder do anything but refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.env import Buffer
from seatrial.raft import messages as raft
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.membership import encode_configuration
from seatrial.transport import MalformedFrame
from seatrial.transport.codec import (
    _DECODERS,
    FRAME_HEADER,
    decode_messages,
    encode_heartbeat_responses,
    encode_heartbeats,
    encode_message,
)

ME, PEER = NodeId(1), NodeId(2)
number = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**63)
payload = st.binary(max_size=200)


@st.composite
def configurations(draw: Any) -> raft.Configuration:
    """Any that does not contradict itself, and the one that is not known."""
    nodes = draw(st.lists(st.integers(1, 2**64 - 1).map(NodeId), max_size=8, unique=True))
    voters, outgoing_only, learners = nodes[:3], nodes[3:5], nodes[5:]
    if not draw(st.booleans()):
        return raft.Configuration(voters, (), [*outgoing_only, *learners])
    outgoing = [*voters[:1], *outgoing_only]
    return raft.Configuration(voters, outgoing, learners, outgoing_only[1:], bool(outgoing) and draw(st.booleans()))


ends: dict[str, Any] = {"sender": st.just(ME), "to": st.just(PEER), "term": number}


@st.composite
def append_entries(draw: Any) -> raft.AppendEntries:
    previous = draw(small)
    opaque = st.tuples(number, st.integers(0, 255).filter(lambda kind: kind != raft.CONFIGURATION), payload)
    change = st.tuples(number, st.just(raft.CONFIGURATION), configurations().map(encode_configuration))
    bodies = draw(st.lists(opaque | change, max_size=6))
    entries = [raft.Entry(term, previous + i, kind, data) for i, (term, kind, data) in enumerate(bodies, 1)]
    return raft.AppendEntries(ME, PEER, draw(number), previous, draw(number), draw(number), entries)


STRATEGIES: dict[type, Any] = {
    raft.PreVote: st.builds(raft.PreVote, last_log_index=number, last_log_term=number, **ends),
    raft.PreVoteResponse: st.builds(raft.PreVoteResponse, vote_granted=st.booleans(), **ends),
    raft.RequestVote: st.builds(
        raft.RequestVote, last_log_index=number, last_log_term=number, leadership_transfer=st.booleans(), **ends
    ),
    raft.RequestVoteResponse: st.builds(raft.RequestVoteResponse, vote_granted=st.booleans(), **ends),
    raft.AppendEntries: append_entries(),
    raft.AppendEntriesResponse: st.builds(
        raft.AppendEntriesResponse,
        success=st.booleans(),
        match_index=number,
        hint_index=number,
        hint_term=number,
        **ends,
    ),
    raft.Heartbeat: st.builds(raft.Heartbeat, leader_commit=number, read_round=number, **ends),
    raft.HeartbeatResponse: st.builds(raft.HeartbeatResponse, read_round=number, **ends),
    raft.InstallSnapshot: st.builds(
        raft.InstallSnapshot,
        meta=st.builds(raft.SnapshotMeta, number, number, configurations()),
        offset=number,
        total_size=number,
        data=payload,
        **ends,
    ),
    raft.InstallSnapshotResponse: st.builds(
        raft.InstallSnapshotResponse, last_included_index=number, next_offset=number, **ends
    ),
    raft.TimeoutNow: st.builds(raft.TimeoutNow, **ends),
    raft.ReadIndexRequest: st.builds(raft.ReadIndexRequest, context=number, **ends),
    raft.ReadIndexResponse: st.builds(raft.ReadIndexResponse, context=number, index=number, **ends),
    raft.ForwardProposal: st.builds(raft.ForwardProposal, data=payload, **ends),
}
any_message = st.one_of(*STRATEGIES.values())


def seen(thing: Any) -> Any:
    """A message as plain values, for comparison: messages have no equality of their own."""
    if isinstance(thing, list | tuple):
        return [seen(part) for part in thing]
    # A class that mypyc compiled has no slots, and names its attributes otherwise.
    names = getattr(thing, "__slots__", None) or getattr(thing, "__mypyc_attrs__", ())
    if names:
        return type(thing), {name: seen(getattr(thing, name)) for name in names}
    return thing


def on_the_wire(group: int, message: Any) -> tuple[int, bytes]:
    buffers: list[Buffer] = []
    size = encode_message(GroupId(group), message, buffers)
    frame = b"".join(buffers)
    length, kind = FRAME_HEADER.unpack_from(frame)
    assert (size, length) == (len(frame), len(frame) - FRAME_HEADER.size)
    return kind, frame[FRAME_HEADER.size :]


def test_every_message_class_has_a_frame() -> None:
    assert set(raft.Message.__args__) == set(STRATEGIES)  # type: ignore[attr-defined]


@pytest.mark.slow
@given(group=number, message=any_message)
@settings(max_examples=400, deadline=None)
def test_a_message_comes_back_as_it_went(group: int, message: Any) -> None:
    kind, body = on_the_wire(group, message)
    (back,) = decode_messages(kind, memoryview(body), ME, PEER)
    assert back[0] == group
    assert seen(back[1]) == seen(message)


@given(beats=st.lists(st.tuples(number, number, number, number), max_size=20))
def test_heartbeats_of_many_groups_share_a_frame(beats: list[tuple[int, ...]]) -> None:
    buffers: list[Buffer] = []
    encode_heartbeats([n for beat in beats for n in beat], buffers)
    frame = b"".join(buffers)
    assert len(frame) == FRAME_HEADER.size + 32 * len(beats)
    back = decode_messages(FRAME_HEADER.unpack_from(frame)[1], memoryview(frame)[8:], ME, PEER)
    assert [(g, m.term, m.leader_commit, m.read_round) for g, m in back] == beats  # type: ignore[union-attr]


@given(answers=st.lists(st.tuples(number, number, number), max_size=20))
def test_heartbeat_responses_of_many_groups_share_a_frame(answers: list[tuple[int, ...]]) -> None:
    buffers: list[Buffer] = []
    encode_heartbeat_responses([n for answer in answers for n in answer], buffers)
    frame = b"".join(buffers)
    back = decode_messages(FRAME_HEADER.unpack_from(frame)[1], memoryview(frame)[8:], ME, PEER)
    assert [(g, m.term, m.read_round) for g, m in back] == answers  # type: ignore[union-attr]


def decodes_or_refuses(kind: int, body: bytes) -> None:
    try:
        decode_messages(kind, memoryview(body), ME, PEER)
    except MalformedFrame as error:
        assert str(error)


@pytest.mark.slow
@given(kind=st.one_of(st.integers(0, 255), st.sampled_from(sorted(_DECODERS))), body=st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_garbage_is_refused_and_nothing_else_happens(kind: int, body: bytes) -> None:
    decodes_or_refuses(kind, body)


@pytest.mark.slow
@given(message=any_message, at=st.integers(0, 400), flip=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=500, deadline=None)
def test_a_damaged_message_is_refused_or_is_another_message(message: Any, at: int, flip: int, cut: bool) -> None:
    kind, body = on_the_wire(1, message)
    at = min(at, len(body) - 1)
    damaged = body[:at] if cut else body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    decodes_or_refuses(kind, damaged)


@pytest.mark.parametrize("extra", [b"\0", bytes(8)])
def test_a_body_longer_than_its_message_is_refused(extra: bytes) -> None:
    for message in (
        raft.PreVote(ME, PEER, 1, 2, 3),
        raft.AppendEntries(ME, PEER, 1, 0, 0, 0, [raft.Entry(1, 1, 0, b"x")]),
        raft.TimeoutNow(ME, PEER, 1),
    ):
        kind, body = on_the_wire(1, message)
        with pytest.raises(MalformedFrame):
            decode_messages(kind, memoryview(body + extra), ME, PEER)


def test_payloads_are_handed_on_without_a_copy() -> None:
    data = bytes(100_000)
    for message in (
        raft.AppendEntries(ME, PEER, 1, 0, 0, 0, [raft.Entry(1, 1, 0, data)]),
        raft.ForwardProposal(ME, PEER, 1, data),
    ):
        buffers: list[Buffer] = []
        encode_message(GroupId(1), message, buffers)
        assert any(buffer is data for buffer in buffers)


def test_a_configuration_that_contradicts_itself_is_refused_at_the_gate() -> None:
    both = raft.Configuration([NodeId(1), NodeId(2)], (), [NodeId(2)])
    for message in (
        raft.AppendEntries(ME, PEER, 1, 0, 0, 0, [raft.Entry(1, 1, raft.CONFIGURATION, encode_configuration(both))]),
        raft.InstallSnapshot(ME, PEER, 1, raft.SnapshotMeta(1, 1, both), 0, 0, b""),  # type: ignore[arg-type]
    ):
        kind, body = on_the_wire(1, message)
        with pytest.raises(MalformedFrame, match="a learner that votes"):
            decode_messages(kind, memoryview(body), ME, PEER)

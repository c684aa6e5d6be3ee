"""The key-value store: versions, compare-and-set, and sessions that make retries happen once."""

from __future__ import annotations

import pytest

from seatrial.machines.commands import MalformedCommand, request_id_of
from seatrial.machines.kv import KeyValueMachine, KvError, KvResult, Session, encode_delete, encode_put
from seatrial.machines.sessions import MAX_ANSWERS, SessionTable
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, NOOP, Entry

ID = bytes(range(16))


class Store:
    def __init__(self) -> None:
        self.machine = KeyValueMachine()
        self.index = 0

    def feed(self, command: bytes) -> KvResult:
        self.index += 1
        result = self.machine.apply(Entry(Term(1), Index(self.index), COMMAND, command))
        assert result is not None
        return result

    def put(self, key: bytes, value: bytes, expected: int | None = None, session: Session | None = None) -> KvResult:
        return self.feed(encode_put(key, value, request_id=ID, expected_version=expected, session=session))

    def delete(self, key: bytes, expected: int | None = None, session: Session | None = None) -> KvResult:
        return self.feed(encode_delete(key, request_id=ID, expected_version=expected, session=session))


def applied(version: int, *, existed: bool) -> KvResult:
    return KvResult(True, KvError.NONE, existed, version, None)


def mismatch(version: int, value: bytes | None) -> KvResult:
    return KvResult(False, KvError.VERSION_MISMATCH, value is not None, version, value)


def test_a_version_is_the_index_of_the_last_write() -> None:
    store = Store()
    assert store.machine.get(b"k") is None
    assert store.put(b"k", b"one") == applied(1, existed=False)
    assert store.put(b"k", b"two") == applied(2, existed=True)
    assert store.machine.get(b"k") == (b"two", 2)
    assert store.delete(b"k") == applied(0, existed=True)
    assert store.machine.get(b"k") is None
    assert store.delete(b"k") == applied(0, existed=False)
    assert store.put(b"k", b"new") == applied(5, existed=False)  # never a version that it had before


def test_compare_and_set_applies_only_on_the_expected_version() -> None:
    store = Store()
    store.put(b"k", b"one")
    assert store.put(b"k", b"two", expected=7) == mismatch(1, b"one")
    assert store.put(b"k", b"two", expected=1) == applied(3, existed=True)
    assert store.put(b"k", b"x", expected=0) == mismatch(3, b"two")
    assert store.put(b"new", b"x", expected=0) == applied(5, existed=False)
    assert store.put(b"gone", b"x", expected=3) == mismatch(0, None)
    assert store.delete(b"k", expected=1) == mismatch(3, b"two")
    assert store.delete(b"k", expected=3) == applied(0, existed=True)


def test_empty_keys_and_values_are_keys_and_values() -> None:
    store = Store()
    assert store.put(b"", b"") == applied(1, existed=False)
    assert store.machine.get(b"") == (b"", 1)
    assert store.put(b"", b"x", expected=0) == mismatch(1, b"")


def test_a_retry_gets_the_first_answer_and_changes_nothing() -> None:
    store = Store()
    session = Session(b"client", 1)
    first = store.put(b"k", b"mine", session=session)
    store.put(b"k", b"theirs")
    assert store.put(b"k", b"mine", session=session) == first
    assert store.machine.get(b"k") == (b"theirs", 2)
    refused = store.put(b"k", b"x", expected=1, session=Session(b"client", 2))
    store.delete(b"k")
    assert store.put(b"k", b"x", expected=1, session=Session(b"client", 2)) == refused == mismatch(2, b"theirs")
    assert store.machine.get(b"k") is None


def test_sessions_of_two_clients_are_apart() -> None:
    store = Store()
    store.put(b"k", b"a", session=Session(b"a", 1))
    assert store.put(b"k", b"b", session=Session(b"b", 1)) == applied(2, existed=True)


def test_a_retry_that_is_too_old_to_tell_is_refused_and_not_applied_again() -> None:
    store = Store()
    for sequence in range(1, MAX_ANSWERS + 2):
        store.put(b"k", b"%d" % sequence, session=Session(b"c", sequence))
    result = store.put(b"k", b"1", session=Session(b"c", 1))
    assert (result.applied, result.error) == (False, KvError.SESSION_EXPIRED)
    assert store.machine.get(b"k") == (b"%d" % (MAX_ANSWERS + 1), MAX_ANSWERS + 1)
    assert store.put(b"k", b"2", session=Session(b"c", 2)) == applied(2, existed=True)  # still remembered


def test_commands_of_one_client_may_arrive_in_any_order() -> None:
    store = Store()
    assert store.put(b"a", b"", session=Session(b"c", 5)) == applied(1, existed=False)
    assert store.put(b"b", b"", session=Session(b"c", 3)) == applied(2, existed=False)
    assert store.put(b"b", b"", session=Session(b"c", 3)) == applied(2, existed=False)


def test_the_least_recently_used_session_is_forgotten_first() -> None:
    table = SessionTable(limit=2)
    table.remember(Session(b"a", 1), b"A")
    table.remember(Session(b"b", 1), b"B")
    assert table.find(Session(b"a", 1)) == b"A"  # a use
    table.remember(Session(b"c", 1), b"C")
    assert table.find(Session(b"b", 1)) is None
    assert table.find(Session(b"a", 1)) == b"A"
    assert table.has_expired(Session(b"b", 2))
    assert not table.has_expired(Session(b"b", 1))  # a client begins with 1
    assert not table.has_expired(Session(b"a", 2))


def test_size_counts_keys_and_values_that_are_there() -> None:
    store = Store()
    store.put(b"key", b"12345")
    store.put(b"key", b"1")
    store.put(b"k2", b"22")
    assert (len(store.machine), store.machine.size_bytes, store.machine.keys()) == (2, 8, [b"k2", b"key"])
    store.delete(b"key")
    store.delete(b"key")
    assert (len(store.machine), store.machine.size_bytes) == (1, 4)


def test_the_request_id_is_found_in_a_command() -> None:
    assert request_id_of(encode_put(b"k", b"v", request_id=ID)) == ID
    assert request_id_of(encode_delete(b"k", request_id=ID, session=Session(b"c", 1))) == ID
    with pytest.raises(MalformedCommand):
        request_id_of(b"short")


def test_entries_that_are_no_commands_change_nothing() -> None:
    machine = KeyValueMachine()
    assert machine.apply(Entry(Term(1), Index(1), NOOP, b"")) is None
    assert (len(machine), machine.applied_index) == (0, 1)


@pytest.mark.parametrize("length", range(40))
def test_a_command_cut_short_is_refused_loudly(length: int) -> None:
    command = encode_put(b"key", b"", request_id=ID, session=Session(b"client", 1))
    with pytest.raises(MalformedCommand):
        Store().feed(command[:length])


@pytest.mark.parametrize(
    "arguments",
    [
        {"request_id": b"short"},
        {"request_id": ID, "expected_version": -1},
        {"request_id": ID, "session": Session(b"", 1)},
        {"request_id": ID, "session": Session(b"x" * 256, 1)},
    ],
)
def test_a_command_that_cannot_be_is_refused_when_it_is_made(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"a request id|an expected version|a session needs|a client id"):
        encode_put(b"k", b"v", **arguments)  # type: ignore[arg-type]

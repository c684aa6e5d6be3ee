"""The register machine: sessions, snapshots, and the checksum over what was applied."""

from __future__ import annotations

from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, NOOP, Entry
from seatrial.sim.core.machine import Command, RegisterMachine, decode


def entry(index: int, command: Command | None = None, term: int = 1) -> Entry:
    data = b"" if command is None else command.encode(0)
    return Entry(Term(term), Index(index), NOOP if command is None else COMMAND, data)


def test_a_command_survives_its_encoding_and_is_filled_up_to_its_size() -> None:
    data = Command(3, 7, 2, 123_456_789_012).encode(64)
    command = decode(data)
    assert len(data) == 64
    assert (command.client, command.sequence, command.key, command.value) == (3, 7, 2, 123_456_789_012)


def test_a_repeated_command_of_a_session_changes_nothing_and_gives_its_first_version() -> None:
    machine = RegisterMachine({})
    assert machine.apply(entry(1, Command(1, 1, 0, 10))) == 1
    assert machine.apply(entry(2, Command(2, 1, 0, 20))) == 2
    assert machine.apply(entry(3, Command(1, 1, 0, 10))) == 1
    assert machine.value(0) == 20


def test_a_repeated_command_without_a_session_is_applied_again() -> None:
    machine = RegisterMachine({})
    machine.apply(entry(1, Command(1, 0, 0, 10)))
    machine.apply(entry(2, Command(2, 0, 0, 20)))
    assert machine.apply(entry(3, Command(1, 0, 0, 10))) == 3
    assert machine.value(0) == 10


def test_an_older_command_of_a_session_has_no_answer() -> None:
    machine = RegisterMachine({})
    machine.apply(entry(1, Command(1, 1, 0, 10)))
    machine.apply(entry(2, Command(1, 2, 0, 20)))
    assert machine.apply(entry(3, Command(1, 1, 0, 10))) == 0
    assert machine.value(0) == 20


def test_a_restored_machine_goes_on_as_the_one_that_it_was_taken_from() -> None:
    one, other = RegisterMachine({}), RegisterMachine({})
    for index in range(1, 8):
        one.apply(entry(index, Command(index % 3, index, index % 2, index * 10)))
    other.restore(one.snapshot())
    assert other.apply(entry(8, Command(1, 7, 0, 70))) == one.apply(entry(8, Command(1, 7, 0, 70))) == 7
    assert (other.snapshot(), other.chain) == (one.snapshot(), one.chain)


def test_the_checksum_tells_apart_entries_that_differ_in_anything() -> None:
    chains = set()
    for first in (entry(1), entry(1, term=2), entry(1, Command(1, 1, 0, 1)), entry(1, Command(1, 1, 0, 2))):
        machine = RegisterMachine({})
        machine.apply(first)
        chains.add(machine.chain)
    assert len(chains) == 4

"""All planted bugs, by name, in the order of the tables.

Rule: a name is unique, and stays: replay lines and recorded seeds use it.  Knows nothing of how they are hunted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from seatrial.sim.mutants_groups import GROUP_MUTANTS
from seatrial.sim.mutants_membership import MEMBERSHIP_MUTANTS
from seatrial.sim.mutants_raft import ELECTION_MUTANTS, REPLICATION_MUTANTS
from seatrial.sim.mutants_reads import PROGRESS_MUTANTS, READ_MUTANTS, SNAPSHOT_MUTANTS
from seatrial.sim.mutants_server import KAFKA_MUTANTS, MACHINE_MUTANTS, SERVER_MUTANTS
from seatrial.sim.mutants_storage import STORAGE_MUTANTS, TRANSPORT_MUTANTS
from seatrial.sim.mutation import Mutant

AREAS: Final[Mapping[str, tuple[Mutant, ...]]] = {
    "elections": ELECTION_MUTANTS,
    "replication": REPLICATION_MUTANTS,
    "snapshots": SNAPSHOT_MUTANTS,
    "reads": READ_MUTANTS,
    "progress": PROGRESS_MUTANTS,
    "membership": MEMBERSHIP_MUTANTS,
    "storage": STORAGE_MUTANTS,
    "transport": TRANSPORT_MUTANTS,
    "state machines": MACHINE_MUTANTS,
    "Kafka": KAFKA_MUTANTS,
    "consumer groups": GROUP_MUTANTS,
    "server": SERVER_MUTANTS,
}
MUTANTS: Final[Mapping[str, Mutant]] = {mutant.name: mutant for area in AREAS.values() for mutant in area}


class UnknownMutant(LookupError):
    """There is no mutant of that name."""


def chosen(names: Iterable[str] | str) -> list[Mutant]:
    """ "all", or each of `names` once, in the order of the tables.  Raises UnknownMutant."""
    if names == "all":
        return list(MUTANTS.values())
    wanted = {names} if isinstance(names, str) else set(names)
    unknown = sorted(wanted - MUTANTS.keys())
    if unknown:
        raise UnknownMutant(f"no mutant is called {', '.join(unknown)}; `seatrial sim --mutant all` tries all of them")
    return [mutant for mutant in MUTANTS.values() if mutant.name in wanted]

"""Planted bugs of consumer groups: what is told of offsets, and what is kept of them.

Rule: as in `mutants_server`.  Data alone (see `mutation.Mutant`).
"""

from __future__ import annotations

from typing import Final

from seatrial.sim.mutation import Mutant

_COORDINATOR: Final = "seatrial.server.groups.coordinator"

GROUP_MUTANTS: Final = (
    Mutant(
        name="offset-commit-before-committed",
        summary="A group's member is told that its offsets are committed before they are replicated.",
        source="Kafka answers a commit when its offsets topic has it on all in-sync replicas, and not before",
        module=_COORDINATOR,
        before="            proposed.add_done_callback(partial(_tell_outcome, answer))\n",
        after="            answer.set_result(ErrorCode.NONE)\n",
        level="full",
        cases="group-hand-overs",
    ),
    Mutant(
        name="offsets-not-in-snapshot",
        summary="The committed offsets of groups are left out of a snapshot.",
        source="Raft §7: a snapshot is the whole state; the group's record alone looks complete",
        module="seatrial.machines.groups",
        before="offsets = [(*key, group.offsets[key]) for key in sorted(group.offsets)]",
        after="offsets = [(*key, group.offsets[key]) for key in sorted(group.offsets)[:0]]",
        level="full",
        cases="group-hand-overs",
    ),
    Mutant(
        name="commit-of-an-old-generation",
        summary="A consumer that the group has gone on without may still commit offsets.",
        source="Kafka's ILLEGAL_GENERATION: whoever has the partitions now may be further, and would be set back",
        module=_COORDINATOR,
        before="            error = group.refuse_commit(identity, generation, self._now_ms())\n",
        after="            error = ErrorCode.NONE\n",
        level="full",
        cases="group-hand-overs",
    ),
    Mutant(
        name="coordinator-reads-its-own-state",
        summary="A coordinator answers what is committed without asking whether it still leads.",
        source="dissertation §6.4, and our own rule: offsets are read by linearizable reads",
        module=_COORDINATOR,
        before="                await self._log.read_barrier()\n",
        after="                await asyncio.sleep(0)\n",
        level="full",
        cases="group-hand-overs",
    ),
)

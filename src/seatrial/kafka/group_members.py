"""The members of one group while it has a coordinator: who they are, who waits for an answer, whose session ends when.

Rule: counts that decide about a rebalance are kept and not counted again, so that thousands of members can join in
time that grows with their number alone; a heartbeat only moves a deadline, and the heap learns of it when it is due.
Knows nothing of the group's state and of generations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush

from seatrial.kafka.group_messages import Identity, JoinedMember, JoinRequest, Protocols
from seatrial.machines.groups import MemberRecord


class Member:
    """One member.  `joining`, `syncing`: the ticket of its request that waits, or None.

    `is_new`: it has not had an answer to its first join yet; `deadline_ms`: when its session ends, unless it waits.
    """

    __slots__ = (
        "armed_ms",
        "assignment",
        "client_host",
        "client_id",
        "deadline_ms",
        "instance_id",
        "is_new",
        "joining",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "syncing",
    )

    def __init__(self, member_id: str, instance_id: str | None) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.client_id = self.client_host = ""
        self.session_timeout_ms = self.rebalance_timeout_ms = 0
        self.protocols: Protocols = ()
        self.assignment = b""
        self.joining: object | None = None
        self.syncing: object | None = None
        self.is_new = False
        self.deadline_ms = 0
        self.armed_ms = 0

    @property
    def size(self) -> int:
        """About how many bytes of the group's record it takes."""
        offered = sum(len(name) + len(metadata) for name, metadata in self.protocols)
        return 64 + 2 * len(self.member_id) + len(self.client_id) + offered + len(self.assignment)

    def metadata(self, protocol: str) -> bytes:
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    def record(self, *, assigned: bool) -> MemberRecord:
        return MemberRecord(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.session_timeout_ms,
            self.rebalance_timeout_ms,
            self.protocols,
            self.assignment if assigned else b"",
        )


class Members:
    """All of a group, in the order in which they came; and ids that were given out and not used yet."""

    def __init__(self) -> None:
        self._by_id: dict[str, Member] = {}
        self._static: dict[str, str] = {}  # instance id -> member id
        self._supported: Counter[str] = Counter()  # protocol -> by how many members
        self._promised: dict[str, int] = {}  # member id -> until when (KIP-394)
        self._deadlines: list[tuple[int, str]] = []
        self._joining = 0
        self.record_bytes = 0  # about, of all members together

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_id.values())

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._by_id

    def get(self, member_id: str) -> Member | None:
        return self._by_id.get(member_id)

    def static(self, instance_id: str) -> Member | None:
        member_id = self._static.get(instance_id)
        return None if member_id is None else self._by_id[member_id]

    @property
    def joining(self) -> int:
        """How many wait for the answer to a join."""
        return self._joining

    @property
    def promised(self) -> int:
        """How many ids were given out and not used yet."""
        return len(self._promised)

    def is_promised(self, member_id: str) -> bool:
        return member_id in self._promised

    # ---- coming and going ------------------------------------------------------------------------------------------

    def promise(self, member_id: str, until_ms: int) -> None:
        self._promised[member_id] = until_ms
        heappush(self._deadlines, (until_ms, member_id))

    def forget_promise(self, member_id: str) -> bool:
        return self._promised.pop(member_id, None) is not None

    def add(self, member: Member) -> None:
        self._promised.pop(member.member_id, None)
        self._by_id[member.member_id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member.member_id
        self._joining += member.joining is not None
        self._supported.update(name for name, _ in member.protocols)
        self.record_bytes += member.size

    def remove(self, member: Member) -> None:
        del self._by_id[member.member_id]
        if member.instance_id is not None and self._static.get(member.instance_id) == member.member_id:
            del self._static[member.instance_id]
        self._joining -= member.joining is not None
        self._drop_protocols(member)
        self.record_bytes -= member.size

    def _drop_protocols(self, member: Member) -> None:
        for name, _ in member.protocols:
            self._supported[name] -= 1
            if not self._supported[name]:
                del self._supported[name]

    def rename(self, member: Member, member_id: str) -> None:
        """A static member came back: it keeps its place, and everything but its id."""
        self._by_id = {
            (member_id if known == member.member_id else known): value for known, value in self._by_id.items()
        }
        member.member_id = member_id
        member.armed_ms = 0
        if member.instance_id is not None:
            self._static[member.instance_id] = member_id

    def update(self, member: Member, request: JoinRequest) -> None:
        """What a member says of itself as it joins."""
        known = member.member_id in self._by_id
        if known:
            self._drop_protocols(member)
            self.record_bytes -= member.size
        member.client_id, member.client_host = request.client_id, request.client_host
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = request.rebalance_timeout_ms
        member.protocols = tuple(dict(request.protocols).items())  # a name that comes twice would count twice
        if known:
            self._supported.update(name for name, _ in member.protocols)
            self.record_bytes += member.size

    def assign(self, member: Member, assignment: bytes) -> None:
        self.record_bytes += len(assignment) - len(member.assignment)
        member.assignment = assignment

    def wait_for_join(self, member: Member, ticket: object | None) -> object | None:
        """Keep the ticket (None: it has its answer); returns the one that was kept before."""
        before, member.joining = member.joining, ticket
        if member.member_id in self._by_id:
            self._joining += (ticket is not None) - (before is not None)
        return before

    # ---- protocols -------------------------------------------------------------------------------------------------

    def supports_any(self, protocols: Protocols) -> bool:
        """Whether all members support one of these."""
        return any(self._supported[name] == len(self._by_id) for name, _ in protocols)

    def voted_protocol(self) -> str:
        """The one that most members prefer, of those that all support; the earliest member's choice among equals."""
        votes: Counter[str] = Counter()
        for member in self:
            votes[next(name for name, _ in member.protocols if self._supported[name] == len(self._by_id))] += 1
        return votes.most_common(1)[0][0]

    def described(self, protocol: str) -> tuple[JoinedMember, ...]:
        return tuple(JoinedMember(m.member_id, m.instance_id, m.metadata(protocol)) for m in self)

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self), default=0)

    # ---- sessions --------------------------------------------------------------------------------------------------

    def keep_alive(self, member: Member, now_ms: int, *, for_ms: int | None = None) -> None:
        """Its session ends a session timeout (or `for_ms`) from now."""
        member.deadline_ms = now_ms + (member.session_timeout_ms if for_ms is None else for_ms)
        if not member.armed_ms or member.deadline_ms < member.armed_ms:
            self._arm(member)

    def _arm(self, member: Member) -> None:
        member.armed_ms = member.deadline_ms
        heappush(self._deadlines, (member.deadline_ms, member.member_id))

    @property
    def next_deadline_ms(self) -> int | None:
        """When to look for ended sessions next; may be too early, never too late."""
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now_ms: int) -> list[Identity]:
        """Members whose session has ended and promises that were not taken up; the promises are forgotten.

        A member that waits for an answer is alive as long as it waits, unless it is new.
        """
        found: list[Identity] = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            armed_ms, member_id = heappop(self._deadlines)
            if self._promised.get(member_id, now_ms + 1) <= now_ms:
                del self._promised[member_id]
                found.append(Identity(member_id))
                continue
            member = self._by_id.get(member_id)
            if member is None or member.armed_ms != armed_ms:
                continue
            member.armed_ms = 0
            waits = member.syncing is not None or (member.joining is not None and not member.is_new)
            if waits:
                self.keep_alive(member, now_ms)
            elif member.deadline_ms > now_ms:
                self._arm(member)
            else:
                found.append(Identity(member_id, member.instance_id))
        return found

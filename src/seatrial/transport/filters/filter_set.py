"""The filters that are attached to a network: every message goes through them, one after the other.

What a filter lets go later goes on with the filter behind it, as it then is.

Rule: no clock and no loop of its own: the time and timers come from the host, and where messages go on to is said
with each; counters are the evidence that a filter did anything.  Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from seatrial.raft.messages import Message
from seatrial.transport.filters.rules import Rule
from seatrial.transport.filters.scope import Filter
from seatrial.transport.filters.verdicts import COPIED, DELAYED, DROPPED, HELD, PASSED, REPLACED, Verdict

Deliver: TypeAlias = Callable[[int, Message], None]
Schedule: TypeAlias = Callable[[int, Callable[[], None]], None]
COUNTERS: Final = ("seen", "passed", "dropped", "delayed", "held", "released", "replaced", "copied")


class _Held:
    """A message that waits, and where it is to go."""

    __slots__ = ("deliver", "group", "message", "watchers")

    def __init__(self, group: int, message: Message, deliver: Deliver, watchers: tuple[Any, ...]) -> None:
        self.group = group
        self.message = message
        self.deliver = deliver
        self.watchers = watchers


class ActiveFilter:
    """A filter that is attached, until `remove`.

    counters: how many messages it saw, and what became of them ("lost": held ones that its rule gave up).
    """

    __slots__ = ("_held", "_rules", "_set", "counters", "filter", "number")

    def __init__(self, owner: FilterSet, number: int, described: Filter) -> None:
        self._set = owner
        self.number = number
        self.filter = described
        self.counters: dict[str, int] = dict.fromkeys((*COUNTERS, "lost"), 0)
        self._rules: dict[str, Rule] = {}
        self._held: list[_Held] = []

    @property
    def bit(self) -> bool:
        """Whether anything did not simply pass."""
        counters = self.counters
        return counters["seen"] > counters["passed"] or counters["released"] > 0

    @property
    def held(self) -> tuple[Message, ...]:
        """What waits, oldest first."""
        return tuple(waiting.message for waiting in self._held)

    def rules(self) -> Mapping[str, Rule]:
        """The rules that were made so far, by name."""
        return self._rules

    def release(self) -> int:
        """Let everything that is held go on now, oldest first; how many there were."""
        waiting, self._held = self._held, []
        for rule in self._rules.values():
            emptied = getattr(rule, "emptied", None)
            if emptied is not None:
                emptied()
        self.counters["released"] += len(waiting)
        for held in waiting:
            self._set.resume(self, held)
        return len(waiting)

    def remove(self, *, release: bool = True) -> None:
        """Take it away; what it holds goes on, or is lost.  What it delayed is still on its way."""
        self._set.detach(self)
        if release:
            self.release()
        else:
            self.counters["lost"] += len(self._held)
            self._held.clear()

    def rule_for(self, group: int, message: Message) -> Rule:
        name = self.filter.name_of_rule(group, message)
        rule = self._rules.get(name)
        if rule is None:
            rule = self._rules[name] = self.filter.make(name)
        return rule

    def hold(self, held: _Held) -> None:
        self._held.append(held)

    def take_held(self, message: Message) -> _Held | None:
        """The oldest that holds this very message."""
        for at, held in enumerate(self._held):
            if held.message is message:
                return self._held.pop(at)
        return None


class FilterSet:
    """All filters of one network, or of one node's transport.

    now_us: the time.  schedule(delay_us, callback): has the callback run so much later.
    `sending` and `receiving` are false where no filter is on that side: ask before calling `send` or `receive`.
    """

    __slots__ = ("_chains", "_now_us", "_number", "_schedule", "receiving", "sending")

    def __init__(self, now_us: Callable[[], int], schedule: Schedule) -> None:
        self._now_us = now_us
        self._schedule = schedule
        self._number = 0
        self._chains: dict[str, tuple[ActiveFilter, ...]] = {"send": (), "receive": ()}
        self.sending = self.receiving = False

    def attach(self, described: Filter) -> ActiveFilter:
        """Put it behind those that are there."""
        self._number += 1
        active = ActiveFilter(self, self._number, described)
        self._set_chain(described.side, (*self._chains[described.side], active))
        return active

    def detach(self, active: ActiveFilter) -> None:
        side = active.filter.side
        self._set_chain(side, tuple(other for other in self._chains[side] if other is not active))

    def clear(self) -> None:
        """Remove all, releasing what they hold."""
        for active in self.active():
            active.remove()

    def active(self) -> tuple[ActiveFilter, ...]:
        """In the order in which they were attached."""
        return tuple(sorted((a for chain in self._chains.values() for a in chain), key=lambda active: active.number))

    def send(self, group: int, message: Message, deliver: Deliver) -> None:
        """Have the filters of the sending side judge it; `deliver` gets what goes on, now or later, with its group."""
        self._run("send", 0, _Held(group, message, deliver, ()))

    def receive(self, group: int, message: Message, deliver: Deliver) -> None:
        """As `send`, on the receiving side."""
        self._run("receive", 0, _Held(group, message, deliver, ()))

    def resume(self, behind: ActiveFilter, held: _Held) -> None:
        """Let a message go on behind a filter that let it go."""
        self._run(behind.filter.side, behind.number, held)

    def _set_chain(self, side: str, chain: tuple[ActiveFilter, ...]) -> None:
        self._chains[side] = chain
        self.sending, self.receiving = bool(self._chains["send"]), bool(self._chains["receive"])

    def _run(self, side: str, behind: int, under_way: _Held) -> None:
        for active in self._chains[side]:
            if active.number <= behind or not active.filter.sees(under_way.group, under_way.message):
                continue
            rule = active.rule_for(under_way.group, under_way.message)
            verdict = rule(under_way.message, self._now_us())
            counters = active.counters
            counters["seen"] += 1
            if hasattr(rule, "after"):
                under_way.watchers = (*under_way.watchers, rule)
            if verdict.kind == PASSED:
                counters["passed"] += 1
                continue
            self._carry_out(active, verdict, under_way)
            return
        under_way.deliver(under_way.group, under_way.message)
        for rule in under_way.watchers:
            rule.after(under_way.message)

    def _carry_out(self, active: ActiveFilter, verdict: Verdict, under_way: _Held) -> None:
        counters, kind = active.counters, verdict.kind
        for message in verdict.lost:
            counters["lost"] += active.take_held(message) is not None
        if kind == DROPPED:
            counters["dropped"] += 1
        elif kind == DELAYED:
            counters["delayed"] += 1
            self._schedule(verdict.delay_us, lambda: self.resume(active, under_way))
        elif kind == HELD:
            counters["held"] += 1
            self._go_on(active, verdict, under_way)
            active.hold(under_way)
        elif kind == REPLACED:
            counters["replaced"] += 1
            self._go_on(active, verdict, under_way)
        else:
            assert kind == COPIED, kind
            counters["copied"] += 1
            self.resume(active, under_way)
            self._go_on(active, verdict, under_way)

    def _go_on(self, active: ActiveFilter, verdict: Verdict, under_way: _Held) -> None:
        """Each message of the verdict: a held one is released to where it was going, another one goes with this one."""
        for message in verdict.messages:
            held = active.take_held(message)
            if held is not None:
                active.counters["released"] += 1
            else:
                held = _Held(under_way.group, message, under_way.deliver, under_way.watchers)
            self.resume(active, held)

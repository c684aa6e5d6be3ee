"""Where a node's messages leave: what they promise is checked, filters judge them, links carry them.

Rule: a promise is looked at in the moment in which it is sent.  Knows nothing of why messages are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seatrial.raft.messages import AppendEntriesResponse
from seatrial.sim.core.ledger import PROMISES, Ledger, Watch
from seatrial.sim.core.network import Link
from seatrial.transport.filters import FilterSet


class Outbox:
    """Of one node.  all_links: by (sender, receiver); a filter may let messages of other nodes go on."""

    __slots__ = ("_all_links", "_filters", "_ledger", "_links", "_watch")

    def __init__(
        self, watch: Watch, ledger: Ledger, filters: FilterSet, all_links: Mapping[tuple[int, int], Link]
    ) -> None:
        self._watch = watch
        self._ledger = ledger
        self._filters = filters
        self._all_links = all_links
        self._links = {to: link for (sender, to), link in all_links.items() if sender == watch.node_id}

    def send(self, messages: list[Any], leads: bool) -> None:
        """leads: a leader promises nothing but its commits, which the ledger sees otherwise."""
        if not leads:
            for message in messages:
                if type(message) is AppendEntriesResponse:
                    if message.success:
                        self._ledger.acknowledged(self._watch, message.match_index, message.term)
                elif type(message) in PROMISES:
                    self._ledger.promised(self._watch, message)
        if self._filters.sending:
            for message in messages:
                self._filters.send(0, message, self._pass_on)
            return
        links = self._links
        for message in messages:
            link = links.get(message.to)
            if link is not None:
                link.send(message)

    def _pass_on(self, _: int, message: Any) -> None:
        """A filter let it go on: over the link of whoever it says it is from."""
        link = self._all_links.get((message.sender, message.to))
        if link is not None:
            link.send(message)

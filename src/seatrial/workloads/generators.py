"""Decides what the clients of a register do next: reads, writes and compare-and-sets over keys that rotate.

Rule: every choice comes from the generator's own stream, and no value is written twice, so that a read names the
write it saw.  Knows nothing of clients or clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

from seatrial.env import Rng
from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request

READ, WRITE = 0.4, 0.45  # shares; the rest are compare-and-sets


@dataclass(slots=True)
class _Key:
    name: str
    operations: int = 0
    latest: Json = None  # the last value that any client saw or wrote here: a guess, never a claim


class RegisterGenerator:
    """Mixes reads, writes and compare-and-sets over `active` keys; a key is replaced after `per_key` operations.
    `reads` is the share of reads; of the rest, writes have the same share whatever it is.

    Bounded histories per key keep every check near-linear, whatever the run's length.
    """

    def __init__(self, rng: Rng, *, prefix: str, active: int = 5, per_key: int = 300, reads: float = READ) -> None:
        self._rng = rng
        self._reads = reads
        self._writes = WRITE * (1 - reads) / (1 - READ)
        self._prefix = prefix
        self._per_key = per_key
        self._values = 0
        self._keys: dict[str, _Key] = {}
        self._active = [self._new_key() for _ in range(active)]

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that was ever used, in the order of first use."""
        return tuple(self._keys)

    def next(self, client: int) -> Request:
        key = self._pick()
        draw = self._rng.random()
        if draw < self._reads:
            return Request(f="read", key=key.name)
        value = self.fresh_value()
        if draw < self._reads + self._writes or key.latest is None:
            return Request(f="write", key=key.name, value=value)
        return Request(f="cas", key=key.name, value=[key.latest, value])

    def fresh_value(self) -> int:
        """One that was never written."""
        self._values += 1
        return self._values

    def completed(self, request: Request, completion: Completion) -> None:
        if completion.type is OpType.OK and request.key in self._keys:
            value = completion.value
            self._keys[request.key].latest = value[1] if request.f == "cas" else value

    def _pick(self) -> _Key:
        place = self._rng.integer(0, len(self._active) - 1)
        key = self._active[place]
        if key.operations >= self._per_key:
            key = self._active[place] = self._new_key()
        key.operations += 1
        return key

    def _new_key(self) -> _Key:
        key = _Key(f"{self._prefix}{len(self._keys)}")
        self._keys[key.name] = key
        return key

"""A directed link between two simulated hosts: how long bytes take, and what faults do to them.

    undo = link.impose("delay", 5_000)
    ...
    undo()

Rule: each link draws from its own stream, and as often for each segment whatever is imposed, so that neither a fault
nor another link moves its draws.  What is imposed several times holds until the last one is undone.
Knows nothing of connections (`tcp`): it tells those that asked when it opens again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from seatrial.sim.case import Network
from seatrial.sim.world import World

if TYPE_CHECKING:
    from seatrial.sim.tcp import Direction

MILLION: Final = 1_000_000
DELAY_US_MIN: Final = 60  # more than a host may run ahead of the world
TAIL: Final = (10, 50)  # times as long
RETRANSMIT_US: Final = 200_000  # Linux's shortest retransmission timeout
LOSSES_MAX: Final = 6  # of one segment
LOOPBACK: Final = Network(delay_us=(10, 30), tail=0.0, split=0.0)

BLOCKING: Final = ("cut", "clog")
IMPOSABLE: Final = (*BLOCKING, "delay", "loss", "bandwidth", "split")


class Link:
    """What is sent from one host to another.

    evidence: by the kind of fault, how often it did something; also "reset" and "half-open", which hit connections.
    blocked: nothing passes.  pieces: the most bytes in a piece; 0 without a limit.
    """

    def __init__(self, world: World, source: str, target: str, settings: Network) -> None:
        self.name = f"{source}>{target}"
        self.settings = LOOPBACK if source == target else settings
        self.evidence: dict[str, int] = {}
        self.segments = 0
        self.bytes = 0
        self.blocked = False
        self.pieces = 0
        self.directions: dict[Direction, None] = {}  # of the connections that are open
        self._local = source == target
        self._world = world
        self._random = world.stream(f"link {self.name}").random
        self._imposed: dict[str, list[float]] = {kind: [] for kind in IMPOSABLE}
        self._was_cut = False  # since it was last open
        self._extra_us = 0
        self._loss = self.settings.loss
        self._bytes_a_second = 0.0
        self._free_us = 0  # when a slow link will have sent what was given to it

    def impose(self, kind: str, value: float = 0) -> Callable[[], None]:
        """Do this to the link, from now on until what is returned is called (once or more).

        cut: nothing passes, and is sent again some time after the end; clog: nothing passes, and all of it does at once
        at the end; delay: µs more; loss: probability that a segment has to be sent again; bandwidth: bytes a second;
        split: the most bytes in a piece.

        Raises:
            KeyError: there is no such kind.
        """
        values = self._imposed[kind]
        values.append(value)
        self._settle()
        undone = False

        def undo() -> None:
            nonlocal undone
            if not undone:
                undone = True
                values.remove(value)
                self._settle()

        return undo

    def clear(self) -> None:
        """End everything that was imposed."""
        for kind in IMPOSABLE:
            self._imposed[kind] = []
        self._settle()

    def calm(self) -> None:
        """From now on it loses nothing by itself, and nothing takes long by chance."""
        self.settings = msgspec.structs.replace(self.settings, loss=0.0, tail=0.0)
        self._settle()

    def is_imposed(self, kind: str) -> bool:
        return bool(self._imposed[kind])

    def bit(self, kind: str, times: int = 1) -> None:
        """A fault of this kind did something."""
        self.evidence[kind] = self.evidence.get(kind, 0) + times

    def hold(self) -> None:
        """A segment could not pass; the fault that it was is noted."""
        for kind in BLOCKING:
            if self._imposed[kind]:
                self.bit(kind)

    def _settle(self) -> None:
        imposed = self._imposed
        self._extra_us = int(sum(imposed["delay"]))
        self._loss = max(self.settings.loss, *imposed["loss"], 0.0)
        self._bytes_a_second = min(imposed["bandwidth"], default=0.0)
        self.pieces = int(min(imposed["split"], default=0))
        was_blocked = self.blocked
        self.blocked = bool(imposed["cut"] or imposed["clog"])
        self._was_cut = self._was_cut or bool(imposed["cut"])
        if was_blocked and not self.blocked:
            burst, self._was_cut = not self._was_cut, False
            for direction in list(self.directions):
                direction.link_opened(burst=burst)

    def least_delay_us(self) -> int:
        """How long something small takes when nothing goes wrong by chance: no draw is made for it."""
        return self._at_least(self.settings.delay_us[0]) + self._extra_us

    def transit(self, size: int) -> tuple[int, int]:
        """How long a segment of so many bytes takes, in µs, and where it is cut in two (0: nowhere)."""
        random, settings = self._random, self.settings
        now, tail, lost, split = random(), random(), random(), random()
        delay_us = self._travel_us(now, tail, size)
        if lost < self._loss:
            delay_us += self._sent_again_us(lost)
        if self._bytes_a_second:
            delay_us += self._queued_us(size)
        cut_at = 1 + int(split / settings.split * (size - 1)) if size > 1 and split < settings.split else 0
        return delay_us, cut_at

    def datagram_transit(self, size: int) -> int | None:
        """How long a datagram of so many bytes takes, in µs; None where it is lost, for nobody sends it again."""
        random = self._random
        now, tail, lost, _ = random(), random(), random(), random()
        if self.blocked:
            self.hold()
            return None
        delay_us = self._travel_us(now, tail, size)
        if lost < self._loss:
            if self._imposed["loss"]:
                self.bit("loss")
            return None
        return delay_us + self._queued_us(size) if self._bytes_a_second else delay_us

    def _travel_us(self, now: float, tail: float, size: int) -> int:
        """By two draws: how long it takes, but for what is lost and what waits before it."""
        low, high = self.settings.delay_us
        delay_us = low + int((high - low) * now)
        if tail < self.settings.tail:
            delay_us *= TAIL[0] + int((TAIL[1] - TAIL[0]) * (tail / self.settings.tail))
        if delay_us < DELAY_US_MIN and not self._local:
            delay_us = DELAY_US_MIN
        self.segments += 1
        self.bytes += size
        if self._extra_us:
            delay_us += self._extra_us
            self.bit("delay")
        return delay_us

    def _at_least(self, delay_us: int) -> int:
        return delay_us if self._local or delay_us > DELAY_US_MIN else DELAY_US_MIN

    def _sent_again_us(self, lost: float) -> int:
        """One draw decides how often in a row it is lost: n times with probability loss^n."""
        losses, probability = 1, self._loss * self._loss
        while lost < probability and losses < LOSSES_MAX:
            losses += 1
            probability *= self._loss
        if self._imposed["loss"]:
            self.bit("loss", losses)
        return RETRANSMIT_US * ((1 << losses) - 1)

    def _queued_us(self, size: int) -> int:
        now_us = self._world.now_us
        start_us = max(now_us, self._free_us)
        self._free_us = start_us + int(size * MILLION / self._bytes_a_second)
        if self._free_us - now_us > DELAY_US_MIN:
            self.bit("bandwidth")
        return self._free_us - now_us

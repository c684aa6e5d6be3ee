"""The signals of a simulated process: handlers that it installed, and sending it one.

Rule: no handler reaches the real process.  A signal without a handler ends the simulated process, as SIGTERM and SIGINT
do; SIGKILL is `SimHost.crash(power=False)`, SIGSTOP and SIGCONT are `pause` and `resume`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seatrial.sim.hosts import SimHost


class Signals:
    """What `signal.signal` and `loop.add_signal_handler` installed on one host since it started."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._installed: dict[int, Any] = {}
        self._on_loop: dict[int, Callable[[], object]] = {}

    def install(self, number: int, handler: Any) -> Any:
        """`signal.signal`: the handler that was there before."""
        before = self.installed(number)
        self._installed[int(number)] = handler
        return before

    def installed(self, number: int) -> Any:
        return self._installed.get(int(number), signal.SIG_DFL)

    def on_loop(self, number: int, callback: Callable[[], object]) -> None:
        self._on_loop[int(number)] = callback

    def remove(self, number: int) -> bool:
        return self._on_loop.pop(int(number), None) is not None

    def send(self, number: int) -> None:
        """As `kill -NUMBER` would; without a handler the process ends."""
        on_loop, handler = self._on_loop.get(int(number)), self.installed(number)
        if on_loop is not None:
            on_loop()
        elif callable(handler):
            self._host.call(handler, int(number), None)
        elif handler is not signal.SIG_IGN:
            self._host.crash(power=False)

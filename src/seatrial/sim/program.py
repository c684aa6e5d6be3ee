"""Any asyncio program in the simulator: `simulate(main, seed=7)` instead of `asyncio.run(main())`.

    async def main(network: SimNetwork) -> None:
        server, client = network.add_host("server"), network.add_host("client")
        server.spawn(serve())
        await client.run(ask("server", 80))
        server.crash(power=True)
        await asyncio.sleep(1)
        ...

`main` is simulated as well, on a host of its own: it sees all hosts, and plays the operator and the weather.
Rule: what a program did not catch is not lost: it comes out of `simulate`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from seatrial.sim.case import Network
from seatrial.sim.network import SimNetwork, run
from seatrial.sim.trace import Sink, Trace
from seatrial.sim.world import World

T = TypeVar("T")

OPERATOR: Final = "operator"
DEADLINE_S: Final = 3600.0


class NotFinished(Exception):
    """`main` did not end: either nothing is left that could happen, or the deadline of virtual time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated(Generic[T]):
    """What `main` returned, and the run's digest: equal for equal programs and seeds in pinned processes."""

    value: T
    digest: str
    virtual_us: int
    callbacks: int


def simulate(
    main: Callable[[SimNetwork], Coroutine[Any, Any, T]],
    *,
    seed: int,
    network: Network | None = None,
    deadline_s: float = DEADLINE_S,
    sink: Sink | None = None,
) -> Simulated[T]:
    """Run `main` on virtual time until it returns, and everything that it spawned with it.

    seed: decides every delay, loss and random number.  network: delays and damage of every link.  deadline_s: of
    virtual time.  sink: is given the trace, in blocks of lines.

    Raises:
        NotFinished: main did not return.
        Exception: what main raised, or else what the first spawned program raised that failed.
    """
    world = World(seed)
    simulated = SimNetwork(world, network, trace=Trace(sink))
    task = simulated.add_host(OPERATOR).spawn(main(simulated), name="main")
    finished = run(world, int(deadline_s * 1e6), until=task)
    digest = simulated.trace.digest()
    if finished:
        value = task.result()
    if simulated.failures:
        raise simulated.failures[0]
    if not finished:
        raise NotFinished(f"main did not return within {deadline_s:g} s of virtual time; it waits at {_where(task)}")
    return Simulated(value=value, digest=digest, virtual_us=world.now_us, callbacks=simulated.callbacks)


def _where(task: Any) -> str:
    frames = task.get_stack(limit=1)
    return f"{frames[-1].f_code.co_qualname}, line {frames[-1].f_lineno}" if frames else "an unknown place"

"""Where the `seatrial` command begins: a node and a proxy start without the cost of importing the rest.

Rule: nothing is imported here that `serve` does not need; boot time is part of what users see.
"""

from __future__ import annotations

import sys
from typing import Final, NoReturn

INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells have it


def main() -> NoReturn:
    """Run the command in sys.argv and exit with its status."""
    if not __debug__:
        sys.exit("seatrial refuses to run under python -O: its assertions guard the data")
    command, rest = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if command == "serve":
        from seatrial.server.process import main as serve

        sys.exit(serve(rest))
    if command == "proxy":
        from seatrial.cluster.proxy.process import main as proxy

        sys.exit(proxy(rest))
    try:
        from seatrial.cli import main as cli
    except KeyboardInterrupt:  # in the half second that this may take on a busy machine
        print("seatrial: interrupted before anything was started", file=sys.stderr)
        sys.exit(INTERRUPTED)
    cli()

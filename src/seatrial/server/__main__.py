"""`python -m seatrial.server`: one node, without the cost of importing the rest of the command line."""

from __future__ import annotations

import sys

from seatrial.server.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m seatrial.cluster.proxy`: the proxy server alone."""

import sys

from seatrial.cluster.proxy.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

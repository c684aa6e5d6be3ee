"""A Toxiproxy-compatible TCP proxy, with what Toxiproxy lacks, and the client that drives either.

`python -m seatrial.cluster.proxy` is the server; `seatrial.cluster.proxy.client` is the client.  Nothing is
re-exported here, so that a program that needs one of them does not pay for loading the other.
"""

"""What a consumer demands of the age of what it is shown, said in the one text that every Kafka client sends along.

    client.id=billing?read=linearizable      all that was acknowledged before the fetch came
    client.id=billing?read=500ms             all that was acknowledged 500 ms before the fetch came

Rule: an id without "?read=" demands nothing beyond the broker's own bound; one with a demand that cannot be understood
is an error, and never read as none.  (The rack would do as well, but assignors compare it with the brokers': KIP-881.)
Knows nothing of how a demand is met.
"""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "?read="
LINEARIZABLE: Final = "linearizable"
_AGE: Final = re.compile(r"(\d{1,7})(ms|s)")
_US: Final = {"ms": 1_000, "s": 1_000_000}


class BadDemand(ValueError):
    """The client id has a demand that makes no sense; the message says what to write."""


def demanded_age_us(client_id: str | None) -> int | None:
    """How old, in microseconds, what is shown may be when the fetch comes; None: nothing is demanded.

    Raises BadDemand.
    """
    if client_id is None or MARK not in client_id:
        return None
    text = client_id.rpartition(MARK)[2]
    if text == LINEARIZABLE:
        return 0
    found = _AGE.fullmatch(text)
    if found is None:
        raise BadDemand(
            f"client.id {client_id!r}: after {MARK!r} write {LINEARIZABLE}, or an age such as 500ms or 2s, not {text!r}"
        )
    return int(found[1]) * _US[found[2]]

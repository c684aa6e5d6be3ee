"""Toxics: the catalogue of types, one toxic's settings, and reading both from JSON.

Rule: JSON shapes, defaults and refusals are Toxiproxy's; `caller` and the types marked ours are additions
that its clients never see unless they use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from seatrial.cluster.proxy import breaks, delays
from seatrial.cluster.proxy.counters import ToxicCounters
from seatrial.cluster.proxy.errors import bad_request_body, invalid_stream, invalid_toxic_type
from seatrial.cluster.proxy.stages import Host, Stage
from seatrial.env import Rng

STREAMS = ("upstream", "downstream")


class ToxicType(NamedTuple):
    """How a toxic acts, and its attributes with their defaults (an integer default admits integers only)."""

    stage: type[Stage]
    defaults: Mapping[str, int | float]
    ours: bool = False


TYPES: Mapping[str, ToxicType] = {
    "noop": ToxicType(Stage, {}),
    "latency": ToxicType(delays.Latency, {"latency": 0, "jitter": 0}),
    "bandwidth": ToxicType(delays.Bandwidth, {"rate": 0}),
    "slow_close": ToxicType(delays.SlowClose, {"delay": 0}),
    "timeout": ToxicType(breaks.Timeout, {"timeout": 0}),
    "reset_peer": ToxicType(breaks.ResetPeer, {"timeout": 0}),
    "slicer": ToxicType(delays.Slicer, {"average_size": 0, "size_variation": 0, "delay": 0}),
    "limit_data": ToxicType(breaks.LimitData, {"bytes": 0}),
    "hold": ToxicType(delays.Hold, {}, ours=True),
    "clog": ToxicType(delays.Clog, {"duration": 1000, "interval": 0}, ours=True),
    "stall": ToxicType(delays.Stall, {"probability": 0.0, "duration": 200}, ours=True),
    "corrupt": ToxicType(breaks.Corrupt, {"bytes": 0}, ours=True),
    "half_open": ToxicType(breaks.HalfOpen, {}, ours=True),
}


class Toxic:
    """One toxic of one proxy.  `ordinal` counts the proxy's toxics, so that a toxic added again rolls
    anew.
    """

    def __init__(
        self,
        *,
        name: str,
        type_name: str,
        stream: str,
        toxicity: float,
        attributes: dict[str, int | float],
        caller: str | None,
    ) -> None:
        assert type_name in TYPES, type_name
        assert stream in STREAMS, stream
        self.name = name
        self.type_name = type_name
        self.stream = stream
        self.toxicity = toxicity
        self.attributes = attributes
        self.caller = caller
        self.ordinal = 0
        self.counters = ToxicCounters()

    def acts_on(self, *, rng: Rng, connection: int, caller: str | None) -> bool:
        """Whether this connection gets it: decided by the proxy's seed, so an update of the toxicity never
        re-rolls.
        """
        if self.caller is not None and self.caller != caller:
            return False
        # The draw costs some microseconds; the usual toxicity of 1 needs none.
        return self.toxicity >= 1 or self._rng(rng, connection).child("toxicity").random() < self.toxicity

    def stage(self, *, rng: Rng, connection: int, host: Host) -> Stage:
        return TYPES[self.type_name].stage(self, host, self._rng(rng, connection))

    def _rng(self, rng: Rng, connection: int) -> Rng:
        return rng.child(f"{self.name}/{self.ordinal}/{connection}")

    def update(self, body: object) -> bool:
        """Take over `attributes` and `toxicity` from a JSON object; everything else in it is ignored.

        Returns whether an attribute changed.  Raises ApiError, with nothing changed, if a value is of a wrong
        type.
        """
        fields = json_object(body)
        before = self.attributes
        attributes = read_attributes(self.type_name, fields.get("attributes"), before)
        self.toxicity = read_toxicity(fields, self.toxicity)
        self.attributes = attributes
        return attributes != before

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "attributes": self.attributes,
            "name": self.name,
            "type": self.type_name,
            "stream": self.stream,
            "toxicity": self.toxicity,
        }
        if self.caller is not None:
            shown["caller"] = self.caller
        return shown


def toxic_from_json(body: object) -> Toxic:
    """Read a toxic as `POST /proxies/{proxy}/toxics` takes it.  Raises ApiError that says what is wrong."""
    fields = json_object(body)
    type_name = read_string(fields, "type")
    stream = read_string(fields, "stream", "downstream").lower()
    caller = read_string(fields, "caller") or None
    toxicity = read_toxicity(fields, 1.0)
    if stream not in STREAMS:
        raise invalid_stream()
    if type_name not in TYPES:
        raise invalid_toxic_type()
    default_name = f"{type_name}_{stream}" if caller is None else f"{type_name}_{stream}_{caller}"
    return Toxic(
        name=read_string(fields, "name") or default_name,
        type_name=type_name,
        stream=stream,
        toxicity=toxicity,
        attributes=read_attributes(type_name, fields.get("attributes"), TYPES[type_name].defaults),
        caller=caller,
    )


def json_object(body: object) -> dict[str, Any]:
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise bad_request_body(f"a JSON object is needed here, not {describe(body)}")
    return body


def read_string(fields: Mapping[str, Any], key: str, default: str = "") -> str:
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise bad_request_body(f"{key} must be a string, not {describe(value)}")
    return value


def read_toxicity(fields: Mapping[str, Any], default: float) -> float:
    value = fields.get("toxicity")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request_body(f"toxicity must be a number from 0 to 1, not {describe(value)}")
    return value


def read_attributes(type_name: str, given: object, current: Mapping[str, int | float]) -> dict[str, int | float]:
    """`current` with the known attributes of `given` put over it; unknown ones are ignored, as Toxiproxy
    does.
    """
    attributes = dict(current)
    for key, default in TYPES[type_name].defaults.items():
        value = json_object(given).get(key)
        if value is None:
            continue
        wanted = (int, float) if isinstance(default, float) else (int,)
        if isinstance(value, bool) or not isinstance(value, wanted):
            kind = "a number" if isinstance(default, float) else "an integer"
            raise bad_request_body(f"attributes.{key} of {type_name} must be {kind}, not {describe(value)}")
        attributes[key] = value
    return attributes


def describe(value: object) -> str:
    """A JSON value's kind, in words."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else "an object"

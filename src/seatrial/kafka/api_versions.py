"""ApiVersions: the first request of nearly every client.

Rule: a client that is too new still gets an answer that it can read (version 0, error 35, all ranges: KIP-511).
Knows nothing of other requests but what the table in `apis` says.
"""

from __future__ import annotations

import re
from typing import Any, Final

from seatrial.kafka.apis import APIS
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.errors import ErrorCode

_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")


def api_versions(call: Call) -> Any:
    """All served requests; INVALID_REQUEST for a client software name that Kafka would refuse as well."""
    request = call.request
    if call.version >= 3:
        name, version = request.client_software_name, request.client_software_version
        if not _SOFTWARE.fullmatch(name) or not _SOFTWARE.fullmatch(version):
            return message("ApiVersionsResponse").new(error_code=ErrorCode.INVALID_REQUEST)
        call.client.software = f"{name}/{version}"
    return _response(ErrorCode.NONE)


def unsupported_api_versions() -> Any:
    """The answer, to be sent as version 0, to an ApiVersions request of a version that is not served."""
    return _response(ErrorCode.UNSUPPORTED_VERSION)


def _response(error: ErrorCode) -> Any:
    codec = message("ApiVersionsResponse")
    api = codec.structure("ApiVersion")
    ranges = [
        api(api_key=int(row.key), min_version=row.min_advertised, max_version=row.max_served)
        for row in sorted(APIS.values(), key=lambda row: row.key)
    ]
    return codec.new(error_code=error, api_keys=ranges)

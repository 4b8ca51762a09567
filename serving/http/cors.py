"""Pages of other origins that may call this service from a browser (CORS, as the Fetch standard says it); none, unless
they are named.

Keys travel in header fields, never in cookies, so that credentials in the sense of browsers are allowed to nobody, and
`*` is no danger where keys are configured. All header fields are made once.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from serving.http.problems import Headers

ANY = "*"
ORIGINS_MAX = 64
MAX_AGE_SECONDS = 7_200
"""How long a browser may remember the answer to a preflight; Chrome's own bound."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_EXPOSED = (b"access-control-expose-headers", b"ETag, Retry-After, Server-Timing, X-Request-Id")
_ASKED = (b"access-control-allow-headers", b"authorization, content-type, if-none-match, x-api-key, x-request-id")
_VARY = (b"vary", b"Origin")


def is_origin(text: str) -> bool:
    """Return whether a text is an origin as browsers send it: scheme, host in lower case, port where it is not the
    scheme's own; no path.
    """
    return _ORIGIN.fullmatch(text) is not None and not text.endswith(":80" if text.startswith("http:") else ":443")


class Origins:
    """What the answers to browsers carry.

    Args:
        allowed: origins, each as `is_origin` wants it; or `ANY` alone.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self.any = ANY in allowed
        self.tails: dict[bytes | None, Headers] = {}
        """By the `Origin` of a request that is allowed, the header fields of every answer to it."""
        self.otherwise: Headers = [(b"access-control-allow-origin", b"*"), _EXPOSED] if self.any else [_VARY]
        """Those of the answers to all others."""
        if not self.any:
            self.tails = {
                one.encode(): [(b"access-control-allow-origin", one.encode()), _EXPOSED, _VARY] for one in allowed
            }

    def permission(self, methods: Collection[str], origin: bytes | None) -> Headers:
        """Return what the answer to a preflight carries besides: nothing that permits, where the origin may not
        call.
        """
        allow = ", ".join(sorted(methods)).encode()
        if not self.any and origin not in self.tails:
            return [(b"allow", allow)]
        age = (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS)
        return [
            (b"allow", allow),
            (b"access-control-allow-methods", allow),
            _ASKED,
            age,
            (b"cache-control", b"no-store"),
        ]

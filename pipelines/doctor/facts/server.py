"""Facts of the doctor from a running server, by its answers."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from features.common.clock import system_s
from pipelines.doctor.facts.facts import ServerFacts

ANSWER_SECONDS_MAX = 5.0
SAID_CHARACTERS_MAX = 200
METRICS_BYTES_MAX = 8 << 20
KEY_VARIABLE = "OPPORTUNE_KEY"

_SERIES = re.compile(r"^(opportune_(?:bundle_info|arm_decisions_total|arm_exposures_total))\{(.*)\} ([0-9.e+]+)$", re.M)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def server(url: str | None) -> ServerFacts | str:
    """Return what a server answers: whether it is ready, whether it is open to whoever has no key, its clock and its
    metrics.
    """
    if url is None:
        return "no server was named: give --url"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"expected an address like http://127.0.0.1:3000, got {url!r}"
    address = f"{parts.scheme}://{parts.netloc}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def ask(method: str, path: str, body: bytes | None = None, key: str = "") -> tuple[int, str, str]:
        connection = kind(str(parts.hostname), parts.port, timeout=ANSWER_SECONDS_MAX)
        try:
            headers = ({} if body is None else {"content-type": "application/json"}) | (
                {"x-api-key": key} if key else {}
            )
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return (
                answer.status,
                answer.read(METRICS_BYTES_MAX).decode(errors="replace"),
                answer.getheader("date") or "",
            )
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error), ""
        finally:
            connection.close()

    status, said, date = ask("GET", "/readyz")
    ahead = parsedate_to_datetime(date).timestamp() - system_s() if date else None
    refused = ask("POST", "/v1/decisions", b"{}")[0] in (401, 403)
    told, metrics, _ = ask("GET", "/metrics", key=os.environ.get(KEY_VARIABLE, ""))
    bundles, arms = _metrics(metrics if told == 200 else "")
    answers = (bool(status) and not refused, ahead, told, bundles, arms)
    return ServerFacts(address, _is_loopback(str(parts.hostname)), status, said[:SAID_CHARACTERS_MAX], *answers)


def _metrics(text: str) -> tuple[tuple[str, ...], dict[str, tuple[float, float]]]:
    """Return the bundles that workers serve, and by experiment the decisions of its units and the exposures among
    them.
    """
    bundles, arms = dict[str, None](), dict[str, tuple[float, float]]()
    for name, labels, value in _SERIES.findall(text):
        given = dict(_LABEL.findall(labels))
        if name == "opportune_bundle_info":
            bundles[given.get("bundle", "")] = None
            continue
        decisions, exposures = arms.get(given.get("experiment", ""), (0.0, 0.0))
        more = float(value)
        is_decision = name == "opportune_arm_decisions_total"
        arms[given.get("experiment", "")] = (
            (decisions + more, exposures) if is_decision else (decisions, exposures + more)
        )
    return tuple(bundles), arms


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(OSError):
        return all(
            str(found[4][0]).startswith("127.") or found[4][0] == "::1" for found in socket.getaddrinfo(host, None)
        )
    return False

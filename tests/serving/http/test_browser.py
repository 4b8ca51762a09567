"""CORS as a browser sees it, where there is one."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.http.cors import Origins
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS

SHOP, APP, THIEF = "https://shop.example", "http://localhost:5173", "https://thief.example"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")

PAGE = """<!doctype html><body><script type="module">
const ask = async (method, path, headers, body) => {
  try {
    const answer = await fetch("http://127.0.0.1:%(port)d" + path, { method, headers, body });
    const names = ["x-request-id", "server-timing", "www-authenticate"].filter((name) => answer.headers.get(name));
    return [answer.status, names, (await answer.text()).length > 0];
  } catch (error) { return [error.name]; }
};
const typed = { "content-type": "application/json" }, key = { "x-api-key": "%(key)s" };
const good = JSON.stringify({ customer_id: "1042", placement: "checkout" });
const told = [
  await ask("POST", "/v1/decisions", { ...typed, ...key }, good),
  await ask("POST", "/v1/decisions", { ...typed, authorization: "Bearer %(key)s" }, good),
  await ask("POST", "/v1/decisions", typed, good),
  await ask("POST", "/v1/decisions", { ...typed, ...key }, '{"x":1}'),
  await ask("POST", "/v1/decisions", { ...typed, ...key, "x-other": "1" }, good),
  await ask("GET", "/metrics", {}, undefined),
];
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>"""
READ = [
    [200, ["x-request-id", "server-timing"], True],
    [200, ["x-request-id", "server-timing"], True],
    [401, ["x-request-id"], True],
    [422, ["x-request-id"], True],
    ["TypeError"],
    ["TypeError"],
]


@contextlib.contextmanager
def site() -> Iterator[tuple[int, list[str], queue.Queue[Any]]]:
    """A web site: its port, its one page, the last of the list, and what the page tells it."""
    pages: list[str] = []
    told: queue.Queue[Any] = queue.Queue()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(pages[-1].encode())

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: the test looks at what the page says."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port, pages, told
        finally:
            server.shutdown()


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="CORS in a browser: no Chromium is on the PATH")
def test_in_a_browser(tmp_path: Path) -> None:
    """A page of an allowed origin reads answers and refusals, but not with other header fields; one of another origin
    reads nothing.
    """
    program = next(found for name in BROWSERS if (found := shutil.which(name)))
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    with site() as (at, pages, told):
        address = f"http://localhost:{at}"
        for number, (origin, expected) in enumerate(((address, READ), (SHOP, [["TypeError"]] * len(READ)))):
            with edge.served(edge.front_door(edge.all_keys(), origins=Origins([origin]))) as port:
                pages.append(PAGE % {"port": port, "key": ROLE_KEYS["decide"]})
                with (tmp_path / "said").open("wb") as said:
                    browser = subprocess.Popen(
                        [*command, f"--user-data-dir={tmp_path / str(number)}", address], stdout=said, stderr=said
                    )
                try:
                    assert told.get(timeout=90) == expected, (tmp_path / "said").read_text()
                finally:
                    browser.terminate()
                    browser.wait(30)

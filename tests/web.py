"""HTTP servers in a thread of the test's process, so that downloads are tested without a network."""

import contextlib
import http.server
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach servers of this machine directly, whatever proxies it has."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # which keeps the proxies that it first saw


@contextlib.contextmanager
def served(handler: Callable[..., Any]) -> Iterator[str]:
    """The URL of a server that lets such a handler answer, for a `with` block."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

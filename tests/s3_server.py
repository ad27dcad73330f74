"""moto's S3 server, started by `tests/stores.py` as a process: `python tests/s3_server.py PORT`.

moto looks whether an object exists and writes it in two steps, a store in one. So one request is answered at a time.
Buckets stand for several kinds of stores, by the beginning of their names: see `KINDS`.
"""

import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

KINDS = {
    "bucket": "as AWS",
    "busy": "answers the first conditional write of each name with status 409, as AWS while another one is in progress",
    "ignoring": "without conditional writes",
    "refusing": "answers conditional writes with status 501",
}
CONDITION = "HTTP_IF_NONE_MATCH"

Answer = Iterable[bytes]


def refusal(start: Callable[..., Any], status: str, code: str) -> Answer:
    start(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>{status}</Message></Error>".encode()]


def in_turn(application: Callable[..., Answer]) -> Callable[[dict[str, Any], Callable[..., Any]], Answer]:
    lock, seen = Lock(), set[str]()

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Answer:
        kind = environment["PATH_INFO"].lstrip("/").partition("-")[0]
        if kind == "ignoring":
            environment.pop(CONDITION, None)
        if kind == "refusing" and CONDITION in environment:
            return refusal(start, "501 Not Implemented", "NotImplemented")
        if kind == "busy" and CONDITION in environment and environment["PATH_INFO"] not in seen:
            seen.add(environment["PATH_INFO"])
            return refusal(start, "409 Conflict", "ConditionalRequestConflict")
        with lock:
            return application(environment, start)

    return answer


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), in_turn(DomainDispatcherApplication(create_backend_app)), threaded=True)

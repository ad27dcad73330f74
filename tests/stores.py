"""An S3-speaking server on this machine."""

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Start moto's server, whose files live as long as it does; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, Path(__file__).with_name("s3_server.py"), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None and time.monotonic() < deadline, "the server did not come up"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def reach(server: str, patch: pytest.MonkeyPatch) -> None:
    """Have this process, and those that it starts, find a server behind all URLs of S3."""
    patch.setenv("AWS_ENDPOINT_URL", server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def new_bucket(kind: str = "bucket") -> str:
    """URL of an empty bucket in a store of a kind; see `s3_server.KINDS`."""
    from pyarrow import fs  # here, as the tests' first process loads this module, and hands out tests only

    name = f"{kind}-{uuid.uuid4().hex[:12]}"
    system, _ = fs.FileSystem.from_uri(f"s3://{name}/x?allow_bucket_creation=true")
    system.create_dir(name)
    return f"s3://{name}"

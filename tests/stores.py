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
from pyarrow import fs


@contextlib.contextmanager
def s3_server() -> Iterator[subprocess.Popen[bytes]]:
    """Start moto's server, and have this process and those that it starts find it; files live as long as it does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        try:
            deadline = time.monotonic() + 60
            while True:
                assert server.poll() is None and time.monotonic() < deadline, "the server did not come up"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
            yield server
        finally:
            server.terminate()
            server.wait()


def new_bucket() -> str:
    """URL of an empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    system, _ = fs.FileSystem.from_uri(f"s3://{name}/x?allow_bucket_creation=true")
    system.create_dir(name)
    return f"s3://{name}"

"""An S3 server process on loopback, with a bucket in it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from tests.jobs.conftest import free_port

ACCESS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[str]:
    """The URI of a bucket that lasts for the context; ACCESS has to be in the environment of
    whoever opens it.
    """
    port = free_port()
    line = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(line, env=os.environ | ACCESS, **quiet)
    try:
        _make_bucket(f"http://{host}:{port}/bucket")
        yield f"s3://bucket/place?scheme=http&endpoint_override={quote(f'{host}:{port}')}&region=us-east-1"
    finally:
        process.kill()
        process.wait()


def _make_bucket(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urlopen(Request(address, method="PUT"), timeout=5).close()
            return
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)

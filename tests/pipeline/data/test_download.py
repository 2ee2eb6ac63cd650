"""A download is there whole or not at all, and what is there already is not fetched again (a server
on loopback).
"""

from collections.abc import Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipeline.data.download import download
from pipeline.errors import InputError

CONTENT = bytes(range(256)) * 8192
CHECKSUM = md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `/whole`, and `/short`, which promises more than it sends."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path not in ("/whole", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[:-5])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    Handler.asked.clear()
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetched_once(site: str, tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    for _ in range(2):
        target = download(
            f"{site}/whole", CHECKSUM, tmp_path / "a" / "file", lambda *now: shown.append(now)
        )
        assert target.read_bytes() == CONTENT
    assert Handler.asked == ["/whole"]
    assert shown[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(("page", "says"), [("short", "cut short or changed"), ("gone", "404")])
def test_cut_short_or_missing_leaves_nothing(
    site: str, tmp_path: Path, page: str, says: str
) -> None:
    with pytest.raises(InputError, match=says) as error:
        download(f"{site}/{page}", CHECKSUM, tmp_path / "file")
    assert "--from PATH" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_fetched_again(site: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:-5])
    assert download(f"{site}/whole", CHECKSUM, tmp_path / "file").read_bytes() == CONTENT

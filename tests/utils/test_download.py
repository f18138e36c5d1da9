"""Downloads from a server on this machine: what arrives, what is kept, and what a user is told."""

import hashlib
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lib.utils import download
from lib.utils.download import fetch
from lib.utils.errors import UserError

CONTENT = bytes(range(256)) * 3000
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """Serves server.content; the first answers end after server.cuts bytes, and server.statuses replace answers."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        start = 0
        if self.headers.get("Range") and server.etag and self.headers.get("If-Range") == server.etag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
        if server.after_answer:
            server.after_answer()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.etag, server.after_answer = CONTENT, '"one"', None
    server.cuts, server.statuses, server.ranges = [], [], []
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def message_of(url, folder):
    with pytest.raises(UserError) as caught:
        fetch(url, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_once(server, tmp_path):
    folder = tmp_path / "deep" / "cache"
    path = fetch(f"{server.address}/some/{NAME}?download=true", folder)
    assert path == folder / NAME and path.read_bytes() == CONTENT
    assert fetch(f"{server.address}/some/{NAME}", folder) == path
    assert len(server.ranges) == 1 and list(folder.iterdir()) == [path]


def test_the_folder_is_the_one_of_torch(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert fetch(f"{server.address}/x.pth") == tmp_path / "hub" / "checkpoints" / "x.pth"


def test_another_hash_than_the_name_promises_is_refused(server, tmp_path):
    server.content = b"an error page"
    message = message_of(f"{server.address}/{NAME}", tmp_path)
    assert hashlib.sha256(b"an error page").hexdigest() in message and NAME in message
    assert not list(tmp_path.iterdir())


def test_a_spoilt_copy_is_set_aside_and_fetched_again(server, tmp_path, caplog):
    for content in (b"spoilt", b"again"):
        (tmp_path / NAME).write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert fetch(f"{server.address}/{NAME}", tmp_path).read_bytes() == CONTENT
    assert (tmp_path / f"{NAME}.wrong").read_bytes() == b"spoilt"
    assert (tmp_path / f"{NAME}.wrong.2").read_bytes() == b"again"
    assert f"kept as {NAME}.wrong.2 and fetched again" in caplog.text


def test_a_missing_file_is_asked_for_once(server, tmp_path):
    server.statuses = [404]
    assert f"/{NAME}: cannot be downloaded (the server answers 404 " in message_of(f"{server.address}/{NAME}", tmp_path)
    assert len(server.ranges) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [NAME, "without_hash.pth"])
def test_a_cut_download_goes_on_where_it_was_cut(server, tmp_path, name):
    server.cuts = [1000, 500_000]
    assert fetch(f"{server.address}/{name}", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=501000-"]


def test_without_a_version_a_cut_download_starts_over(server, tmp_path):
    server.cuts, server.etag = [1000], None
    assert fetch(f"{server.address}/{NAME}", tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_halves_of_two_versions_are_not_joined(server, tmp_path):
    server.cuts = [1000]

    def publish():
        server.content, server.etag = CONTENT[::-1], '"two"'

    server.after_answer = publish
    assert fetch(f"{server.address}/x.pth", tmp_path).read_bytes() == CONTENT[::-1]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503]
    assert fetch(f"{server.address}/{NAME}", tmp_path).read_bytes() == CONTENT


def test_a_download_that_is_always_cut_leaves_nothing(server, tmp_path):
    server.cuts = [10, 10, 10]
    message = message_of(f"{server.address}/x.pth", tmp_path)
    assert f"30 of {len(CONTENT)} bytes" in message and not list(tmp_path.iterdir())


def test_offline_the_message_says_where_the_file_belongs(server, tmp_path):
    server.shutdown()
    server.server_close()
    message = message_of(f"{server.address}/{NAME}", tmp_path)
    assert f"{server.address}/{NAME}: " in message and message.endswith(f"its place is {tmp_path / NAME}")
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch(f"{server.address}/{NAME}", tmp_path) == tmp_path / NAME


@pytest.mark.parametrize("url", ["ftp://x.org/a.pth", "file:///etc/passwd", "https://x.org", "https://x.org/"])
def test_other_addresses_are_refused(tmp_path, url):
    assert "expected the http or https address of a file" in message_of(url, tmp_path)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in message_of(f"{server.address}/{NAME}", tmp_path / "file")

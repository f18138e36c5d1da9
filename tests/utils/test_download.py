"""Downloads from a server on this machine: what arrives, what is kept, and what a user is told."""

import hashlib
import json
import logging

import pytest

from lib.utils import download
from lib.utils.download import Expected, NotOnServer, fetch, fetch_resumable
from lib.utils.errors import UserError
from tests.web import serve

CONTENT = bytes(range(256)) * 3000
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    with serve(CONTENT) as server:
        yield server


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
    with pytest.raises(UserError, match="cannot be written"):
        fetch_resumable(f"{server.address}/{NAME}", tmp_path / "file" / "x.tar", Expected())


@pytest.mark.parametrize(
    "url", ["http://me:secret@x.org/a.pth", "ftp://me:secret@x.org/a.pth", "http://[me:secret@x/a"]
)
def test_a_password_is_refused_and_not_repeated(tmp_path, url):
    assert "secret" not in message_of(url, tmp_path)


WHOLE = Expected("md5", hashlib.md5(CONTENT).hexdigest(), len(CONTENT))


def interrupted(server, path, expected=WHOLE, cuts=(300_000, 0, 0)) -> str:
    """The message of a download that ends early; what it leaves is what a later process finds."""
    server.cuts = list(cuts)
    with pytest.raises(UserError) as caught:
        fetch_resumable(f"{server.address}/{path.name}", path, expected)
    assert not path.exists()
    server.ranges.clear()
    return str(caught.value)


@pytest.mark.parametrize("expected", [WHOLE, Expected()], ids=["checksum", "version"])
def test_a_later_call_goes_on_where_the_last_one_ended(server, tmp_path, expected):
    path = tmp_path / "deep" / "x.tar"
    interrupted(server, path, expected)
    assert (tmp_path / "deep" / "x.tar.partial").read_bytes() == CONTENT[:300_000]
    assert fetch_resumable(f"{server.address}/x.tar", path, expected)
    assert path.read_bytes() == CONTENT and server.ranges == ["bytes=300000-"]
    assert list(path.parent.iterdir()) == [path]
    assert not fetch_resumable(f"{server.address}/x.tar", path, expected) and len(server.ranges) == 1


def test_a_checksum_lets_it_go_on_without_a_version_and_from_elsewhere(server, tmp_path):
    server.etag = None
    interrupted(server, tmp_path / "x.tar")
    assert fetch_resumable(f"{server.address}/mirror/x.tar", tmp_path / "x.tar", WHOLE)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT and server.ranges == ["bytes=300000-"]


def test_without_a_checksum_halves_of_two_versions_are_not_joined(server, tmp_path):
    interrupted(server, tmp_path / "x.zip", Expected())
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert fetch_resumable(f"{server.address}/x.zip", tmp_path / "x.zip", Expected())
    assert (tmp_path / "x.zip").read_bytes() == CONTENT[::-1]
    interrupted(server, tmp_path / "y.zip", Expected())
    assert fetch_resumable(f"{server.address}/elsewhere/y.zip", tmp_path / "y.zip", Expected())
    assert server.ranges == [None]


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path, caplog):
    interrupted(server, tmp_path / "x.tar")
    server.has_ranges = False
    with caplog.at_level(logging.INFO):
        assert fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT
    assert "the server does not go on at byte 300000; from the beginning" in caplog.text


def test_a_server_that_tells_no_length(server, tmp_path):
    server.tells_length = False
    interrupted(server, tmp_path / "x.tar")  # the end of the connection is not taken for that of the file
    assert fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT


def test_a_file_that_arrived_in_full_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "x.tar.partial").write_bytes(CONTENT)
    assert fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE) and not server.ranges


def test_a_wrong_file_is_refused_and_the_next_call_begins_anew(server, tmp_path):
    path = tmp_path / "x.tar"
    interrupted(server, path)
    right, server.content = server.content, CONTENT[::-1]
    assert "refused and deleted, what arrived is another file: its md5 is " in interrupted(server, path, cuts=())
    assert not list(tmp_path.glob("*.partial"))
    server.content = b"<html>log in first</html>"
    assert f"the server's file has 25 bytes, not {len(CONTENT)}" in interrupted(server, path, cuts=())
    server.content = right
    assert fetch_resumable(f"{server.address}/x.tar", path, WHOLE) and path.read_bytes() == CONTENT


def test_a_server_that_sends_the_rest_of_another_version_is_not_believed(server, tmp_path):
    interrupted(server, tmp_path / "x.zip", Expected())
    server.content, server.etag, server.has_ranges = CONTENT[::-1], '"two"', "of any version"
    assert fetch_resumable(f"{server.address}/x.zip", tmp_path / "x.zip", Expected())
    assert (tmp_path / "x.zip").read_bytes() == CONTENT[::-1] and server.ranges == ["bytes=300000-", None]


def test_damaged_or_outdated_notes_mean_the_beginning(server, tmp_path):
    interrupted(server, tmp_path / "x.zip", Expected())
    (tmp_path / "x.zip.partial.json").write_text("[]")
    assert fetch_resumable(f"{server.address}/x.zip", tmp_path / "x.zip", Expected()) and server.ranges == [None]
    interrupted(server, tmp_path / "y.zip", Expected())
    notes = tmp_path / "y.zip.partial.json"
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"version": '"other"'}))
    assert fetch_resumable(f"{server.address}/y.zip", tmp_path / "y.zip", Expected())
    assert (tmp_path / "y.zip").read_bytes() == CONTENT


def test_only_what_the_server_does_not_have_may_be_elsewhere(server, tmp_path):
    for status, kind in ((404, NotOnServer), (403, NotOnServer), (503, UserError)):
        server.statuses = [status] * 3
        with pytest.raises(UserError) as caught:
            fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
        assert type(caught.value) is kind


def test_a_line_that_breaks_often_is_not_given_up_while_it_brings_something(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 1000)
    server.cuts = [2000] * 50
    assert fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT and len(server.ranges) == 51


def test_a_server_that_falls_silent_is_asked_for_the_rest(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.hold = 300_000
    assert fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_a_disk_that_fills_up_keeps_what_has_arrived(server, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))  # stands in for the full disk
    try:
        with pytest.raises(UserError, match=r"x.tar: cannot be written \(File too large\); what has arrived is kept"):
            fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = (tmp_path / "x.tar.partial").stat().st_size
    assert 0 < kept <= 400_000
    assert fetch_resumable(f"{server.address}/x.tar", tmp_path / "x.tar", WHOLE)
    assert server.ranges[-1] == f"bytes={kept}-" and (tmp_path / "x.tar").read_bytes() == CONTENT

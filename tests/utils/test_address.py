"""What becomes of passwords in messages."""

import pytest

from lib.utils.address import hide_password


@pytest.mark.parametrize(
    "text, shown",
    [
        ("rtsp://me:secret@host:554/stream", "rtsp://me:***@host:554/stream"),
        ("RTSP://:secret@host", "RTSP://:***@host"),
        ("rtsp://me:sec:re@t@host/a, then http://you:x@h", "rtsp://me:***@host/a, then http://you:***@h"),
        ("rtsp://me:sec/ret@host/a", "rtsp://me:***@host/a"),
        ("rtsp://me:1234@host/a", "rtsp://me:***@host/a"),
        ("--demo rtsp:/me:secret@host: no such file", "--demo rtsp:/me:***@host: no such file"),
        ("http://host/video.cgi?user=me&pwd=secret&fps=5", "http://host/video.cgi?user=me&pwd=***&fps=5"),
    ],
)
def test_a_password_is_hidden(text, shown):
    assert hide_password(text) == shown


@pytest.mark.parametrize(
    "text",
    ["http://host:8080/a@b.zip", "rtsp://me@host/a", "data/VOC2007@home: 3 images", "x.yml:2: KEY: a@b", "/a:b@c/d"],
)
def test_what_is_no_password_stays(text):
    assert hide_password(text) == text

"""A file is there as a whole or not at all."""

import pytest

from lib.utils.files import write_whole


def test_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two" and list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half \udcff")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_whole(path, "\udcff", errors="backslashreplace")
    assert path.read_text() == "\\udcff"

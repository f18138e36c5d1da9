"""The cache of a data set's facts: used for files that are as they were, and for nothing else."""

import json
import math
import os

import pytest

from lib.dataset import facts as facts_module
from lib.dataset.facts import CACHE_FILE, FileFacts
from lib.dataset.inspection import Checks
from lib.dataset.voc import read_custom
from lib.dataset.voc_xml import BadAnnotation
from tests.dataset.folders import write_image, write_voc, write_xml


@pytest.fixture
def root(tmp_path):
    root = write_voc(tmp_path / "set", {"train": ["a", "b", "c"]})
    write_xml(root / "Annotations/b.xml", [("cat", ("nan", 1, 9, 9), 1), ("", (1, 1, 9, 9))], size=None)
    (root / "Annotations/c.xml").write_text("<annotation>")
    return root


@pytest.fixture
def read_files(monkeypatch):
    """The files that are really read."""
    seen = []

    def noted(read):
        return lambda path: seen.append(os.path.basename(path)) or read(path)

    for name in ("read_facts", "parse_annotation"):
        monkeypatch.setattr(facts_module, name, noted(getattr(facts_module, name)))
    return seen


def open_set(root, tmp_path):
    return read_custom([str(root)], ["train"], "train", checks=Checks(folder=str(tmp_path / "run")))


def content(records):
    return records.boxes.tolist(), records.sizes.tolist(), list(records.paths), records.class_names


def test_an_unchanged_data_set_is_read_once(root, tmp_path, read_files, caplog):
    first = content(open_set(root, tmp_path))
    assert sorted(read_files) == ["a.jpg", "a.xml", "b.jpg", "b.xml", "c.jpg", "c.xml"]
    read_files.clear()
    told = caplog.records[-1].message
    assert content(open_set(root, tmp_path)) == first and not read_files and caplog.records[-1].message == told


def test_a_changed_file_is_read_again(root, tmp_path, read_files):
    open_set(root, tmp_path)
    read_files.clear()
    write_xml(root / "Annotations/c.xml", [("cat", (1, 1, 9, 9))])
    write_image(root / "JPEGImages/a.jpg", (60, 82))
    status = os.stat(root / "JPEGImages/b.jpg")
    os.utime(root / "JPEGImages/b.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    records = open_set(root, tmp_path)
    assert sorted(read_files) == ["a.jpg", "b.jpg", "c.xml"]
    assert len(records) == 3 and records.sizes[0].tolist() == [60, 82]
    (root / "JPEGImages/a.jpg").unlink()
    assert len(open_set(root, tmp_path)) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: b"\x80\x04\x95 not text \xff",
        lambda data: data.replace(b"cat", b"cow"),
        lambda data: data.replace(b'"version": [4', b'"version": [3'),
        lambda data: b"[]\n" + data,
        lambda data: b"null\nnull\n",
    ],
)
def test_a_damaged_cache_is_rebuilt_silently(root, tmp_path, read_files, caplog, spoil):
    first = content(open_set(root, tmp_path))
    cache = tmp_path / "run" / CACHE_FILE
    sound = cache.read_bytes()
    assert spoil(sound) != sound
    cache.write_bytes(spoil(sound))
    read_files.clear()
    caplog.clear()
    assert content(open_set(root, tmp_path)) == first and len(read_files) == 6
    assert len(caplog.records) == 1 and cache.read_bytes() == sound


def test_facts_come_back_from_the_cache_as_they_were(root, tmp_path):
    paths = [str(root / f"Annotations/{stem}.xml") for stem in "abc"] + ["nowhere.xml"]
    images = [str(root / f"JPEGImages/{stem}.jpg") for stem in "ab"] + ["nowhere.jpg"]
    first = FileFacts(str(tmp_path))
    before = first.annotations(paths), first.images(images)
    first.save()
    again = FileFacts(str(tmp_path))
    (a, b, c, missing), found = again.annotations(paths), again.images(images)
    assert a == before[0][0] and found == before[1] and found[2].case == "missing_image"
    assert a.size == (60, 80) and b.size is None and b.difficult == [True] and math.isnan(b.boxes[0][0])
    assert b.faults == before[0][1].faults and b.faults[0][:2] == [2, "no_class_name"]
    assert isinstance(c, BadAnnotation) and str(c) == str(before[0][2]) and c.case == "bad_annotation"
    assert isinstance(missing, BadAnnotation) and "nowhere.xml: cannot be read" in str(missing)
    kept = json.loads((tmp_path / CACHE_FILE).read_text().split("\n")[1])
    assert len(kept) == 5


def test_many_files_are_read_in_the_order_asked_for(tmp_path):
    paths = [str(write_image(tmp_path / f"{n}.png", (8, 8 + n % 50))) for n in range(200)]
    found = FileFacts().images([*paths, paths[3]])
    assert [fact.width for fact in found] == [*[8 + n % 50 for n in range(200)], 11]

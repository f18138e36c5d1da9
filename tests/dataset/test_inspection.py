"""Opening a data set finds what is wrong with it, deals with it as told, and says so in one line and one report."""

import json
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from lib.config import load_config
from lib.dataset import inspection
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.inspection import CASES, Checks, Finding, Findings, check_boxes
from lib.dataset.transforms import read_image
from lib.dataset.voc import read_custom, read_voc
from lib.utils.errors import UserError
from tests.dataset.folders import write_image, write_voc, write_xml, xml_text

CAT = [9, 9, 29, 29]


def open_set(root, on_bad="drop", exif="ignore", folder="", role="train", classes=("cat", "dog")):
    return read_custom([str(root)], ["train"], role, classes, checks=Checks(on_bad, exif, str(folder)))


def xml(*objects, **kwargs):
    """Objects besides a sound one."""
    return lambda root: write_xml(root / "Annotations/b.xml", [("cat", (10, 10, 30, 30)), *objects], **kwargs)


def text(words, name="Annotations/b.xml"):
    return lambda root: (root / name).write_text(words)


def spliced(words):
    """A sound annotation with more words in it."""
    return text(xml_text([("cat", (10, 10, 30, 30))]).replace("</annotation>", f"{words}</annotation>"))


def content(data, name="JPEGImages/b.jpg"):
    return lambda root: (root / name).write_bytes(data)


def cut_jpeg(root):
    file = root / "JPEGImages/b.jpg"
    file.write_bytes(file.read_bytes()[:-40])


def png_header(width, height) -> bytes:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        content += struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def rotated(root, orientation=6, name="b"):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[:20, :20] = 255  # bright top left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg", exif=exif)


def lines(*names):
    return text("".join(f"{name}\n" for name in names), "ImageSets/Main/train.txt")


def link_to_nothing(root):
    (root / "JPEGImages/b.jpg").unlink()
    (root / "JPEGImages/b.jpg").symlink_to(root / "nowhere.jpg")


BOMB = "<!DOCTYPE annotation [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><annotation><filename>&b;</filename></annotation>"
OUTSIDE = BOMB.replace("'&a;&a;'", "SYSTEM 'file:///etc/hostname'")
GONE = None

DIRT = {
    # what is wrong: how it is made, its case, boxes of image b under drop and under clip (GONE: the image is left out)
    "NaN": (xml(("cat", ("nan", 1, 9, 9))), "nan_box", [CAT], [CAT]),
    "infinite": (xml(("cat", (1, 1, "inf", 9))), "nan_box", [CAT], [CAT]),
    "overflow": (xml(("cat", (1, 1, "1e999", 9))), "nan_box", [CAT], [CAT]),
    "empty": (xml(("cat", (5, 5, 5, 9))), "empty_box", [CAT], [CAT]),
    "hair line": (xml(("cat", (5, 5, 5.0000000001, 9))), "empty_box", [CAT], [CAT]),
    "reversed": (xml(("dog", (40, 10, 20, 30))), "reversed_box", [CAT], [CAT, [19, 9, 39, 29]]),
    "reversed outside": (xml(("dog", (140, 10, 120, 30))), "reversed_box", [CAT], [CAT]),
    "outside": (xml(("dog", (90, 10, 120, 30))), "outside_box", [CAT], [CAT]),
    "mostly outside": (xml(("dog", (71, 11, 101, 31))), "mostly_outside_box", [CAT], [CAT, [70, 10, 80, 30]]),
    "partly outside": (xml(("dog", (-9, 11, 41, 31))), "partly_outside_box", *[[CAT, [0, 10, 40, 30]]] * 2),
    "unknown class": (xml(("dogs", (1, 1, 9, 9))), "unknown_class", [CAT], [CAT]),
    "no name": (xml((" ", (1, 1, 9, 9))), "no_class_name", [CAT], [CAT]),
    "no bndbox": (spliced("<object><name>dog</name></object>"), "no_box", [CAT], [CAT]),
    "word for a number": (xml(("dog", ("left", 1, 9, 9))), "no_number", [CAT], [CAT]),
    "number missing": (xml(("dog", ("", 1, 9, 9))), "no_number", [CAT], [CAT]),
    "image missing": (lambda root: (root / "JPEGImages/b.jpg").unlink(), "missing_image", GONE, GONE),
    "dangling link": (link_to_nothing, "missing_image", GONE, GONE),
    "image empty": (content(b""), "empty_file", GONE, GONE),
    "no image": (content(b"<html>not found</html>"), "no_image", GONE, GONE),
    "image cut off": (cut_jpeg, "truncated_image", GONE, GONE),
    "absurd size": (content(png_header(100_000, 100_000)), "oversized_image", GONE, GONE),
    "annotation missing": (lambda root: (root / "Annotations/b.xml").unlink(), "missing_annotation", GONE, GONE),
    "half an XML": (text("<annotation>\n<object>\n"), "bad_annotation", GONE, GONE),
    "other root": (text("<html/>"), "bad_annotation", GONE, GONE),
    "entity bomb": (text(BOMB), "entities", GONE, GONE),
    "external entity": (text(OUTSIDE), "entities", GONE, GONE),
    "bomb in UTF-16": (content(BOMB.encode("utf-16"), "Annotations/b.xml"), "entities", GONE, GONE),
    "climbing line": (lines("a", "../../b", "c"), "outside_folder", GONE, GONE),
    "absolute line": (lines("a", "/etc/hostname", "c"), "outside_folder", GONE, GONE),
    "line of zeros": (lines("a", "\0", "c"), "outside_folder", GONE, GONE),
    "endless line": (lines("a", "b" * 5000, "c"), "missing_annotation", GONE, GONE),
    "other size": (xml(size=(600, 800)), "other_size", [CAT], [CAT]),
    "listed twice": (lambda root: (xml()(root), lines("a", "b", "c", "b")(root)), "listed_twice", [CAT], [CAT]),
    "blank line": (lambda root: (xml()(root), lines("a", "", "b", "c")(root)), "blank_line", [CAT], [CAT]),
    "rotated": (lambda root: (xml()(root), rotated(root)), "rotated", [CAT], [CAT]),
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return write_voc(tmp_path / "set", {"train": ["a", "b", "c"]})


def boxes_by_id(records):
    return {records.image_id(i): records.objects(i)[0].tolist() for i in range(len(records))}


@pytest.mark.parametrize("dirt", DIRT)
def test_every_kind_of_dirt_is_found_dealt_with_and_told(root, tmp_path, caplog, dirt):
    spoil, case, *expected = DIRT[dirt]
    spoil(root)
    for on_bad, boxes in zip(("drop", "clip"), expected, strict=True):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            records = open_set(root, on_bad, folder=tmp_path / on_bad)
        found = boxes_by_id(records)
        assert found.pop("a") == found.pop("c") == [[10, 20, 40, 50]]
        assert found == ({} if boxes is GONE else {"b": boxes})
        (line,) = [record.message for record in caplog.records]
        report = json.loads((tmp_path / on_bad / "data_report_train.json").read_text())
        outcome = "outside_box" if (dirt, on_bad) == ("reversed outside", "clip") else case
        assert {name: entry["count"] for name, entry in report["cases"].items()} == {outcome: 1}
        assert f"1 {CASES[outcome].unit} {CASES[outcome].words} (" in line and records.report in line
        assert "\n" not in line and "\0" not in line
        (finding,) = report["cases"][outcome]["found"]
        assert set(finding) == {"image", "annotation", "object", "detail"}
        assert finding["detail"] or case == "listed_twice"
        if CASES[case].unit in ("box", "object"):
            assert finding["object"] == 2 and finding["annotation"].endswith("b.xml")
    if CASES[case].note:
        assert boxes_by_id(open_set(root, "fail")) == boxes_by_id(records)
    else:
        with pytest.raises(UserError) as error:
            open_set(root, "fail", folder=tmp_path / "fail")
        message = str(error.value)
        assert message.startswith("DATASET.ON_BAD is fail: train: 1 faulty ") and CASES[case].words in message
        assert str(tmp_path / "fail" / "data_report_train.json") in message and "\n" not in message


def test_the_table_of_dirt_covers_every_case():
    found_elsewhere = {"unreadable_image", "shared_image", "unlisted_image", "not_relative"}
    assert {case for _, case, *_ in DIRT.values()} == set(CASES) - found_elsewhere


def test_all_that_is_wrong_is_one_line_and_nothing_wrong_is_none(tmp_path, caplog):
    root = write_voc(tmp_path / "set", {"train": [f"i{n}" for n in range(9)]})
    open_set(root, folder=tmp_path)
    assert not caplog.records and json.loads((tmp_path / "data_report_train.json").read_text())["cases"] == {}
    empty, outside = ("cat", (5, 5, 5, 9)), ("dog", (90, 10, 120, 30))
    write_xml(root / "Annotations/i1.xml", [empty, empty, ("cat", (1, 1, 9, 9)), outside])
    (root / "JPEGImages/i2.jpg").unlink()
    file = root / "JPEGImages/i3.jpg"
    file.write_bytes(file.read_bytes()[:-100])
    records = open_set(root, folder=tmp_path)
    assert len(records) == 7
    (told,) = caplog.records
    report = tmp_path / "data_report_train.json"
    assert told.message == (
        "train: 3 faulty boxes and 2 faulty images in 9: 2 boxes empty, 1 box outside the image, 1 image missing, "
        f"1 image truncated (dropped); the first is {root}/Annotations/i1.xml object 1 "
        f"(5, 5, 5, 9 in 80 x 60 pixels); see {report}"
    )
    with pytest.raises(UserError) as error:
        open_set(root, "fail", folder=tmp_path)
    for words in ("2 boxes empty", "1 image truncated", "i1.xml object 1", "i1.xml object 4", str(report)):
        assert words in str(error.value)
    caplog.clear()
    open_set(root, role="test")
    assert "; scores are those of the images left; " in caplog.text and "see" not in caplog.records[-1].message


def test_boxes_that_leave_the_image_by_a_pixel_are_cut_silently(root, caplog):
    write_xml(root / "Annotations/b.xml", [("cat", (0, 0, 81, 61)), ("cat", (1, 1, 82, 62))])
    for on_bad in ("drop", "clip", "fail"):
        assert boxes_by_id(open_set(root, on_bad))["b"] == [[0, 0, 80, 60]] * 2
    assert not caplog.records


def test_half_of_a_box_must_lie_in_the_content():
    boxes = [[-10, 0, 10, 20], [-10.5, 0, 10, 20], [70, 50, 90, 60], [70, 50, 90.5, 60], [-1e308, -1e308, 1e308, 1e308]]
    for on_bad, expected in (("drop", [True, False, True, False, False]), ("clip", [True] * 5)):
        cut, good = check_boxes(boxes, [[80, 60]] * 5, Findings(Checks(on_bad), "train"), lambda position: Finding("x"))
        assert good.tolist() == expected and cut.dtype == np.float32
        assert (cut >= 0).all() and (cut[:, 2:] <= [80, 60]).all()


class TestClasses:
    def test_unknown_names_are_counted_with_the_nearest_one(self, root, caplog):
        objects = [("cats", (1, 1, 9, 9)), ("cats", (2, 2, 9, 9)), ("wolf", (1, 1, 9, 9))]
        write_xml(root / "Annotations/b.xml", objects)
        assert boxes_by_id(open_set(root))["b"] == []
        assert "3 objects of an unknown class (dropped)" in caplog.text
        assert "2 times class 'cats' is unknown; did you mean 'cat'?" in caplog.text

    def test_a_set_without_any_known_class_is_refused(self, root):
        with pytest.raises(UserError, match="a.xml object 1 .class 'cat' is unknown.*not one of 3 objects"):
            open_set(root, classes=("bus", "tram"))
        with pytest.raises(UserError, match="custom takes the names from the annotations.*not one of 3 objects"):
            write_voc(root, {"train": ["a", "b", "c"]}, {stem: [("wolf", (1, 1, 9, 9))] for stem in "abc"})
            read_voc([str(root)], ["train"], "train")

    def test_discovery_takes_no_class_from_what_cannot_be_used(self, root):
        (root / "Annotations/b.xml").write_text("<annotation><object><name>ghost</name></object></annotation>")
        (root / "Annotations/c.xml").write_text("<annotation>")
        records = open_set(root, classes=())
        assert records.class_names == ("cat",) and boxes_by_id(records) == {"a": [[10, 20, 40, 50]], "b": []}


def test_a_set_of_which_nothing_is_left_is_refused(root):
    for stem in "abc":
        (root / f"JPEGImages/{stem}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="train: no image of set/train can be used: 3 images without content; "):
        open_set(root)


@pytest.mark.parametrize("tail", [b"", b"\0" * 10, b"\xff" * 100, b"junk" * 5000])
def test_bytes_behind_the_end_of_a_jpeg_are_no_fault(root, caplog, tail):
    file = root / "JPEGImages/b.jpg"
    file.write_bytes(file.read_bytes() + tail)
    assert len(open_set(root, "fail")) == 3


def test_the_end_marker_of_a_thumbnail_does_not_hide_that_the_image_is_cut_off(root, caplog):
    file = root / "JPEGImages/b.jpg"
    thumbnail, whole = b"\xff\xd8 small \xff\xd9", file.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    file.write_bytes(whole[:2] + segment + whole[2:])
    assert len(open_set(root)) == 3 and not caplog.records
    file.write_bytes((whole[:2] + segment + whole[2:])[:-40])
    assert len(open_set(root)) == 2 and "1 image truncated (dropped)" in caplog.text


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".webp", ".ppm", ".jp2", ".hdr", ".ras"])
def test_whole_images_of_other_formats_are_no_fault(tmp_path, extension):
    root = write_voc(tmp_path / "set", {"train": ["a"]}, extension=extension)
    records = open_set(root, "fail", "fail")
    assert records.size(0) == (60, 80) == records.read(0).shape[:2]


def test_a_class_name_cannot_write_on_the_screen(root, caplog):
    spliced("<object><name>x\n\x7fevil</name><bndbox/></object>")(root)
    open_set(root)
    (told,) = caplog.records
    assert "\n" not in told.message and "\x7f" not in told.message


class TestExif:
    """The stored image is 80 wide and 60 high with a bright top left corner; orientation 6 turns it clockwise."""

    @pytest.fixture
    def turned(self, root):
        rotated(root)
        return root

    def test_ignore_counts_rotated_images_and_reads_them_as_stored(self, turned, tmp_path, caplog):
        with caplog.at_level(logging.INFO):
            records = open_set(turned, folder=tmp_path)
        assert records.size(1) == (60, 80) and records.read(1).shape == (60, 80, 3)
        assert "train: no fault in 3: 1 image rotated by EXIF (kept)" in caplog.text
        assert json.loads((tmp_path / "data_report_train.json").read_text())["cases"]["rotated"]["count"] == 1

    def test_ignore_says_where_apply_would_fit(self, turned, caplog):
        write_xml(turned / "Annotations/b.xml", [("cat", (41, 1, 60, 20))], size=(80, 60))
        open_set(turned)
        assert "1 image of another size than annotated, 1 image rotated by EXIF (kept)" in caplog.text
        assert "; DATASET.EXIF: apply would fit the annotation; " in caplog.text

    def test_apply_turns_the_pixels_under_the_boxes(self, turned, tmp_path, caplog):
        write_xml(turned / "Annotations/b.xml", [("cat", (41, 1, 60, 20))], size=(80, 60))
        records = open_set(turned, exif="apply", folder=tmp_path)
        assert not caplog.records and records.size(1) == (80, 60)
        image, (x1, y1, x2, y2) = records.read(1), records.objects(1)[0][0].astype(int)
        assert image.shape == (80, 60, 3)
        assert image[y1:y2, x1:x2].mean() > 200 > 50 > image.mean()
        assert json.loads((tmp_path / "data_report_train.json").read_text())["cases"]["rotated"]["count"] == 1

    def test_fail_ends_with_their_number_also_where_faults_do_not(self, turned):
        with pytest.raises(UserError, match=r"DATASET\.EXIF is fail: train: 1 faulty image in 3: 1 image rotated"):
            open_set(turned, exif="fail")
        with pytest.raises(UserError, match=r"b\.jpg: EXIF says that it is rotated .orientation 6"):
            read_image(str(turned / "JPEGImages/b.jpg"), "fail")

    @pytest.mark.parametrize("orientation", range(9))
    def test_every_orientation_is_turned_as_pillow_does(self, root, orientation):
        rotated(root, orientation)
        path = root / "JPEGImages/b.jpg"
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))[..., ::-1].astype(int)
        found = read_image(str(path), "apply")
        assert found.shape == upright.shape and np.abs(found - upright).max() <= 4
        assert open_set(root, exif="apply").size(1) == upright.shape[:2]

    def test_the_key_reaches_the_batches(self, turned, tmp_path):
        words = ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={turned}", "DATASET.TEST_SETS=[train]"]
        words += ["DATASET.NUM_WORKERS=0", "MODEL.IMAGE_SIZE=32", f"EXP_DIR={tmp_path}/run"]
        sizes = []
        for exif in ("ignore", "apply"):
            ((batch,),) = create_loader(load_config(None, [*words, f"DATASET.EXIF={exif}"]), "test")
            sizes.append(batch.targets[1].size)
        assert sizes == [(60, 80), (80, 60)]
        with pytest.raises(UserError, match=r"DATASET\.EXIF is fail"):
            create_records(load_config(None, [*words, "DATASET.EXIF=fail"]), "test")


def test_entities_are_refused_before_they_grow_or_read_a_file(root, caplog):
    bomb = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 30))
    text(f"<!DOCTYPE annotation [\n<!ENTITY a0 'ha'>{bomb}]>\n<annotation><size>&a29;</size></annotation>")(root)
    assert len(open_set(root)) == 2
    assert "b.xml, line 2: declares the entity 'a0', which is refused" in caplog.text
    text(f"<!DOCTYPE annotation>\n{xml_text([('cat', (10, 10, 30, 30))])}")(root)
    assert boxes_by_id(open_set(root))["b"] == [CAT]


def test_a_folder_that_cannot_be_written_to_is_told_once_and_stops_nothing(root, tmp_path, caplog):
    inspection._tell_unwritable.cache_clear()
    (tmp_path / "file").touch()
    for _ in range(2):
        assert len(open_set(root, folder=tmp_path / "file" / "run")) == 3
    (told,) = caplog.records
    assert "the reports and the cache of the data sets cannot be written" in told.message


def test_what_breaks_later_is_added_to_the_report_and_a_lost_report_is_no_harm(root, tmp_path, caplog):
    report = open_set(root, folder=tmp_path).report
    for _ in range(2):
        inspection.add_to_report(report, "unreadable_image", Finding("x.jpg", detail="gone"))
    found = json.loads((tmp_path / "data_report_train.json").read_text())["cases"]["unreadable_image"]
    assert found["count"] == 1 and found["found"][0]["image"] == "x.jpg"
    (tmp_path / "data_report_train.json").write_text("{")
    inspection.add_to_report(report, "unreadable_image", Finding("x.jpg"))
    inspection.add_to_report("", "unreadable_image", Finding("x.jpg"))
    assert "nothing can be added" in caplog.text


def test_nothing_is_written_without_a_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (root / "JPEGImages/b.jpg").unlink()
    before = sorted(tmp_path.rglob("*"))
    assert open_set(root).report == "" and sorted(tmp_path.rglob("*")) == before


def test_a_loose_image_is_checked_like_a_listed_one(tmp_path, caplog):
    write_image(tmp_path / "set" / "a.jpg")
    write_xml(tmp_path / "set" / "a.xml", [("cat", (10, 10, 30, 30))])
    (tmp_path / "set" / "b.jpg").write_bytes(b"")
    write_xml(tmp_path / "set" / "b.xml", [("cat", (10, 10, 30, 30))])
    assert len(read_custom([str(tmp_path / "set")], ["all"], "train")) == 1 and "1 image without content" in caplog.text

"""VOC annotations in every usual layout become the same records, and faults are told by file."""

import logging

import numpy as np
import pytest

from lib.dataset.detection import DATASETS
from lib.dataset.inspection import Checks
from lib.dataset.split import SplitPlan
from lib.dataset.voc import VOC_CLASSES, read_custom, read_voc
from lib.utils.errors import UserError
from tests.dataset.folders import write_image, write_loose, write_voc, write_xml

WHERE = "DATASET.TRAIN_SETS"


def read(*roots, sets=None, role="train", classes=(), plan=None, on_bad="drop"):
    checks = Checks(on_bad)
    return read_custom([str(root) for root in roots], sets, role, classes, plan or SplitPlan(), WHERE, checks)


def ids(records):
    return [records.image_id(i) for i in range(len(records))]


def test_boxes_are_the_four_numbers_minus_one(tmp_path):
    objects = [("cat", (11, 21, 41, 51), 1), ("dog", ("5.5", " 6 ", "20.25", "7e0"), 0), ("cat", (1, 1, 80, 60))]
    records = read(write_voc(tmp_path / "set", {"train": ["a"]}, {"a": objects}), sets=["train"])
    np.testing.assert_array_equal(records.boxes, [[10, 20, 40, 50], [4.5, 5, 19.25, 6], [0, 0, 79, 59]])
    assert records.boxes.dtype == np.float32 and records.class_names == ("cat", "dog")
    assert records.labels.tolist() == [1, 2, 1] and records.difficult.tolist() == [True, False, False]
    assert records.size(0) == (60, 80) and records.image_path(0).endswith("JPEGImages/a.jpg")


def test_parts_of_an_object_are_not_objects(tmp_path):
    root = write_voc(tmp_path / "set", {"train": ["a"]})
    file = root / "Annotations" / "a.xml"
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    file.write_text(file.read_text().replace("<object>", f"<object>{part}"))
    records = read(root)
    assert records.class_names == ("cat",) and records.boxes.tolist() == [[10, 20, 40, 50]]


def test_class_names_are_the_words_of_the_file_also_where_yaml_would_read_a_boolean(tmp_path):
    words = ["off", "no", "on", "7", "null", "tëst"]
    objects = {"a": [(word, (1 + i, 1, 30, 30)) for i, word in enumerate(words)]}
    root = write_voc(tmp_path / "set", {"train": ["a"]}, objects)
    assert read(root).class_names == ("7", "no", "null", "off", "on", "tëst")
    given = read(root, classes=words)
    assert given.class_names == tuple(words) and given.labels.tolist() == [1, 2, 3, 4, 5, 6]


class TestLayouts:
    def test_without_year_folder(self, tmp_path):
        root = write_voc(tmp_path / "set", {"train": ["a", "b"], "test": ["c"]})
        assert ids(read(root, sets=["train"])) == ["a", "b"] and ids(read(root, sets=["train", "test"])) == list("abc")
        assert ids(read(root, sets=[["2007", "test"]])) == ["c"]  # a folder without a year takes any

    def test_year_folders_named_by_pairs_or_all_at_once(self, tmp_path):
        for year, stems in (("2007", ["000001", "000002"]), ("2012", ["2008_1"])):
            write_voc(tmp_path / "kit" / f"VOC{year}", {"trainval": stems})
        write_voc(tmp_path / "kit" / "VOC2007", {"test": ["000003"]})
        kit = tmp_path / "kit"
        assert ids(read(kit, sets=[["2007", "trainval"], ["2012", "trainval"]])) == ["000001", "000002", "2008_1"]
        assert ids(read(kit, sets=["trainval"])) == ["000001", "000002", "2008_1"]
        assert ids(read(kit, sets=[["2012", "trainval"]])) == ["2008_1"]
        assert ids(read(kit, sets=["test"])) == ["000003"]
        assert read(kit, sets=[(2007, "test")]).name == "VOC2007/test"

    def test_below_a_folder_vocdevkit_and_a_year_folder_as_root(self, tmp_path):
        root = write_voc(tmp_path / "data" / "VOCdevkit" / "VOC2007", {"train": ["a"]})
        assert ids(read(tmp_path / "data", sets=[["2007", "train"]])) == ["a"]
        assert ids(read(root, sets=[["2007", "train"]])) == ids(read(root, sets=["train"])) == ["a"]

    def test_several_roots_with_the_same_stems_get_distinct_ids(self, tmp_path):
        roots = [write_voc(tmp_path / name, {"train": ["a", "b"]}) for name in ("one", "two")]
        records = read(*roots, sets=["train"])
        assert ids(records) == ["one/a", "one/b", "two/a", "two/b"] and len(records.labels) == 4
        assert ids(read(roots[0], sets=["train"])) == ["a", "b"]

    def test_images_named_twice_count_once(self, tmp_path, caplog):
        root = write_voc(tmp_path / "set", {"train": ["a", "b", "a"], "trainval": ["a", "b", "c"]})
        assert ids(read(root, sets=["train", "trainval"])) == ["a", "b", "c"]
        assert "3 images listed twice (counted once)" in caplog.text

    @pytest.mark.parametrize("extension", [".png", ".JPG", ".bmp", ".tiff", ".webp"])
    def test_images_of_any_type_are_found_by_stem(self, tmp_path, extension):
        records = read(write_voc(tmp_path / "set", {"train": ["a.b"]}, extension=extension))
        assert records.image_path(0).endswith(f"a.b{extension}") and ids(records) == ["a.b"]

    def test_images_are_found_by_the_filename_of_the_annotation(self, tmp_path):
        root = write_voc(tmp_path / "set", {"train": ["a"]})
        (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "photo 17.jpg")
        write_xml(root / "Annotations" / "a.xml", [("cat", (1, 1, 9, 9))], filename=r"C:\data\photo 17.jpg")
        assert read(root).image_path(0).endswith("photo 17.jpg")

    def test_lists_with_extensions_sub_folders_spaces_crlf_bom_and_blank_lines(self, tmp_path):
        root = write_voc(tmp_path / "set", {"train": ["a", "b c", "sub/d", "photo 1"]})
        text = "\ufeffa.jpg\r\n\r\nb c\r\n  \r\nsub/d\r\nphoto 1\r\n\r\n"
        (root / "ImageSets" / "Main" / "train.txt").write_text(text, encoding="utf-8", newline="")
        assert ids(read(root)) == ["a", "b c", "sub/d", "photo 1"]

    def test_the_second_column_of_class_lists_leaves_the_absent_out(self, tmp_path):
        root = write_voc(tmp_path / "set", {"cat_train": ["a", "b", "c"]})
        (root / "ImageSets" / "Main" / "cat_train.txt").write_text("a  1\nb -1\nc  0\n")
        assert ids(read(root, sets=["cat_train"])) == ["a", "c"]


class TestLooseFolders:
    def test_side_by_side_and_in_folders_of_their_own(self, tmp_path):
        stems = [f"p{i}" for i in range(10)]
        side = write_loose(tmp_path / "side", stems)
        apart = tmp_path / "apart"
        for i, stem in enumerate(stems):
            write_image(apart / "JPEGImages" / f"{stem}.png", seed=i)
            write_xml(apart / "Annotations" / f"{stem}.xml", [("cat", (11, 21, 41, 51))])
        for root in (side, apart):
            assert ids(read(root, sets=["all"])) == stems
            sizes = [len(read(root, role=role)) for role in ("train", "eval", "test")]
            assert sizes == [8, 1, 1]
        assert ids(read(side)) == ids(read(apart))

    def test_sub_folders_called_train_valid_and_test_are_the_image_sets(self, tmp_path):
        for split, stems in (("train", ["a", "b"]), ("valid", ["c"]), ("test", ["d"])):
            write_loose(tmp_path / "set" / split, stems)
        root = tmp_path / "set"
        assert ids(read(root, sets=["train"])) == ["a", "b"] and ids(read(root, sets=["val"])) == ["c"]
        assert ids(read(root, role="test")) == ["d"] and ids(read(root, sets=["trainval"])) == ["a", "b", "c"]

    def test_equal_stems_in_sub_folders_keep_their_own_image(self, tmp_path):
        write_loose(tmp_path / "set" / "day", ["1", "2"])
        write_loose(tmp_path / "set" / "night", ["1"], extension=".png")
        records = read(tmp_path / "set", sets=["all"])
        paths = [records.image_path(i).split("set/")[1] for i in range(3)]
        assert ids(records) == ["day/1", "day/2", "night/1"] and paths == ["day/1.jpg", "day/2.jpg", "night/1.png"]

    def test_images_without_annotation_are_left_out_and_counted(self, tmp_path, caplog):
        root = write_loose(tmp_path / "set", ["a", "b", "c"])
        write_image(root / "unlabelled.jpg")
        write_xml(root / "empty.xml")
        write_image(root / "empty.jpg")
        records = read(root, sets=["all"])
        assert ids(records) == ["a", "b", "c", "empty"] and len(records.target(3).labels) == 0
        assert "1 images without an XML file are left out" in caplog.text and "unlabelled.jpg" in caplog.text

    def test_the_split_is_written_said_and_kept(self, tmp_path, caplog):
        root, plan = write_loose(tmp_path / "cells", [f"p{i:02}" for i in range(20)]), None
        plan = SplitPlan((0.6, 0.2, 0.2), 5, str(tmp_path / "run"))
        with caplog.at_level(logging.INFO):
            first = {role: ids(read(root, role=role, plan=plan)) for role in ("train", "eval", "test")}
        assert [len(names) for names in first.values()] == [12, 4, 4]
        assert len({name for names in first.values() for name in names}) == 20
        assert (tmp_path / "run" / "split_cells.json").is_file()
        assert "seeded split (seed 5), kept in" in caplog.text and "12 train, 4 val, 4 test" in caplog.text
        other = ids(read(root, plan=plan._replace(seed=6, folder="")))
        assert other != first["train"]

        caplog.clear()
        write_loose(root, ["p00b", "zz"])
        again = {role: ids(read(root, role=role, plan=plan)) for role in ("test", "eval", "train")}
        assert again["test"] == first["test"] and again["eval"] == first["eval"]
        assert again["train"] == sorted([*first["train"], "p00b", "zz"])
        assert "2 images are new and join train" in caplog.text
        assert len(ids(read(root, plan=plan._replace(seed=6)))) == 14 and "kept as it was drawn" in caplog.text

    def test_the_split_of_other_images_is_refused(self, tmp_path):
        plan = SplitPlan(folder=str(tmp_path / "run"))
        read(write_loose(tmp_path / "one" / "cells", ["a", "b", "c"]), plan=plan)
        with pytest.raises(UserError, match=r"split_cells\.json: the split of other images"):
            read(write_loose(tmp_path / "two" / "cells", ["d", "e", "f"]), plan=plan)
        (tmp_path / "run" / "split_cells.json").write_text("{")
        with pytest.raises(UserError, match=r"split_cells\.json: not a readable split"):
            read(tmp_path / "one" / "cells", plan=plan)

    @pytest.mark.parametrize("count, expected", [(3, (1, 1, 1)), (4, (2, 1, 1)), (7, (5, 1, 1)), (100, (80, 10, 10))])
    def test_every_part_of_a_small_split_has_an_image(self, tmp_path, count, expected):
        root = tmp_path / "set"
        for i in range(count):
            write_xml(root / f"{i}.xml", [("cat", (1, 1, 9, 9))], size=(8, 8))
            write_image(root / f"{i}.png", (8, 8))
        assert tuple(len(read(root, role=role)) for role in ("train", "eval", "test")) == expected

    def test_a_split_without_val_or_test(self, tmp_path):
        root = write_loose(tmp_path / "set", [f"p{i}" for i in range(10)])
        plan = SplitPlan((0.7, 0.3, 0))
        assert [len(read(root, role=role, plan=plan)) for role in ("train", "eval", "test")] == [7, 3, 3]


class TestDefaultSets:
    @pytest.mark.parametrize(
        "offered, train, evaluate, test",
        [
            (("train", "val", "trainval", "test"), "trainval", "test", "test"),
            (("train", "val", "test"), "train", "val", "test"),
            (("train", "val", "trainval"), "train", "val", "val"),
            (("train", "val"), "train", "val", "val"),
            (("trainval", "test"), "trainval", "test", "test"),
        ],
    )
    def test_no_phase_is_scored_on_images_it_trained_on(self, tmp_path, offered, train, evaluate, test):
        stems = {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]}
        root = write_voc(tmp_path / "set", {split: stems[split] for split in offered})
        for role, split in (("train", train), ("eval", evaluate), ("test", test)):
            assert ids(read(root, role=role)) == stems[split]

    def test_choosing_the_best_on_test_images_is_warned_about(self, tmp_path, caplog):
        read(write_voc(tmp_path / "set", {"trainval": ["a"], "test": ["c"]}), role="eval")
        assert "the test images choose the best checkpoint" in caplog.text

    def test_only_unusual_sets_must_be_named(self, tmp_path):
        root = write_voc(tmp_path / "set", {"monday": ["a"]})
        with pytest.raises(UserError, match="no usual set for train.*monday"):
            read(root)


class TestClasses:
    def test_discovery_looks_at_all_sets_so_that_train_and_test_agree(self, tmp_path):
        objects = {"a": [("dog", (1, 1, 9, 9))], "b": [("ant", (1, 1, 9, 9))]}
        root = write_voc(tmp_path / "set", {"train": ["a"], "test": ["b"]}, objects)
        train, test = read(root, sets=["train"]), read(root, sets=["test"])
        assert train.class_names == test.class_names == ("ant", "dog")
        assert train.labels.tolist() == [2] and test.labels.tolist() == [1]

    def test_voc_has_its_twenty_names_unless_others_are_given(self, tmp_path):
        root = write_voc(tmp_path / "set", {"train": ["a"]})
        records = read_voc([str(root)], ["train"], "train")
        assert records.class_names == VOC_CLASSES and len(VOC_CLASSES) == 20 and records.labels.tolist() == [8]
        assert read_voc([str(root)], ["train"], "train", ("cat",)).labels.tolist() == [1]

    def test_kinds_are_registered_under_the_names_of_the_configuration(self):
        assert {"voc", "custom", "customRNN", "imagenet"} <= set(DATASETS.names())
        with pytest.raises(UserError, match="DATASET.DATASET: 'costum' is unknown; did you mean 'custom'"):
            DATASETS.get("costum", "DATASET.DATASET")


def test_the_image_counts_where_the_annotation_gives_no_size_or_a_wrong_one(tmp_path, caplog):
    root = write_voc(tmp_path / "set", {"train": ["a", "b", "c"]}, {"c": [("cat", (10, 10, 75, 55))]})
    write_xml(root / "Annotations" / "a.xml", [("cat", (10, 10, 75, 55))], size=None)
    write_xml(root / "Annotations" / "b.xml", [("cat", (10, 10, 75, 55))], size=(0, 0))
    write_xml(root / "Annotations" / "c.xml", [("cat", (10, 10, 75, 55))], size=(50, 50))
    records = read(root)
    assert records.sizes.tolist() == [[60, 80]] * 3 and records.boxes.tolist() == [[9, 9, 74, 54]] * 3
    (told,) = caplog.records
    assert "1 image of another size than annotated (kept)" in told.message
    assert "c.jpg (the image is 80 x 60, the annotation says 50 x 50)" in told.message


def _remove(name):
    return lambda root: (root / name).unlink()


def _write(name, text):
    return lambda root: (root / name).write_text(text)


def _xml(*objects, **kwargs):
    return lambda root: write_xml(root / "Annotations" / "b.xml", objects, **kwargs)


FAULTS = {
    "no list": (_remove("ImageSets/Main/train.txt"), [WHERE, "no image set 'train'", "allowed: test"]),
    "empty list": (_write("ImageSets/Main/train.txt", "\n\n"), ["train.txt: the list names no image"]),
}  # fmt: skip


FILE_FAULTS = {
    "no image": (_remove("JPEGImages/b.jpg"), ["train.txt, line 2", "no image 'b'", "holds a.jpg, c.jpg"]),
    "no annotation": (_remove("Annotations/b.xml"), ["train.txt, line 2", "no annotation", "Annotations/b.xml"]),
    "half an XML": (_write("Annotations/b.xml", "<annotation>\n<object>\n"), ["b.xml, line 3: malformed XML"]),
    "stray &": (_write("Annotations/b.xml", "<annotation>\n<a>x & y</a></annotation>"), ["b.xml, line 2: malformed"]),
    "empty XML": (_write("Annotations/b.xml", ""), ["b.xml, line 1: malformed XML (no element found"]),
    "other encoding": (_write("Annotations/b.xml", "<?xml version='1.0' encoding='gb2312'?><a/>"), ["b.xml", "UTF-8"]),
    "other root": (_xml(root="html"), ["b.xml: the root element is <html>"]),
    "near class": (_xml(("cats", (1, 1, 5, 5))), ["b.xml object 1 (class 'cats' is unknown; did you mean 'cat'?"]),
    "far class": (_xml(("cat", (1, 1, 5, 5)), ("wolf", (1, 1, 5, 5))), ["object 2 (class 'wolf'", "allowed: cat"]),
    "word for a number": (_xml(("cat", ("left", 1, 5, 5))), ["b.xml object 1 (cat: ", "xmin 'left'"]),
    "number missing": (_xml(("cat", ("", 1, 5, 5))), ["b.xml object 1 (cat: ", "four numbers"]),
    "no box": (
        _write("Annotations/b.xml", "<annotation><object><name>cat</name></object></annotation>"),
        ["b.xml object 1 (cat: has no <bndbox>"],
    ),
    "no name": (_xml((" ", (1, 1, 5, 5))), ["b.xml object 1 (has no <name>)"]),
    "unreadable image": (
        lambda root: (_xml(("cat", (1, 1, 5, 5)), size=None)(root), (root / "JPEGImages/b.jpg").write_bytes(b"?")),
        ["b.jpg (1 bytes that are no image OpenCV can decode)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS | FILE_FAULTS)
def test_faults_are_told_in_one_line_that_names_the_place(tmp_path, fault):
    root = write_voc(tmp_path / "set", {"train": ["a", "b", "c"], "test": ["a"]})
    spoil, words = (FAULTS | FILE_FAULTS)[fault]
    spoil(root)
    with pytest.raises(UserError) as error:
        read(root, sets=["train"], classes=("cat",), on_bad="fail" if fault in FILE_FAULTS else "drop")
    message = str(error.value)
    assert str(root) in message and "\n" not in message
    for word in words:
        assert word in message, message


def test_wrong_folders_are_told_with_what_is_there(tmp_path):
    root = write_voc(tmp_path / "cells", {"train": ["a"]})
    with pytest.raises(UserError, match="DATASET_DIR: there is no folder .*/cels; .* holds cells"):
        read(tmp_path / "cels")
    with pytest.raises(UserError, match="is no data set but holds some: cells"):
        read(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "readme.txt").touch()
    with pytest.raises(UserError, match=r"none: no VOC data set: .*the folder holds readme\.txt"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match=f"{WHERE}: .*no image set 'trian'.*did you mean 'train'"):
        read(root, sets=["trian"])
    kit = write_voc(tmp_path / "kit" / "VOC2007", {"train": ["a"]}).parent
    with pytest.raises(UserError, match=r"there is no folder VOC2012 for \['2012', 'train'\]; there are: .*VOC2007"):
        read(kit, sets=[["2012", "train"]])


def test_loose_folders_tell_what_does_not_fit(tmp_path, caplog):
    root = write_loose(tmp_path / "set", ["a", "b", "c"])
    (root / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"b\.xml \(below .* is no image 'b'"):
        read(root, sets=["all"], on_bad="fail")
    assert ids(read(root, sets=["all"])) == ["a", "c"]
    assert "1 faulty image in 3: 1 image missing (dropped)" in caplog.text
    write_image(root / "b.jpg")
    write_xml(root / "copy" / "b.xml", [("cat", (1, 1, 5, 5))])
    with pytest.raises(UserError, match=r"b\.xml \(the only image it could mean is .*b\.jpg, which belongs to"):
        read(root, sets=["all"], on_bad="fail")
    for stem in "abc":
        (root / f"{stem}.jpg").unlink()
    with pytest.raises(UserError, match=r"no annotation has an image; the first is .*a\.xml"):
        read(root)


def test_a_split_that_makes_no_sense_is_refused(tmp_path):
    root = write_loose(tmp_path / "set", ["a", "b"])
    with pytest.raises(UserError, match="2 annotated images are too few"):
        read(root)
    for parts in ((0, 1, 1), (0.5, 0.5), (1, -0.1, 0.1)):
        with pytest.raises(UserError, match=r"DATASET\.SPLIT"):
            read(root, plan=SplitPlan(parts))


def test_classes_given_twice_or_nowhere_are_refused(tmp_path):
    root = write_voc(tmp_path / "set", {"train": ["a"]}, {"a": []})
    with pytest.raises(UserError, match="DATASET.CLASSES: 'cat' is named twice"):
        read(root, classes=("cat", "dog", "cat"))
    with pytest.raises(UserError, match="no annotation holds an object"):
        read(root)
    assert len(read(root, classes=("cat",)).target(0).labels) == 0


def test_twenty_names_on_other_data_point_to_discovery(tmp_path):
    root = write_voc(tmp_path / "set", {"train": ["a"]}, {"a": [("WBC", (1, 1, 9, 9))]})
    with pytest.raises(UserError, match="class 'WBC' is unknown.*DATASET.DATASET: custom.*not one of 1 objects"):
        read_voc([str(root)], ["train"], "train")


def test_photographs_with_two_empty_boxes(shared, caplog):
    records = read(shared / "data" / "BCCD", sets=["trainval", "test"])
    counts = dict(zip(records.class_names, records.num_objects_per_class().tolist(), strict=True))
    assert len(records) == 364 and counts == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert "train: 2 faulty boxes in 364: 2 boxes empty (dropped)" in caplog.text

"""Input made to do harm is answered by one line or by the data policy: nothing of it runs, reads or writes elsewhere,
or takes memory without end.  Mistakes that happen are in test_bad_input.py, more archives in
test_download_tool.py."""

import json
import logging
import os
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.commands import run_command
from lib.config import load_config
from lib.config.effective import config_to_dict
from lib.config.yaml_text import parse_yaml
from lib.dataset.assembly import ClassTable, track_numbers
from lib.dataset.coco import read_coco_stills
from lib.dataset.coco_json import read_coco
from lib.dataset.image_header import MAX_BYTES, read_facts, refuse_oversized
from lib.dataset.imagenet_vid import read_imagenet_vid
from lib.dataset.voc import read_custom
from lib.dataset.voc_xml import BadAnnotation, parse_annotation
from lib.dataset.yolo import read_yolo
from lib.dataset.yolo_txt import parse_labels, read_description
from lib.evaluation.results import load_results
from lib.modeling.darknet_weights import read_darknet_weights
from lib.predictor import ObjectDetector
from lib.solver.checkpoint import read_checkpoint
from lib.tools.check_fix import LOG, MARK, restore
from lib.tools.download_unpack import Archive
from lib.utils.errors import UserError
from lib.utils.files import plain_name
from lib.utils.log import setup_logging
from lib.utils.page import Page
from tests.dataset.folders import write_image, write_voc, write_xml, xml_text
from tests.dataset.test_imagenet_vid import TRAIN_A, write_list, write_snippet
from tests.dataset.test_inspection import png_header
from tests.detectors import write_detector

ROOT = Path(__file__).resolve().parent.parent
ESCAPE = "\x1b[2J"


def put(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@contextmanager
def at_most(megabytes: int):
    """Inside, the process gets so much more memory and no more."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def refusal(call, *args) -> str:
    """The one line by which a call refuses its input."""
    with at_most(600), pytest.raises(UserError) as caught:
        call(*args)
    return str(caught.value)


class TestYaml:
    def test_a_long_list_is_not_built_before_it_is_refused(self):
        assert "too many or too deeply nested values" in refusal(parse_yaml, "A: [" + "1," * 200_000 + "]", "x.yml")

    @pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
    def test_endless_nesting(self, opening):
        assert "nested too deep" in refusal(parse_yaml, opening * 100_000, "x.yml")

    @pytest.mark.parametrize(
        "list_text", ["(" * 300_000, "(" + "-" * 300_000 + "1, 2)", "(a" + ".a" * 100_000 + ", 2)"]
    )
    def test_lists_inside_quotes(self, tmp_path, list_text):
        path = put(tmp_path / "x.yml", f"MODEL: {{IMAGE_SIZE: '{list_text}'}}")
        assert "MODEL.IMAGE_SIZE" in refusal(load_config, path)

    def test_bases_that_double_at_every_step(self, tmp_path):
        for number in range(40):
            put(tmp_path / f"{number}.yml", f"_BASE_: [{number + 1}.yml, {number + 1}.yml]")
        put(tmp_path / "40.yml", "SEED: 1")
        assert "_BASE_: more than 50 files" in refusal(load_config, tmp_path / "0.yml")

    @pytest.mark.parametrize(
        "name, reason",
        [
            ("/dev/zero", "larger than 1000 kB"),
            ("loop.yml", "no such file"),
            ('"a\\0b"', "expected a file name"),
            ("~nobody_of_that_name/x.yml", "no such file"),
            ("secret", "expected keys such as 'MODEL:' at the top level"),
        ],
    )
    def test_bases_that_are_no_configuration(self, tmp_path, name, reason):
        (tmp_path / "loop.yml").symlink_to("loop.yml")
        put(tmp_path / "secret", "a word")
        assert reason in refusal(load_config, put(tmp_path / "x.yml", f"_BASE_: {name}"))

    def test_a_base_may_lie_elsewhere(self, tmp_path):
        put(tmp_path / "other" / "base.yml", "SEED: 7")
        assert load_config(put(tmp_path / "here" / "x.yml", "_BASE_: ../other/base.yml")).SEED == 7


class TestXml:
    @pytest.mark.parametrize(
        "content, reason",
        [
            ("<annotation>" + "<a>" * 200_000, "more than 100 elements in each other"),
            ("<annotation>" + "<a>" * 200_000 + "</a>" * 200_000 + "</annotation>", "elements in each other"),
            ("<annotation a='" + "x" * 40_000_000 + "'/>", "larger than 32 MB"),
            ("<!DOCTYPE a [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]><annotation/>", "declares the entity 'p'"),
            (b'<?xml version="1.0" encoding="cp037"?>' + "<!DOCTYPE a><annotation/>".encode("cp037"), "XML"),
        ],
        ids=["open", "closed", "attribute", "parameter entity", "hidden by its encoding"],
    )
    def test_it_is_refused_as_an_annotation(self, tmp_path, content, reason):
        assert reason in refusal(parse_annotation, str(put(tmp_path / "a.xml", content)))

    def test_a_doctype_reads_no_other_file(self, tmp_path):
        put(tmp_path / "x.dtd", "<!ENTITY a 'secret'>")
        path = put(tmp_path / "a.xml", f"<!DOCTYPE annotation SYSTEM '{tmp_path}/x.dtd'><annotation>&a;</annotation>")
        with pytest.raises(BadAnnotation):
            parse_annotation(str(path))
        put(path, f"<!DOCTYPE annotation SYSTEM '{tmp_path}/x.dtd'>{xml_text()}")
        assert parse_annotation(str(path)).size == (60, 80)

    def test_large_but_sound_annotations_are_read(self, tmp_path):
        path = write_xml(tmp_path / "a.xml", [("cat", (1, 2, 3, 4))] * 5000)
        assert path.stat().st_size > 500_000 and len(parse_annotation(str(path)).boxes) == 5000

    @pytest.mark.parametrize("parse, name", [(parse_annotation, "a.xml"), (parse_labels, "a.txt")])
    def test_a_pipe_is_not_waited_for(self, tmp_path, parse, name):
        os.mkfifo(tmp_path / name)
        assert "is no file" in refusal(parse, str(tmp_path / name))


class TestCocoJson:
    IMAGES = [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}]

    def file(self, folder, text="", **changes):
        thing = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], **changes.pop("thing", {})}
        content = {"images": self.IMAGES, "categories": [{"id": 1, "name": "cat"}], "annotations": [thing], **changes}
        return put(folder / "annotations" / "train.json", text or json.dumps(content))

    @pytest.mark.parametrize(
        "text",
        ['{"images":' + "[" * 1_000_000, '{"images": [{"id": ' + "9" * 1_000_000 + "}]}"],
        ids=["deep", "digits"],
    )
    def test_brackets_and_digits_without_end(self, tmp_path, text):
        assert "no JSON that can be read" in refusal(read_coco, self.file(tmp_path, text))

    @pytest.mark.parametrize("depth", range(960, 1000, 3))
    def test_nesting_that_is_just_read_can_be_told(self, tmp_path, depth):
        nested = '{"a":' * depth + "1" + "}" * depth
        assert "train.json: " in refusal(read_coco, self.file(tmp_path, f'{{"images": [{{"id": {nested}}}]}}'))

    @pytest.mark.parametrize(
        "changes, reason",
        [
            ({"images": None, "videos": 5}, "has no 'images'"),
            ({"images": IMAGES * 2}, "the id 1 is also that of images[0]"),
            ({"images": [{"id": True, "file_name": "a"}]}, "must be a whole number or a text"),
            ({"annotations": {"a": 1}}, "'annotations' is no list"),
            ({"categories": [{"id": 1, "name": ["cat"]}]}, "'name' is ['cat']; it must be a text"),
        ],
    )
    def test_wrong_kinds(self, tmp_path, changes, reason):
        assert reason in refusal(read_coco, self.file(tmp_path, **changes))

    @pytest.mark.parametrize("bbox", ["1234", {"1": 1, "2": 2, "3": 3, "4": 4}, [[1], 2, 3, 4], [1, 2, 3, 10**400]])
    def test_boxes_of_wrong_kinds(self, tmp_path, bbox):
        ((image),) = read_coco(self.file(tmp_path, thing={"bbox": bbox})).images
        ((number, case, _),) = image.annotation.faults
        assert (number, case) == (1, "no_number") and not image.annotation.boxes

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 10**400, "x", {"a": 1}, True, None])
    def test_areas_and_tracks_that_are_no_numbers_count_as_none(self, tmp_path, value):
        (image,) = read_coco(self.file(tmp_path, thing={"area": value, "track_id": {"a": value}})).images
        assert np.isnan(image.annotation.areas).all() and image.annotation.tracks == [""]

    @pytest.mark.parametrize(
        "name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "..\\secret.jpg", "secret\0.jpg"]
    )
    def test_names_that_lead_out_of_the_folder(self, tmp_path, caplog, name):
        write_image(tmp_path / "secret.jpg")
        write_image(tmp_path / "data" / "a.jpg")
        self.file(tmp_path / "data", images=[*self.IMAGES, {"id": 2, "file_name": name}])
        records = read_coco_stills([str(tmp_path / "data")], None, "train")
        assert [Path(records.image_path(i)).name for i in range(len(records))] == ["a.jpg"]
        assert "1 image outside the folder (dropped)" in caplog.text and "\0" not in caplog.text

    def test_linked_folders_of_images_are_followed(self, tmp_path):
        write_image(tmp_path / "elsewhere" / "a.jpg")
        self.file(tmp_path / "data")
        (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere")
        assert len(read_coco_stills([str(tmp_path / "data")], None, "train")) == 1


class TestLists:
    def test_linked_folders_of_voc_are_followed(self, tmp_path):
        write_voc(tmp_path / "real", {"train": ["a"]})
        (tmp_path / "data").mkdir()
        for name in ("JPEGImages", "Annotations", "ImageSets"):
            (tmp_path / "data" / name).symlink_to(tmp_path / "real" / name)
        assert len(read_custom([str(tmp_path / "data")], ["train"], "train", ("cat",))) == 1

    @pytest.mark.parametrize("line", [f"{TRAIN_A} " + "9" * 5000, " ".join("1" * 50_000), "a" + " " * 100_000 + "b"])
    def test_numbers_and_spaces_without_end_in_lists_of_videos(self, tmp_path, caplog, line):
        write_snippet(tmp_path, TRAIN_A, 2)
        write_list(tmp_path, "train", TRAIN_A, line)
        assert len(read_imagenet_vid([str(tmp_path)], None, "train")) == 2
        assert "1 image missing" in caplog.text

    def test_frames_whose_numbers_no_counter_holds(self, tmp_path):
        for name in ("9" * 30, "1"):
            write_image(tmp_path / "Data" / "VID" / "val" / "s" / f"{name}.JPEG")
        records = read_imagenet_vid([str(tmp_path)], None, "test")
        assert [records.image_id(i)[1] for i in range(2)] == [0, 1]

    def test_long_names_of_tracks_take_no_room_of_their_own(self):
        with at_most(100):
            found = track_numbers(["x" * 100_000, *["7"] * 100_000, ""])
        assert found[0] == 8 and (found[1:-1] == 7).all() and found[-1] == -1

    def test_a_description_with_a_class_of_endless_number(self, tmp_path):
        path = put(tmp_path / "data.yaml", f"names:\n  ? {'9' * 5000}\n  : cat\n")
        assert "neither a list nor numbers with names" in refusal(read_description, path)

    def test_a_description_of_a_folder_whose_name_is_too_long(self, tmp_path):
        write_image(tmp_path / "images" / "a.jpg")
        put(tmp_path / "data.yaml", f"path: {'p' * 300}\nnames: [cat]\ntrain: {'a' * 5000}\n")
        assert "there is no folder or list" in refusal(read_yolo, [str(tmp_path)], None, "train")

    def test_a_description_of_the_home_of_nobody(self, tmp_path):
        write_image(tmp_path / "images" / "a.jpg")
        put(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
        put(tmp_path / "data.yaml", "path: ~nobody_of_that_name\nnames: [cat]\ntrain: images\n")
        assert len(read_yolo([str(tmp_path)], None, "train")) == 1


class TestImages:
    def gif(self, side: int) -> bytes:
        """A GIF of one pixel that claims to have more."""
        size = struct.pack("<HH", side, side)
        return b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0" + size + b"\0\x02\x02\x4c\x01\0;"

    def sun_raster(self, side: int) -> bytes:
        return struct.pack(">8I", 0x59A66A95, side, side, 24, side * side * 3, 1, 0, 0) + bytes(100)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory as Linux tells it")
    def test_headers_that_lie_get_no_memory(self, tmp_path):
        """In a process of its own: OpenCV reads its limits once."""
        paths = [put(tmp_path / f"a.{kind}", getattr(self, kind)(30_000)) for kind in ("gif", "sun_raster")]
        code = (
            "import sys, lib\nfrom lib.dataset.image_header import read_facts\n"
            "print(*(read_facts(path).case for path in sys.argv[1:]))\n"
            # Not getrusage, which begins with what the parent had when it forked.
            "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
            "print(int(peak.split()[1]) < 2_000_000)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.split() == ["no_image", "no_image", "True"], done.stderr

    def test_a_png_that_unpacks_to_gigabytes_is_not_decoded(self, tmp_path, caplog):
        rows = zlib.compressobj(9)
        packed = b"".join(rows.compress(bytes(3 * 60_000 + 1)) for _ in range(200)) + rows.flush()
        chunk = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
        path = put(tmp_path / "a.png", png_header(60_000, 60_000).replace(b"\0\0\0\0IEND", chunk + b"\0\0\0\0IEND"))
        assert read_facts(str(path)).case == "oversized_image"
        assert "its header says more than" in refusal(refuse_oversized, str(path))

    def test_a_file_larger_than_any_image(self, tmp_path):
        path = tmp_path / "a.jpg"
        with open(path, "wb") as file:
            file.write(b"\xff\xd8\xff")
            file.truncate(MAX_BYTES + 1)  # takes no room on the disk
        with at_most(100):
            assert read_facts(str(path)).case == "oversized_image"
        assert "has more than" in refusal(refuse_oversized, str(path))

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.jpg")
        assert read_facts(str(tmp_path / "a.jpg")).case == "unreadable_image"
        assert "is no file" in refusal(refuse_oversized, str(tmp_path / "a.jpg"))


class TestClassNames:
    @pytest.mark.parametrize(
        "name", [f"{ESCAPE}cat", "cat\nerror: hacked", "c\x9bat", "cat\u202egnp.", "\ud800", "a\0"]
    )
    def test_names_that_steer_a_screen_are_refused(self, name):
        message = refusal(ClassTable, ["dog", name])
        assert message.startswith("DATASET.CLASSES: ") and message.isprintable()

    @pytest.mark.parametrize("name", ["猫 é", "<script>alert(1)</script>", "../../cat", "a/b", "ka\u200dtze", "c\xa0d"])
    def test_odd_names_are_names(self, name):
        assert ClassTable([name]).names == (name,)

    def test_those_of_a_checkpoint_are_held_to_the_same(self, tmp_path):
        cfg_path, weights = write_detector(tmp_path)
        cfg = load_config(cfg_path)
        content = {"format": 1, "model": torch.load(weights), "config": config_to_dict(cfg)}
        torch.save({**content, "class_names": ["disc", "no", f"{ESCAPE}off"]}, weights)
        assert "holds characters that cannot be shown" in refusal(ObjectDetector, cfg, weights)
        cfg.DATASET.CLASSES[0] = ESCAPE
        torch.save(torch.load(write_detector(tmp_path)[1]), weights)
        assert refusal(ObjectDetector, cfg, weights).startswith("DATASET.CLASSES: ")

    def test_names_of_files_cannot_steer_a_screen_or_a_log(self, tmp_path, capsys):
        setup_logging(tmp_path)
        logging.getLogger("lib").warning("%s: first\nsecond", f"{ESCAPE}a.jpg")
        told = capsys.readouterr().err, (tmp_path / "log.txt").read_text()
        for text in told:
            assert "\x1b" not in text and r"\x1b[2Ja.jpg: first" in text and len(text.splitlines()) == 2

    def test_an_error_stays_one_line(self, capsys):
        def body():
            raise UserError(f"a\n{ESCAPE}b: no such file")

        assert run_command(body) == 2
        assert capsys.readouterr().err == "error: a\\n\\x1b[2Jb: no such file\n"

    def test_pages_fetch_nothing_whatever_the_names(self, tmp_path):
        name = "\"><img src=http://x/y onerror=alert(1)><script src='//x/z'></script>"
        page, picture = Page(name, name), np.zeros((2, 2, 3), np.uint8)
        page.heading(name)
        page.text(name)
        page.table([name], [[name], [(name, 1)]], name)
        page.picture(picture, name)
        page.gallery([(picture, name, name), (picture, name, name)], [[name], ["other"]])
        content = page.write(tmp_path / "p.html").read_text()
        assert "<img src=http" not in content and "<script src" not in content and "default-src 'none'" in content

    @pytest.mark.parametrize("image_id", ["../../x", "a\nb", "a" * 400, "x/" * 300 + "y", "猫" * 100, 'a:b*?"<>|'])
    def test_names_of_images_make_file_names(self, tmp_path, image_id):
        name = plain_name(image_id)
        put(tmp_path / f"{name}.jpg", b"")
        assert [path.name for path in tmp_path.iterdir()] == [f"{name}.jpg"]
        assert name.isprintable() and plain_name("video/000012") == "video_000012"

    def test_long_names_stay_apart(self):
        assert plain_name("a" * 400 + "b") != plain_name("a" * 400 + "c")


class TestResults:
    ENTRY = {"image_id": "i", "category_id": 1, "category_name": "cat", "bbox": [1, 2, 3, 4], "score": 0.5}

    @pytest.mark.parametrize(
        "changes",
        [
            {"category_name": [1]}, {"category_name": {}}, {"category_name": 5},
            {"category_id": "1", "category_name": None},
            {"score": 10**400}, {"score": "0.5"}, {"score": None}, {"bbox": "1234"}, {"bbox": {"a": 1}}, {"bbox": None},
            {"bbox": [1, 2, 10**400, 4]}, {"bbox": [1, 2, [3], 4]}, {"image_id": None}, {"image_id": 1.5},
            {"image_id": [[1], 2]}, {"image_id": {"a": 1}},
        ],
    )  # fmt: skip
    def test_wrong_kinds(self, tmp_path, changes):
        path = put(tmp_path / "d.json", json.dumps([self.ENTRY | changes]))
        assert refusal(load_results, path, ("cat", "dog")).startswith(f"{path}: entry 0: ")

    @pytest.mark.parametrize("depth", range(960, 1000, 3))
    def test_nesting_that_is_just_read_can_be_told(self, tmp_path, depth):
        nested = '{"a":' * depth + "1" + "}" * depth
        text = json.dumps([self.ENTRY]).replace('"cat"', nested)
        assert "d.json: " in refusal(load_results, put(tmp_path / "d.json", text), ("cat",))


def long_number(number: int) -> bytes:
    """The pickle of a whole number."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def pickled_tensor(values: int, offset: int, size, stride) -> bytes:
    """The pickle of a tensor over a storage of so many values, as torch writes it."""
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu" + long_number(values) + b"tQ"
    shape = b"(" + b"".join(map(long_number, size)) + b"t(" + b"".join(map(long_number, stride)) + b"t"
    values = storage + long_number(offset) + shape
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + values + b"\x89ccollections\nOrderedDict\n)RtR"


FOREIGN = b"X\3\0\0\0optcos\nmkdir\n)Rs"
"""An object beside the weights, for which another reader than torch's is taken."""


class TestCheckpoints:
    def write(self, path, pickled: bytes, compression=zipfile.ZIP_STORED, grow=0) -> Path:
        """A file of torch with one storage of four values and that pickle; `grow` more bytes that pack well."""
        torch.save({"weight": torch.arange(4.0)}, path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in entries.items():
                data = data + bytes(grow) if name.endswith("data/0") else data
                archive.writestr(name, pickled if name.endswith("data.pkl") else data)
        return path

    @pytest.mark.parametrize("beside", [b"", FOREIGN], ids=["weights", "with objects"])
    @pytest.mark.parametrize(
        "values, offset, size, stride",
        [
            (4, 0, [2**60], [1]), (4, 0, [8], [1]), (4, 0, [2, 2], [2**20, 1]), (4, 2**40, [1], [1]), (4, -4, [1], [1]),
            (4, 3, [4], [-1]), (4, 0, [-4], [1]), (4, 0, [2**50], [0]), (4, 0, [2**31, 2**31], [0, 0]),
            (2**20, 0, [2**20], [1]), (2**60, 0, [2**60], [1]), (-1, 0, [4], [1]),
        ],
    )  # fmt: skip
    def test_tensors_that_reach_beyond_their_storage(self, tmp_path, values, offset, size, stride, beside):
        tensor = pickled_tensor(values, offset, size, stride)
        path = self.write(tmp_path / "w.pth", b"\x80\2}X\6\0\0\0weight" + tensor + b"s" + beside + b".")
        assert "w.pth: " in refusal(read_checkpoint, path)

    @pytest.mark.parametrize("values", [2**40, 2**33])
    def test_storages_of_the_old_format_that_lie(self, tmp_path, values):
        torch.save({"weight": torch.arange(4.0)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        data = (tmp_path / "w.pth").read_bytes()
        place = data.index(b"K\4", data.index(b"cpu"))
        (tmp_path / "w.pth").write_bytes(data[:place] + long_number(values) + data[place + 2 :])
        assert "not a readable checkpoint" in refusal(read_checkpoint, tmp_path / "w.pth")

    @pytest.mark.parametrize(
        "announced",
        [b"cbuiltins\nbytearray\n(" + long_number(2**36) + b"tR", b"Nr\xff\xff\xff\x7f"],
        ids=["bytes", "objects"],
    )
    def test_pickles_that_announce_more_than_they_hold(self, tmp_path, announced):
        rest = b"X\1\0\0\0a" + announced + b"s" + FOREIGN + b"."
        weight = b"X\6\0\0\0weight" + pickled_tensor(4, 0, [4], [1]) + b"s"
        path = self.write(tmp_path / "w.pth", b"\x80\2}" + weight + rest)
        with at_most(600):
            assert read_checkpoint(path, quiet=True)["weight"].tolist() == [0, 1, 2, 3]

    def test_an_archive_that_grows(self, tmp_path):
        weight = b"\x80\2}X\6\0\0\0weight" + pickled_tensor(4, 0, [4], [1]) + b"s."
        path = self.write(tmp_path / "w.pth", weight, zipfile.ZIP_DEFLATED, 50_000_000)
        assert "would unpack to 50 MB, many times its size" in refusal(read_checkpoint, path)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        "create",
        [
            lambda: torch.empty(2**20, 2**20, device="meta"),
            lambda: torch.sparse_coo_tensor([[1]], [1.0], (2**50,), check_invariants=True),
            lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        ],
        ids=["meta", "sparse", "quantized"],
    )
    def test_tensors_without_plain_values(self, tmp_path, create):
        torch.save({"weight": create()}, tmp_path / "w.pth")
        assert "a state_dict is dense" in refusal(read_checkpoint, tmp_path / "w.pth")

    def test_an_archive_in_an_archive(self, tmp_path):
        torch.save({"weight": torch.ones(2)}, tmp_path / "inner.pth")
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
            archive.write(tmp_path / "inner.pth", "inner.pth")
        assert "not a readable checkpoint" in refusal(read_checkpoint, tmp_path / "w.pth")

    @pytest.mark.parametrize(
        "changes",
        [
            {"config": 5}, {"config": {"MODEL": 5}}, {"config": {"DATASET": {"PIXEL_MEANS": ["a", 1, 2]}}},
            {"config": {"MODEL": {"IMAGE_SIZE": {"a": 1}}}}, {"config": {"EXP_DIR": torch.ones(1)}},
            {"config": {"unheard of": torch.zeros(0)}}, {"class_names": 5}, {"class_names": [1]}, {"ema": [1]},
            {"ema": {"w": torch.ones(3)}}, {"position": {"epoch": "x"}}, {"position": {}}, {"rng": {}},
            {"rng": {"torch": -1, "cuda": []}}, {"optimizer": []}, {"optimizer": {"state": {0: 1}}}, {"pruned": 3},
            {"best": {"mAP": "x"}}, {"model": {"weight": 1}}, {"model": {3: torch.ones(1)}},
        ],
    )  # fmt: skip
    def test_entries_of_a_run_that_training_does_not_write(self, tmp_path, changes):
        torch.save({"format": 1, "model": {"w": torch.ones(2)}} | changes, tmp_path / "w.pth")
        assert "not a checkpoint as training writes it: " in refusal(read_checkpoint, tmp_path / "w.pth")

    def test_of_a_large_file_of_darknet_only_the_needed_part_is_read(self, tmp_path):
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
        path = put(tmp_path / "w.weights", np.array([0, 2, 5, 0, 0], "<i4").tobytes() + np.ones(14, "<f4").tobytes())
        with open(path, "r+b") as file:
            file.truncate(2**32)
        with at_most(100):
            assert read_darknet_weights(path, net).left_over == 2**30 - 5 - 14


class TestArchives:
    def test_a_bomb_is_refused_before_it_is_unpacked(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.txt", bytes(50_000_000))
        assert (tmp_path / "a.zip").stat().st_size < 100_000
        with pytest.raises(UserError, match="refused, it would unpack to 50 MB, many times the 1 MB of the data set"):
            Archive(tmp_path / "a.zip", "(.+)", 1_000_000)

    @pytest.mark.parametrize("place", ["../x.xml", "/etc/x.xml", "a/../../x.xml"])
    @pytest.mark.parametrize("entry", ["files", "images_left_out"])
    def test_a_log_of_changes_turns_nothing_back_outside_of_its_folder(self, tmp_path, place, entry):
        kept = put(tmp_path / "x.xml", "mine")
        log = {MARK: "x.yml", "files": {}, "images_left_out": {}}
        log[entry] = {place: {"source": None, "written": None} if entry == "files" else str(kept)}
        put(tmp_path / "copy" / LOG, json.dumps(log))
        assert "is no path below the copy" in refusal(restore, tmp_path / "copy")
        assert kept.read_text() == "mine"

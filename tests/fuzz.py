"""Feeds broken files to every reader: each must take them or refuse them by one UserError, in little time and memory.

`make fuzz SECONDS=60`, or `python tests/fuzz.py SECONDS [READER]`: so long for each reader.  A file that breaks one is
kept as fuzz_READER in the working folder.  test_fuzz.py runs a few hundred fixed ones.
"""

import contextlib
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run this file as a script

import cv2
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import nn

from lib.config import load_config
from lib.config.effective import config_to_dict, dump_config
from lib.dataset.coco import read_coco_stills
from lib.dataset.coco_vid import read_coco_vid
from lib.dataset.image_header import refuse_oversized
from lib.dataset.imagenet_vid import read_imagenet_vid
from lib.dataset.transforms import read_image
from lib.dataset.voc import read_custom
from lib.dataset.yolo import read_yolo
from lib.evaluation.results import load_results
from lib.modeling.darknet_weights import read_darknet_weights
from lib.solver import checkpoint as ckpt
from lib.utils.errors import UserError
from tests.dataset.folders import write_image, write_voc, xml_text

MEGABYTES, SECONDS = 1500, 10.0
"""What one file may take."""

TOKENS = [
    b"", b"\0", b"\n", b"\xff\xfe", b"\xef\xbb\xbf", b"nan", b"-inf", b"1e999", b"-1", b"0", b"9" * 30, b"9" * 5000,
    b"null", b"true", b"[]", b"{}", b"[" * 2000, b"<" * 50, b"&lt;", b"<!DOCTYPE a [", b"<!ENTITY a 'b'>", b"../",
    b"/etc/passwd", b"\x1b[2J", "猫".encode(), b"\\ud800", b"~x/", b"*a", b"&a ", b"!!int ", b"_BASE_: ", b"'", b'"',
    b":", b"%", b"a" * 300,
]  # fmt: skip
"""Words that readers stumble over."""

DEEP = "many brackets"
LEAVES = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats()
JSON = st.recursive(
    LEAVES | st.sampled_from(["", "cat", "../x", "\0", "1", DEEP, 10**400, -(10**400)]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["id", "name"]), part, max_size=2),
    max_leaves=5,
)


class Reader(NamedTuple):
    """A reader: sound files for it, the call that opens a folder with the file, and where the file stands in it."""

    files: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    place: str
    is_json: bool = False


@st.composite
def edited(draw, reader: Reader):
    """A sound file after a few changes: bytes flipped, cut out, doubled or replaced by words, and nodes of JSON."""
    data = draw(st.sampled_from(_sound(reader)))
    if reader.is_json and draw(st.booleans()):
        text = json.dumps(_with_node(json.loads(data), draw))
        return text.replace(f'"{DEEP}"', "[" * 900 + "]" * 900).encode()
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([0, 1, 2, 4, 16, 200]))
        kind = draw(st.sampled_from(["flip", "cut", "end", "word", "double", "token", "random"]))
        head, part, tail = data[:start], data[start : start + length], data[start + length :]
        if kind == "flip":
            data = head + bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in part) + tail
        elif kind == "cut":
            data = head + tail
        elif kind == "end":
            data = head
        elif kind == "double":
            data = head + part * 3 + tail
        elif kind == "random":
            data = head + draw(st.binary(max_size=8)) + tail
        elif kind == "word":
            data = head + draw(st.sampled_from(TOKENS)) + tail
        else:  # in place of a word or a number of the file
            words = list(re.finditer(rb"[\w.+-]+", data[:200_000]))
            if words:
                word = draw(st.sampled_from(words))
                data = data[: word.start()] + draw(st.sampled_from(TOKENS)) + data[word.end() :]
    return data


def _with_node(content, draw):
    """JSON with some of its nodes replaced or left out."""
    for _ in range(draw(st.integers(1, 3))):
        nodes, waiting = [], [content]
        while waiting:
            node = waiting.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
            nodes += [(node, key) for key in keys]
            waiting += [node[key] for key in keys]
        if nodes:
            node, key = draw(st.sampled_from(nodes))
            if draw(st.integers(0, 3)):
                node[key] = draw(JSON)
            else:
                del node[key]
    return content


_FILES: dict[str, list[bytes]] = {}


def _sound(reader: Reader) -> list[bytes]:
    if reader.place not in _FILES:
        _FILES[reader.place] = reader.files()
    return _FILES[reader.place]


# --- sound files ------------------------------------------------------------------------------------------------------


def xml_files() -> list[bytes]:
    objects = [("cat", (11, 21, 41, 51)), ("dog", (1, 2, 30, 40), 1)]
    return [xml_text(objects, filename="b.jpg").encode(), xml_text().encode("utf-16"), xml_text(objects).encode()]


def coco_files() -> list[bytes]:
    images = [
        {"id": n, "file_name": f"{n}.jpg", "height": 60, "width": 80, "video_id": 1, "frame_id": n} for n in (1, 2)
    ]
    thing = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 9.5, "iscrowd": 0, "track_id": 3}
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [thing],
        "videos": [{"id": 1}],
    }
    return [json.dumps(content).encode(), json.dumps(content, indent=1).encode()]


def image_files() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    kinds = (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".gif", ".jp2", ".sr", ".hdr")
    return [np.asarray(cv2.imencode(kind, pixels)[1], np.uint8).tobytes() for kind in kinds]


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2))


def checkpoint_files() -> list[bytes]:
    state = {f"backbone.layers.{name}": tensor for name, tensor in small_net().state_dict().items()}
    run = {"format": 1, "model": state, "config": config_to_dict(load_config(None)), "class_names": ["cat"],
           "position": {"epoch": 1, "batch": 0, "step": 3}}  # fmt: skip
    beside = {"state_dict": state, "optimizer": torch.optim.SGD(small_net().parameters(), 0.1)}
    found = []
    for content in (state, run, beside):
        for as_zip in (True, False):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=as_zip)
            found.append(file.getvalue())
    return found


def pickle_files() -> list[bytes]:
    """The pickles inside of checkpoints, so that changes of theirs are not found out by checksums."""
    found = []
    for data in checkpoint_files()[::2]:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found.append(next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")))
    return found


def darknet_files() -> list[bytes]:
    return [np.array([0, 2, 5, 0, 0], "<i4").tobytes() + np.ones(14, "<f4").tobytes()]


def results_files() -> list[bytes]:
    entry = {"image_id": "a", "category_id": 1, "category_name": "cat", "bbox": [1, 2, 3, 4], "score": 0.5}
    frame = {**entry, "image_id": ["video", 3], "category_id": 2, "category_name": "dog"}
    return [json.dumps([entry, frame]).encode(), json.dumps([{**entry, "category_name": None}], indent=1).encode()]


def config_files() -> list[bytes]:
    by_hand = b"_BASE_: base.yml\nMODEL: {SSDS: fssd, SIZES: [[1, 2], '(3, 4)']}\n"
    return [dump_config(load_config(None)).encode(), by_hand]


# --- what opens them --------------------------------------------------------------------------------------------------


def read_pictures(folder: Path):
    path = str(folder / "a.img")
    refuse_oversized(path)
    with contextlib.suppress(UserError):
        read_image(path, "apply")
    return read_custom([str(folder)], ["all"], "train", ("cat",))


def read_weights(folder: Path):
    path = folder / "w.pth"
    content = ckpt.read_checkpoint(path, quiet=True)
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"layers": small_net()})})
    ckpt.inputs_of(content)
    ckpt.weights_of(content, path)
    return ckpt.copy_weights(model, content, path) if not ckpt.is_run_checkpoint(content) else content


def read_pickle(folder: Path):
    sound, changed = io.BytesIO(_sound(READERS["checkpoint"])[2]), (folder / "data.pkl").read_bytes()
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(folder / "w.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, changed if name.endswith("data.pkl") else old.read(name))
    return read_weights(folder)


def read_both_coco(folder: Path):
    with contextlib.suppress(UserError):
        read_coco_vid([str(folder)], None, "train")
    return read_coco_stills([str(folder)], None, "train")


READERS = {
    "voc": Reader(xml_files, lambda f: read_custom([str(f)], ["train"], "train"), "Annotations/b.xml"),
    "voc_list": Reader(lambda: [b"a\nb\n", b"a 1\nb -1\n"], lambda f: read_custom([str(f)], ["train"], "train"),
                       "ImageSets/Main/train.txt"),
    "coco": Reader(coco_files, read_both_coco, "annotations/train.json", True),
    "yolo": Reader(lambda: [b"0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.2\n"],
                   lambda f: read_yolo([str(f)], None, "train"), "labels/1.txt"),
    "yolo_yaml": Reader(lambda: [b"path: .\ntrain: images\nval: images\nnc: 2\nnames: [cat, dog]\n",
                                 b"names:\n  0: cat\n  1: dog\ntrain: [images]\n"],
                        lambda f: read_yolo([str(f)], None, "train"), "data.yaml"),
    "vid_list": Reader(lambda: [b"s 1\n", b"s/000000 1\ns/000001 2\n", b"s 1 1 2\n"],
                       lambda f: read_imagenet_vid([str(f)], ["train"], "train"), "ImageSets/VID/train.txt"),
    "config": Reader(config_files, lambda f: dump_config(load_config(f / "x.yml")), "x.yml"),
    "results": Reader(results_files, lambda f: load_results(f / "d.json", ("cat", "dog")), "d.json", True),
    "checkpoint": Reader(checkpoint_files, read_weights, "w.pth"),
    "pickle": Reader(pickle_files, read_pickle, "data.pkl"),
    "darknet": Reader(darknet_files, lambda f: read_darknet_weights(f / "w.weights", small_net()), "w.weights"),
    "image": Reader(image_files, read_pictures, "a.img"),
}  # fmt: skip


def create_folder(folder: Path, name: str) -> Path:
    """The surroundings of a file: images, annotations and lists of its kind of data set."""
    folder.mkdir(exist_ok=True)
    if name in ("voc", "voc_list"):
        write_voc(folder, {"train": ["a", "b"]})
    elif name == "vid_list":
        for number in range(2):
            write_image(folder / f"Data/VID/train/s/{number:06d}.JPEG")
    elif name == "image":
        (folder / "a.xml").write_text(xml_text([("cat", (1, 2, 10, 12))], size=None))
        (folder / "a.jpg").symlink_to("a.img")
    else:
        for number in (1, 2):
            write_image(folder / f"images/{number}.jpg")
        (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
        (folder / "base.yml").write_text("SEED: 3\n")
    (folder / READERS[name].place).parent.mkdir(parents=True, exist_ok=True)
    return folder


def check(folder: Path, reader: Reader, data: bytes) -> None:
    """Let a reader have a file; AssertionError where it does anything but take it or refuse it by one line."""
    path = folder / reader.place
    path.write_bytes(data)
    limits, pages = resource.getrlimit(resource.RLIMIT_AS), int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEGABYTES * 2**20, limits[1]))
    before = time.process_time()
    try:
        reader.read(folder)
    except UserError as error:
        assert str(error)
    except Exception:
        kept = Path(f"fuzz_{path.name}").absolute()
        kept.write_bytes(data)
        raise AssertionError(f"{kept}: {traceback.format_exc()}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - before < SECONDS, f"{len(data)} bytes took longer than {SECONDS} s"


def fuzz(name: str, folder: Path, num_examples: int, number: int = 0) -> None:
    """Try so many files with a reader, always the same ones for a `number`; AssertionError for one that breaks it."""
    reader = READERS[name]
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    phases = [Phase.generate] if number else [Phase.generate, Phase.shrink]

    @seed(number)
    @settings(max_examples=num_examples, deadline=None, database=None, suppress_health_check=quiet, phases=phases)
    @given(edited(reader))
    def run(data):
        check(folder, reader, data)

    logging.disable(logging.CRITICAL)
    try:
        run()
    finally:
        logging.disable(logging.NOTSET)


def main(argv: list[str]) -> int:
    """The exit status: 1 where a reader broke, 2 where this script did."""
    budget, names, broken = float(argv[0]) if argv else 60.0, argv[1:] or list(READERS), 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the libraries that decode images tell much of broken ones
    for name in names:
        scratch = tempfile.mkdtemp()
        folder, stop, count = create_folder(Path(scratch), name), time.monotonic() + budget, 0
        try:
            while time.monotonic() < stop:
                fuzz(name, folder, 100, random.SystemRandom().randrange(1, 2**32))
                count += 100
            print(f"{name}: {count} files, none broke it", flush=True)
        except AssertionError as error:
            broken += 1
            print(f"{name}: broke after {count} to {count + 100} files: {error}", flush=True)
        except Exception:
            print(traceback.format_exc(), flush=True)
            return 2
        finally:
            shutil.rmtree(scratch)
    return 1 if broken else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))

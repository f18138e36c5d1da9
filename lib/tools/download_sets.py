"""The data sets that can be downloaded: addresses of their makers, sizes, checksums, and the layout they unpack to.

Checksums: the makers of VOC and COCO publish none.  The md5 of VOC are those that torchvision publishes; the sha256 of
COCO, and all sizes, are those of TensorFlow Datasets.  The archives that GitHub makes of a repository are not the same
for ever, so BCCD has none; what is compared are the checksums of the files inside.
"""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from ..utils.download import Expected
from ..utils.errors import UserError, nearest


class Part(NamedTuple):
    """One archive.  `sign` is a file below the data set's folder that is there once the archive is unpacked, `size`
    and `unpacked` are bytes, `names` matches what is wanted of it, group 1 being the place below that folder; `local`
    is what the archive is called here, if not as its address ends."""

    name: str
    path: str
    size: int
    expected: Expected
    sign: str
    names: str = r"(.+)"
    unpacked: int = 0
    local: str = ""

    @property
    def file_name(self) -> str:
        return self.local or self.path.rpartition("/")[2]


class DataSet(NamedTuple):
    """A data set: the address that the paths of its parts continue, and the configuration to train with.  `optional`
    parts are downloaded where they are asked for."""

    name: str
    address: str
    parts: tuple[Part, ...]
    config: str
    optional: tuple[str, ...] = ()

    def choose(self, text: str | None) -> list[Part]:
        """The parts that a comma list names; without one those that training and scoring need."""
        if text is None:
            return [part for part in self.parts if part.name not in self.optional]
        known = [part.name for part in self.parts]
        wanted = [name.strip() for name in text.split(",")]
        for name in wanted:
            if name not in known:
                raise UserError(f"--parts: '{name}' is no part of {self.name}; {nearest(name, known)}")
        return [part for part in self.parts if part.name in wanted]

    def addresses(self, part: Part, mirror: str | None) -> list[str]:
        """Where to look for a part; a mirror may have it without the makers' folders or in them."""
        if mirror is None:
            return [f"{self.address}/{part.path}"]
        return [f"{mirror.rstrip('/')}/{name}" for name in dict.fromkeys((part.file_name, part.path))]


def _voc(name: str, path: str, size: int, md5: str, sign: str) -> Part:
    return Part(name, path, size, Expected("md5", md5, size), sign, r"VOCdevkit/(.+)", size)


def _coco(name: str, path: str, size: int, sha256: str, sign: str, unpacked: int = 0) -> Part:
    return Part(name, path, size, Expected("sha256", sha256, size), sign, unpacked=unpacked or size)


VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
CONFIGS = "experiments/cfgs"

_VOC2007 = (
    _voc(
        "trainval", "voc2007/VOCtrainval_06-Nov-2007.tar", 460032000, "c52e279531787c972589f7e41ab4ae64",
        "VOC2007/ImageSets/Main/trainval.txt",
    ),
    _voc(
        "test", "voc2007/VOCtest_06-Nov-2007.tar", 451020800, "b6e924de25625d8de591ea690078ad9f",
        "VOC2007/ImageSets/Main/test.txt",
    ),
)  # fmt: skip
_VOC2012 = (
    _voc(
        "trainval", "voc2012/VOCtrainval_11-May-2012.tar", 1999639040, "6cd6e144f989b92b3379bac3b3de84fd",
        "VOC2012/ImageSets/Main/trainval.txt",
    ),
)  # fmt: skip
_COCO2017 = (
    _coco(
        "annotations", "annotations/annotations_trainval2017.zip", 252907541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268", "annotations/instances_train2017.json",
        850_000_000,
    ),
    _coco(
        "val", "zips/val2017.zip", 815585330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05", "val2017",
    ),
    _coco(
        "train", "zips/train2017.zip", 19336861798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929", "train2017",
    ),
    _coco(
        "test_info", "annotations/image_info_test2017.zip", 1144034,
        "e52f412dd7195ac8f98d782b44c6dd30ea10241e9f42521f67610fbe055a74f8", "annotations/image_info_test2017.json",
        20_000_000,
    ),
    _coco(
        "test", "zips/test2017.zip", 6646970404,
        "c7908c3c9f94ba2f3340ebbeec58c25db6be8774f18d68c2f15d0e369d95baba", "test2017",
    ),
)  # fmt: skip
_BCCD = (
    Part(
        "all", "refs/heads/master.zip", 10_000_000, Expected(), "ImageSets/Main/trainval.txt",
        r"[^/]+/(?:BCCD/)?(LICENSE|(?:Annotations|ImageSets|JPEGImages)/.+)", 20_000_000,
        "BCCD_Dataset.zip",
    ),
)  # fmt: skip

SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet("voc2007", VOC, _VOC2007, f"{CONFIGS}/ssd_lite_mobilenetv2_voc.yml"),
        DataSet("voc2012", VOC, _VOC2012, f"{CONFIGS}/ssd_lite_mobilenetv2_voc.yml"),
        DataSet(
            "coco2017", "http://images.cocodataset.org", _COCO2017, f"{CONFIGS}/ssd_lite_mobilenetv2_coco.yml",
            ("test", "test_info"),
        ),
        DataSet(
            "bccd", "https://github.com/Shenggan/BCCD_Dataset/archive", _BCCD,
            f"{CONFIGS}/ssd_lite_mobilenetv2_bccd.yml",
        ),
    )
}  # fmt: skip


def next_command(data_set: DataSet, folder: Path) -> str:
    """The command that trains on what a folder holds, or '' where there is nothing to train on."""
    there = {part.path for known in SETS.values() for part in known.parts if (folder / part.sign).exists()}
    words = [f"DATASET.DATASET_DIR={folder}"]
    if data_set.address == VOC:
        train = [part.path for part in (_VOC2007[0], _VOC2012[0]) if part.path in there]
        years = [re.search(r"\d{4}", path)[0] for path in train]
        if not years:
            return ""
        if _VOC2007[1].path not in there:
            words.append(f"DATASET.TRAIN_SETS={_sets(years[-1:], 'train')}")
            words.append(f"DATASET.TEST_SETS={_sets(years[-1:], 'val')}")
        elif len(years) == 1:
            words.append(f"DATASET.TRAIN_SETS={_sets(years, 'trainval')}")
    elif not {part.path for part in data_set.choose(None)} <= there:
        return ""
    return shlex.join(["python", "train.py", "--cfg", data_set.config, *words])


def _sets(years: list[str], split: str) -> str:
    return json.dumps([[year, split] for year in years])

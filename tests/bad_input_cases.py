"""The table of mistakes behind test_bad_input.py and docs/bad_input.md.

Each is made in a folder that holds a data set in `data` (i0 to i3 train, i4 and i5 val, i6 and i7 test), its
configuration `x.yml` and the run `run` that was trained by it.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image

from tests.dataset.folders import write_image, write_xml, xml_text
from tests.dataset.test_inspection import BOMB, png_header, rotated
from tests.videos import write_video

CONFIG = """\
MODEL: {SSDS: ssd_lite, NETS: mobilenet_v1_025, IMAGE_SIZE: 64, PRECISION: fp32}
TRAIN: {MAX_EPOCHS: 1, BATCH_SIZE: 4, AMP: none, TRACK_MAP: False, EMA_DECAY: 0, OPTIMIZER: {OPTIMIZER: sgd}}
DATASET: {DATASET: custom, DATASET_DIR: data, NUM_WORKERS: 0}
TEST: {NUM_PICTURES: 0}
EXP_DIR: run
DEVICE: cpu
PHASE: [train]
"""
CHECKPOINT = "run/ssd_lite_mobilenet_v1_025_custom_epoch_1.pth"
SOUND_OBJECT = ("cat", (11, 21, 41, 51))


class Case(NamedTuple):
    """A mistake: in words; as typed behind `python`; a part of the one line, where .* stands for anything; what to do
    about it; how it is made; the exit status; and whether docs/bad_input.md shows it, which leaves out what a version
    of torch or Python words, and what is there already."""

    what: str
    command: str
    line: str
    todo: str
    make: Callable[[], object] = lambda: None
    status: int = 2
    shown: bool = True


def text(path: str, words: str, encoding: str = "utf-8"):
    """Writes a file."""
    return content(path, words.encode(encoding))


def content(path: str, data: bytes):
    def make():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)

    return make


def config(words: str, encoding: str = "utf-8"):
    """Writes the configuration y.yml."""
    return text("y.yml", words, encoding)


def annotation(*objects):
    """A sound object and others in the annotation of the image i1."""
    return lambda: write_xml("data/Annotations/i1.xml", [SOUND_OBJECT, *objects])


def cut(path: str, num_bytes: int, into: str = ""):
    """Keeps the first bytes of a file, or all but the last ones where the number is negative."""
    return lambda: Path(into or path).write_bytes(Path(path).read_bytes()[:num_bytes])


def all_annotations(*objects):
    return lambda: [write_xml(f"data/Annotations/i{n}.xml", objects) for n in range(8)]


def labels_of_another_tool():
    for path in Path("data/Annotations").iterdir():
        path.with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1\n")
        path.unlink()


def coco(images: bool = True, **changes):
    """c: COCO's layout with an image of train2017, which may not be there, and an object; with changes of the JSON."""

    def make():
        found = {"images": [{"id": 1, "file_name": "000000000001.jpg"}], "categories": [{"id": 1, "name": "cat"}]}
        found["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}]
        text("c/annotations/instances_train2017.json", json.dumps(found | changes))()
        if images:
            write_image("c/train2017/000000000001.jpg")

    return make


def yolo(labels: str = "0 0.5 0.5 0.5 0.5\n", description: str = "names: [cat]\ntrain: images\n"):
    """y: an image with its labels, none for '', and a data.yaml."""

    def make():
        write_image("y/images/a.jpg")
        text("y/data.yaml", description)()
        if labels:
            text("y/labels/a.txt", labels)()

    return make


def checkpoint(*without, **changes):
    """c.pth: that of the run without some entries, or with others."""

    def make():
        entries = torch.load(CHECKPOINT, weights_only=True) | changes
        torch.save({name: value for name, value in entries.items() if name not in without}, "c.pth")

    return make


def saved(value):
    return lambda: torch.save(value, "c.pth")


def weights_with_nan():
    model = torch.load(CHECKPOINT, weights_only=True)["model"]
    checkpoint(model={name: t * np.nan if t.is_floating_point() else t for name, t in model.items()})()


class Harmful:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harmed",)


ENTRY = {"image_id": "i6", "category_id": 1, "category_name": "cat", "bbox": [1, 2, 3, 4], "score": 0.5}


def detections(*entries, **changes):
    """d.json: a results file of these entries, or of one with changes."""
    return text("d.json", json.dumps(entries or [ENTRY | changes]))


TRAIN, OVERRIDE, DEMO = "train.py --cfg y.yml", "train.py --cfg x.yml EXP_DIR=new", "demo.py --cfg x.yml --demo"
COCO, YOLO = (f"{OVERRIDE} DATASET.DATASET={kind} DATASET.DATASET_DIR={kind[0]}" for kind in ("coco", "yolo"))
SCORE = "-m lib.tools.score --cfg x.yml --detections d.json"
TAKE_C = "--demo data/JPEGImages/i0.jpg --checkpoint c.pth"
ANNOTATION = "data/Annotations/i1.xml"
IMAGE = "data/JPEGImages/i1.jpg"

COMMAND_LINE = [
    Case("no configuration", "train.py", "--cfg FILE is missing, for example --cfg experiments/cfgs/shapes.yml",
         "name a YAML file"),
    Case("the file without its option", "train.py x.yml", "'x.yml' is a file; give it as --cfg x.yml",
         "put --cfg first"),
    Case("an unknown option", "train.py --config x.yml", "--config: unknown option; did you mean '--cfg'?",
         "--help lists the options"),
    Case("an option without its value", "train.py --cfg x.yml --resume", "argument --resume: expected one argument",
         "name the checkpoint; without --resume the run in EXP_DIR goes on by itself"),
    Case("a key with dashes", "train.py --cfg x.yml --TRAIN.BATCH_SIZE=8",
         "--TRAIN.BATCH_SIZE: unknown option; keys have no dashes: TRAIN.BATCH_SIZE=VALUE", "leave the dashes out"),
    Case("a key without =", "train.py --cfg x.yml TRAIN.BATCH_SIZE 8",
         "'TRAIN.BATCH_SIZE' is not of the form KEY=VALUE", "no spaces around the ="),
    Case("an unknown key", "train.py --cfg x.yml TRAIN.BATCHSIZE=8",
         "TRAIN.BATCHSIZE: unknown key; did you mean 'TRAIN.BATCH_SIZE'?", "--help-config lists the keys"),
    Case("an unknown phase", "train.py --cfg x.yml --phase tset", "PHASE: 'tset' is unknown; did you mean 'test'?",
         "train, eval, test or visualize, several with commas"),
    Case("--replay with a configuration", "train.py --replay run/replay/step_3.pth --cfg x.yml",
         "--replay FILE stands alone", "the file holds the configuration of its run"),
    Case("a demo of nothing", "demo.py --cfg x.yml", "the following arguments are required: --demo",
         "name an image, a folder, a video or a camera"),
    Case("a demo of an unknown kind", f"{DEMO} v.mp4 -t film", "argument -t/--type: invalid choice: 'film'",
         "leave -t out, the kind is found out"),
    Case("a pattern that fits nothing", f"{DEMO} 'data/JPEGImages/*.png'",
         "--demo data/JPEGImages/*.png: no file fits this pattern", "--demo FOLDER takes images of every kind"),
    Case("a path without its option", "demo.py --cfg x.yml data/JPEGImages/i1.jpg --demo data/JPEGImages/i0.jpg",
         "'data/JPEGImages/i1.jpg': a path that no option takes; for several files give their folder",
         "put paths behind --demo"),
    Case("a threshold in per cent", f"{DEMO} data/JPEGImages --threshold 40",
         "argument --threshold: 40 is out of range; allowed: 0 to 1", "scores are 0 to 1"),
    Case("a threshold in words", f"{DEMO} data/JPEGImages --threshold high",
         "argument --threshold: invalid score 'high'; give 0.5 or 0.5,car=0.7", "scores are 0 to 1"),
    Case("a threshold of an unknown class", f"{DEMO} data/JPEGImages --threshold 0.5,cta=0.3",
         "threshold: 'cta' is no class of this detector; did you mean 'cat'?", "names are those of the training"),
    Case("an unknown format of results", f"{DEMO} data/JPEGImages --format json,cvs",
         "argument --format: 'cvs' is unknown; did you mean 'csv'?", "json, csv, coco or several with commas"),
    Case("nothing to score", "-m lib.tools.score --cfg x.yml",
         "the following arguments are required: --detections", "name a results file"),
    Case("unknown sets to score against", f"{SCORE} --sets val", "argument --sets: invalid choice: 'val'",
         "eval takes DATASET.EVAL_SETS, test TEST_SETS, train TRAIN_SETS"),
]  # fmt: skip

CONFIGURATION = [
    Case("a missing file", TRAIN, "y.yml: no such file; did you mean 'x.yml'?", "mind the working folder"),
    Case("a folder, whatever its name", TRAIN, "y.yml: is a folder; give a file", "name the file in it",
         lambda: Path("y.yml").mkdir()),
    Case("UTF-16, as some editors and PowerShell save", TRAIN, "y.yml: is UTF-16 text; save it as UTF-8",
         "save as UTF-8", config(CONFIG, "utf-16")),
    Case("Latin-1", TRAIN, "y.yml: is not UTF-8 text (byte 12)", "save as UTF-8",
         config("EXP_DIR: café\n", "latin-1")),
    Case("an image in place of a configuration", "train.py --cfg data/JPEGImages/i0.jpg", "i0.jpg: is not UTF-8 text",
         "name the YAML file"),
    Case("a tab", TRAIN, "y.yml:2:1: not readable as YAML: .* (indent with spaces, not tabs)", "indent with spaces",
         config("MODEL:\n\tNETS: vgg16\n")),
    Case("a Windows path in double quotes", TRAIN, "y.yml:2:20: not readable as YAML: .* unknown escape character 'd'",
         "single quotes or none", config('DATASET:\n  DATASET_DIR: "C:\\data\\parts"\n')),
    Case("a key given twice", TRAIN, "y.yml:3: MODEL: given twice, first in line 1; keep one", "join the two",
         config("MODEL: {NETS: vgg16}\nSEED: 1\nMODEL: {SSDS: ssd}\n")),
    Case("a tag", TRAIN, "y.yml:1: the tag !!python/object/apply:os.mkdir is not allowed; write the value without it",
         "values are plain", config("SEED: !!python/object/apply:os.mkdir [harmed]\n")),
    Case("bases in a circle", TRAIN, "z.yml:1: _BASE_: the files name each other in a circle: y.yml -> z.yml -> y.yml",
         "cut the circle", lambda: (config("_BASE_: z.yml\n")(), text("z.yml", "_BASE_: y.yml\n")())),
    Case("a base that is not there", TRAIN, "y.yml:1: xx.yml: no such file; did you mean 'x.yml'?",
         "paths start at the folder of the file", config("_BASE_: xx.yml\n")),
    Case("something else than YAML", TRAIN, "y.yml:1: expected keys such as 'MODEL:' at the top level",
         "name the YAML file", config("import lib\nlib.run()\n")),
    Case("a misspelt key", TRAIN, "y.yml:1: MODEL.NETTS: unknown key; did you mean 'MODEL.NETS'?",
         "--help-config lists the keys", config("MODEL: {NETTS: vgg16}\n")),
    Case("a word for a number", TRAIN, "y.yml:1: TRAIN.BATCH_SIZE: 'many' is not a whole number", "give a number",
         config("TRAIN: {BATCH_SIZE: many}\n")),
    Case("a number out of range", TRAIN, "y.yml:1: TRAIN.EMA_DECAY: 1.0 is out of range; allowed: at least 0, below 1",
         "stay in the range", config("TRAIN: {EMA_DECAY: 1}\n")),
    Case("another YAML's boolean", TRAIN, "y.yml:1: MODEL.CLIP: 'yes' is not a boolean; write true or false",
         "true or false", config("MODEL: {CLIP: yes}\n")),
    Case("a list of the wrong length", TRAIN, "y.yml:1: DATASET.PIXEL_MEANS: [1, 2] has 2 entries; allowed: 3",
         "one for each channel", config("DATASET: {PIXEL_MEANS: [1, 2]}\n")),
    Case("an unknown base network", f"{OVERRIDE} MODEL.NETS=mobilnet_v2",
         "MODEL.NETS: 'mobilnet_v2' is unknown; did you mean 'mobilenet_v2'?", "take a name of the README"),
    Case("upper and lower case", f"{OVERRIDE} MODEL.SSDS=SSD_Lite",
         "MODEL.SSDS: 'SSD_Lite' is unknown; did you mean 'ssd_lite'?", "names are as written"),
    Case("an unknown kind of data set", f"{OVERRIDE} DATASET.DATASET=coco2017",
         "DATASET.DATASET: 'coco2017' is unknown; did you mean 'coco'?", "TRAIN_SETS and TEST_SETS give the year"),
    Case("sizes for too few levels", f"{OVERRIDE} MODEL.SIZES=[[10,10],[20,20]]",
         "MODEL.SIZES has 2 entries, the model 3 levels: give one for each level and one more at the end",
         "one more than levels"),
    Case("sizes below nothing", f"{OVERRIDE} MODEL.SIZES=[-0.2,0.9]",
         "MODEL.SIZES: expected [h, w] pairs in pixels or two fractions of the image .*, all above 0",
         "pixels or fractions, not below 0"),
    Case("pixels for fractions", f"{OVERRIDE} MODEL.SIZES=[30,300]",
         "MODEL.SIZES: expected .* two fractions of the image [smallest, largest], .*, got [30, 300]",
         "[h, w] pairs for each level"),
    Case("pitches for too few levels", f"{OVERRIDE} MODEL.STEPS=[[8,8],[16,16]]",
         "MODEL.STEPS has 2 entries, the model 3 levels: give one for each, or none", "leave the key out"),
    Case("no aspect ratios", f"{OVERRIDE} MODEL.ASPECT_RATIOS=[]",
         "MODEL.ASPECT_RATIOS: the list is empty; give a list of ratios for each level, or null", "leave the key out"),
    Case("a layer that the base lacks", f"{OVERRIDE} MODEL.FEATURE_LAYER=[[11,99],[128,256]]",
         "MODEL.FEATURE_LAYER: entry 1 (99): the base network has layers 0 to 13", "leave the key out"),
    Case("an image too small for the levels", f"{OVERRIDE} 'MODEL.FEATURE_LAYER=[[11,13,S,\"\"],[128,256,64,64]]'",
         "MODEL.IMAGE_SIZE [64, 64] does not pass through mobilenet_v1_025 and the 4 levels of ssd_lite", "",
         shown=False),
    Case("a number of classes that is not the data's", f"{OVERRIDE} MODEL.NUM_CLASSES=21",
         "MODEL.NUM_CLASSES: 21 given, but the data set has 2 classes and the background, 3: cat, dog",
         "leave the key out"),
    Case("a class named twice", f"{OVERRIDE} DATASET.CLASSES=cat,dog,cat", "DATASET.CLASSES: 'cat' is named twice",
         "name it once"),
    Case("a class without a name", f"{OVERRIDE} 'DATASET.CLASSES=[cat, \"\"]'", "DATASET.CLASSES: name 2 is empty",
         "leave it out"),
    Case("weights for other classes", f"{OVERRIDE} DATASET.SAMPLING=class_weight DATASET.CLASS_WEIGHTS=[1,2,3]",
         "DATASET.CLASS_WEIGHTS: .* takes one weight for each of the 2 classes cat, dog", "one for each class"),
    Case("early stop without a score", f"{OVERRIDE} TRAIN.EARLY_STOP_EPOCHS=5",
         "TRAIN.EARLY_STOP_EPOCHS: watches the mAP of TRAIN.TRACK_MAP, which is False", "TRAIN.TRACK_MAP=true"),
    Case("a schedule of steps without any", f"{OVERRIDE} TRAIN.LR_SCHEDULER.SCHEDULER=step TRAIN.LR_SCHEDULER.STEPS=[]",
         "TRAIN.LR_SCHEDULER.STEPS: is empty, but SCHEDULER step takes its period from it", "give a period in epochs"),
    Case("a part to train that is none", f"{OVERRIDE} TRAIN.TRAINABLE_SCOPE=bsae",
         "TRAIN.TRAINABLE_SCOPE: 'bsae' is no part of the model; did you mean 'base'?", "take a word of the list"),
    Case("batches of one image", f"{OVERRIDE} TRAIN.BATCH_SIZE=1",
         "TRAIN.BATCH_SIZE: a batch of one image leaves batch norm a single value", "at least 2"),
    Case("half precision on a CPU", f"{OVERRIDE} TRAIN.AMP=fp16", "TRAIN.AMP: fp16 needs a GPU", "auto"),
    Case("an unknown device", f"{OVERRIDE} DEVICE=gpu",
         "DEVICE: 'gpu' is no torch device; allowed: auto, cpu, cuda, cuda:0, ...",
         "auto takes the GPU if there is one"),
    Case("a device that this torch cannot use", f"{OVERRIDE} DEVICE=meta", "DEVICE: 'meta' cannot be used here", "",
         shown=False),
    Case("published weights that do not exist", f"{OVERRIDE} MODEL.PRETRAINED=imagenet",
         "MODEL.PRETRAINED: torchvision has no ImageNet weights for mobilenet_v1_025; it has them for vgg16,",
         "another base, or a file"),
    Case("misspelt published weights", f"{OVERRIDE} MODEL.PRETRAINED=imagnet",
         "MODEL.PRETRAINED: 'imagnet' is no file; allowed: imagenet, a .pth file, or its http", "imagenet"),
]  # fmt: skip

PATHS = [
    Case("a data set that is not there", f"{OVERRIDE} DATASET.DATASET_DIR=dta",
         "DATASET.DATASET_DIR: there is no folder dta; .* holds data, experiments, new, run, x.yml",
         "paths start at the working folder"),
    Case("a Windows path on another system", f"{OVERRIDE} 'DATASET.DATASET_DIR=C:\\data'",
         "DATASET.DATASET_DIR: there is no folder C:\\data; .* holds data,", "a path of this system"),
    Case("a file in place of the data set", f"{OVERRIDE} DATASET.DATASET_DIR=x.yml",
         "DATASET.DATASET_DIR: there is no folder x.yml", "name the folder"),
    Case("an empty folder", f"{OVERRIDE} DATASET.DATASET_DIR=e",
         "e: no VOC data set: neither lists in ImageSets/Main, .* nor XML annotations; the folder holds nothing",
         "name the folder with the data", lambda: Path("e").mkdir()),
    Case("images without annotations", f"{OVERRIDE} DATASET.DATASET_DIR=data/JPEGImages",
         "data/JPEGImages: no VOC data set: .*; the folder holds i0.jpg,", "name the folder above"),
    Case("annotations without images", f"{OVERRIDE} DATASET.DATASET_DIR=data/Annotations",
         "data/Annotations: no annotation has an image; the first is data/Annotations/i0.xml", "name the folder above"),
    Case("an image set that is not there", f"{OVERRIDE} DATASET.TRAIN_SETS=trian",
         "DATASET.TRAIN_SETS: data has no image set 'trian' .*; did you mean 'train'?", "take a name of the folder"),
    Case("an empty list", OVERRIDE, "data/ImageSets/Main/train.txt: the list names no image", "write it anew",
         text("data/ImageSets/Main/train.txt", "\n")),
    Case("a list in UTF-16", OVERRIDE, "data/ImageSets/Main/train.txt: is UTF-16 text; save it as UTF-8",
         "in PowerShell: Out-File -Encoding utf8", text("data/ImageSets/Main/train.txt", "i0\ni1\n", "utf-16")),
    Case("a file in place of the run", "train.py --cfg x.yml EXP_DIR=x.yml",
         "EXP_DIR: x.yml: cannot be made or written to", "name a folder"),
    Case("a run in a folder of another's", "train.py --cfg x.yml EXP_DIR=locked",
         "EXP_DIR: locked: cannot be made or written to", "", lambda: Path("locked").mkdir(mode=0o500), shown=False),
    Case("a run where your own config.yml lies", "train.py --cfg config.yml EXP_DIR=.",
         "EXP_DIR: config.yml is not of an earlier run and would be overwritten; give another folder",
         "EXP_DIR=experiments/models/NAME", text("config.yml", CONFIG)),
    Case("a test before the training", "train.py --cfg x.yml --phase test EXP_DIR=new",
         "nothing to test: EXP_DIR new holds no checkpoint", "--phase train,test"),
    Case("the best of a run without scores", "train.py --cfg x.yml --phase test TEST.CHECKPOINT=best",
         "run/best.pth: no such checkpoint", "TRAIN.TRACK_MAP: true makes one; or TEST.CHECKPOINT=last"),
    Case("nothing to show", f"{DEMO} pictures", "--demo pictures: there is no such file or folder",
         "paths start at the working folder"),
    Case("a folder without images", f"{DEMO} data/Annotations",
         "data/Annotations: the folder holds no images (.*) but i0.xml,", "name the folder that holds them", status=1),
    Case("a folder called an image", f"{DEMO} data/JPEGImages -t image",
         "--demo data/JPEGImages: is a folder, but -t says image", "leave -t out"),
    Case("a missing video", f"{DEMO} v.mp4 -t video", "--demo v.mp4: there is no such file or folder",
         "paths start at the working folder"),
    Case("an image called a video", f"{DEMO} data/JPEGImages/i0.jpg -t video",
         "--demo data/JPEGImages/i0.jpg: .jpg is the suffix of images, but -t says video",
         "leave -t out; the folder of the frames of a video is one"),
    Case("a video called an image", f"{DEMO} v.mp4 -t image", "--demo v.mp4: .mp4 is the suffix of videos",
         "leave -t out", lambda: write_video("v.mp4")),
    Case("a file called a camera", f"{DEMO} v.mp4 -t camera",
         "--demo v.mp4: is not a camera; -t camera takes a number, 0 for the first one", "leave -t out"),
    Case("a camera that is not there", f"{DEMO} 99", "camera 99: cannot be opened; is it connected,",
         "0 is the first; another program may hold it", status=1),
    Case("a video over itself", f"{DEMO} v.mp4 --out .", "v.mp4: is the video itself, which would be overwritten",
         "another folder, or no --out", lambda: write_video("v.mp4")),
    Case("a name for the drawn video", f"{DEMO} v.mp4 --out w.mp4",
         "--out w.mp4: is the name of a video; give the folder", "name a folder", lambda: write_video("v.mp4")),
    Case("pictures over the images", f"{DEMO} data/JPEGImages --out data/JPEGImages",
         "--out data/JPEGImages: is the folder of the images, which would be overwritten",
         "another folder, or no --out"),
    Case("pictures over those of somebody else", f"{DEMO} data/JPEGImages/i0.jpg --out p",
         "--out p: holds i0.jpg, which would be overwritten and comes from no demo", "another folder, or no --out",
         lambda: write_image("p/i0.jpg")),
    Case("pictures into a file", f"{DEMO} data/JPEGImages --out x.yml", "--out x.yml: this folder cannot be made",
         "name a folder"),
]  # fmt: skip


def faulty(what: str, line: str, todo: str, make) -> list[Case]:
    """A fault of the data that is dropped, counted and named by default, and that ends a run under ON_BAD: fail."""
    failing = re.sub(r" \((dropped|kept|counted once)\)", "", line)
    return [
        Case(what, OVERRIDE, f"train: {line}.*; see new/data_report_train.json", todo, make, 0),
        Case(
            what, f"{OVERRIDE} DATASET.ON_BAD=fail", f"DATASET.ON_BAD is fail: train: {failing}", todo, make, 2, False
        ),
    ]


ANNOTATIONS = [
    *faulty("half an annotation", "1 faulty image in 4: 1 image with a malformed annotation (dropped); .*, line 1:",
            "save it again", text(ANNOTATION, "<annotation><object>")),
    *faulty("another kind of XML", "1 faulty image in 4: 1 image with a malformed annotation (dropped); the first is "
            f"{ANNOTATION}: the root element is <html>", "take the annotation, not a page about it",
            text(ANNOTATION, "<html/>")),
    *faulty("another encoding than it says", "1 faulty image in 4: 1 image with a malformed annotation (dropped)",
            "save as UTF-8", text(ANNOTATION, xml_text([("café", (1, 1, 9, 9))]), "latin-1")),
    *faulty("entities, which may grow without end", "1 faulty image in 4: 1 image with entities in the annotation "
            "(dropped); .*, line 1: declares the entity 'a', which is refused", "write the values out",
            text(ANNOTATION, BOMB)),
    *faulty("an image without annotation", f"1 faulty image in 4: 1 image without annotation (dropped); the first is "
            f"{IMAGE}", "annotate it; an annotation without objects makes it background",
            lambda: Path(ANNOTATION).unlink()),
    *faulty("corners that are no numbers", "1 faulty box in 4: 1 object whose corners are no numbers (dropped); .* "
            "object 2 ", "write numbers", annotation(("dog", ("left", 1, 9, 9)))),
    *faulty("NaN in a box", "1 faulty box in 4: 1 box with NaN or infinite corners (dropped); .* object 2 ",
            "write numbers", annotation(("dog", ("nan", 1, 9, 9)))),
    *faulty("reversed corners", "1 faulty box in 4: 1 box reversed (dropped); .* object 2 ",
            "DATASET.ON_BAD=clip swaps", annotation(("dog", (40, 10, 20, 30)))),
    *faulty("a box beside the image", "1 faulty box in 4: 1 box outside the image (dropped); .* object 2 ",
            "is the annotation that of another image?", annotation(("dog", (90, 10, 120, 30)))),
    *faulty("corners as fractions of the image", "4 faulty boxes in 4: 4 boxes outside the image (dropped)",
            "VOC counts pixels from 1", all_annotations(("cat", (0.1, 0.1, 0.5, 0.5)))),
    *faulty("an object without class", "1 faulty box in 4: 1 object without a class name (dropped); .* object 2 ",
            "write a `<name>`", annotation((" ", (1, 1, 9, 9)))),
    Case("a class that DATASET.CLASSES lacks", f"{OVERRIDE} DATASET.CLASSES=cat,dog",
         "1 object of an unknown class (dropped); 1 times class 'Cat' is unknown; did you mean 'cat'?",
         "name it in DATASET.CLASSES, or correct it", annotation(("Cat", (1, 1, 9, 9))), 0),
    Case("a class in two spellings", OVERRIDE, "some class names differ in upper and lower case only, and count as "
         "different: Cat (1), cat", "correct one of them", annotation(("Cat", (1, 1, 9, 9))), 0),
    Case("classes of which none occurs", f"{OVERRIDE} DATASET.CLASSES=horse,cow",
         "i0.xml object 1 (class 'cat' is unknown; .*); not one of 8 objects is of a known class",
         "leave DATASET.CLASSES out to have them found"),
    Case("no object at all", OVERRIDE, "data: no annotation holds an object; DATASET.CLASSES must name the classes",
         "is that the right folder?", all_annotations()),
    Case("labels of another tool", OVERRIDE, "data: the classes come from VOC annotations (.xml), and no listed image "
         "has one", "convert them to VOC's XML", labels_of_another_tool),
]  # fmt: skip

IMAGES = [
    *faulty("a missing image", "1 faulty image in 4: 1 image missing (dropped); .* no image 'i1' of any type",
            "put it there", lambda: Path(IMAGE).unlink()),
    *faulty("an image of 0 bytes", f"1 faulty image in 4: 1 image without content (dropped); the first is {IMAGE}",
            "copy it again", content(IMAGE, b"")),
    *faulty("text called .jpg", "1 faulty image in 4: 1 image of no known format (dropped)", "copy it again",
            text(IMAGE, "not found")),
    *faulty("half a JPEG", "1 faulty image in 4: 1 image truncated (dropped)", "copy it again", cut(IMAGE, -40)),
    *faulty("a header of 100000 x 100000 pixels", "1 faulty image in 4: 1 image oversized (dropped)",
            "make it smaller", content(IMAGE, png_header(100_000, 100_000))),
    *faulty("another size than annotated", "1 faulty image in 4: 1 image of another size than annotated (kept)",
            "are image and annotation of one pair?", lambda: write_xml(ANNOTATION, [SOUND_OBJECT], size=(600, 800))),
    *faulty("an image listed twice", "1 faulty image in 3: 1 image listed twice (counted once)", "write it once",
            text("data/ImageSets/Main/train.txt", "i0\ni1\ni2\ni1\n")),
    Case("an image that EXIF turns", f"{OVERRIDE} DATASET.EXIF=fail",
         "DATASET.EXIF is fail: train: 1 faulty image in 4: 1 image rotated by EXIF",
         "DATASET.EXIF: apply, if it was annotated upright, else ignore", lambda: rotated(Path("data"), name="i1")),
    Case("no image left", OVERRIDE, "train: no image of data/train can be used: 4 images without content",
         "copy them again", lambda: [Path(f"data/JPEGImages/i{n}.jpg").write_bytes(b"") for n in range(8)]),
    Case("a demo of a broken image", f"{DEMO} {IMAGE}", f"{IMAGE}: the file is empty", "copy it again",
         content(IMAGE, b""), 1),
    Case("a demo of no image", f"{DEMO} x.yml", "x.yml: .* bytes that are no image OpenCV can decode",
         "name an image", status=1),
    Case("a demo of an image that is too large", f"{DEMO} a.png",
         "a.png: its header says more than 178,956,970 pixels; make it smaller", "make it smaller",
         content("a.png", png_header(20_000, 20_000)), 1),
    Case("a demo of a folder with a broken image", f"{DEMO} data/JPEGImages",
         f"skipped: {IMAGE}: 9 bytes that are no image OpenCV can decode", "copy it again",
         text(IMAGE, "not found"), 0),
    Case("a demo of a folder of broken images", f"{DEMO} p", "--demo p: none of its 2 images could be read",
         "copy them again", lambda: (text("p/a.jpg", "not found")(), text("p/b.png", "")()), 1),
    Case("a demo of no video", f"{DEMO} v.mp4", "v.mp4: OpenCV cannot open this file: it is no video, damaged, or",
         "copy it again; mp4 and avi are understood everywhere", text("v.mp4", "not found"), 1),
    Case("a demo of an empty video", f"{DEMO} v.mp4", "v.mp4: the file is empty", "copy it again", text("v.mp4", ""),
         1),
    Case("a demo of a video that was cut off", f"{DEMO} v.avi",
         "v.avi: gives no frame after frame .*, though its header announces 10 frames", "copy it again",
         lambda: (write_video("v.avi", 10, codec="MJPG"), cut("v.avi", -1500)()), 0),
    Case("a demo of frames of which one is broken", f"{DEMO} p -t video",
         "frame 1 left out: p/f1.jpg: 9 bytes that are no image OpenCV can decode", "copy it again",
         lambda: (write_image("p/f0.jpg"), text("p/f1.jpg", "not found")(), write_image("p/f2.jpg")), 0),
]  # fmt: skip

JSON_AND_TEXT = [
    Case("COCO's reader for VOC's folder", f"{OVERRIDE} DATASET.DATASET=coco",
         "DATASET.DATASET_DIR: data has no annotations/<set>.json; the folder holds Annotations, ImageSets, JPEGImages",
         "DATASET.DATASET=voc or custom"),
    Case("half a JSON", COCO, "c/annotations/train.json, line 1: malformed JSON", "copy it again",
         text("c/annotations/train.json", '{"images": [{"id": 1')),
    Case("results in place of annotations", COCO, "c/annotations/train.json: holds a list; COCO annotations are an "
         "object with 'images', 'annotations' and 'categories'", "results are for `lib.tools.score`",
         text("c/annotations/train.json", "[]")),
    Case("another year", f"{COCO} DATASET.TRAIN_SETS=[[2014,train]]", "DATASET.TRAIN_SETS: c has no image set 'train' "
         "(annotations/instances_train2014.json); did you mean 'train2017'?", "name a set that is there", coco()),
    Case("images that were not unpacked", f"{COCO} DATASET.TRAIN_SETS=train2017",
         "instances_train2017.json: not one of its 1 images is there, the first is '000000000001.jpg'; looked in c.*; "
         "a usual place is c/train2017", "unpack them there", coco(images=False)),
    Case("a set without annotations to train on", f"{COCO} DATASET.TRAIN_SETS=train2017",
         "DATASET.TRAIN_SETS: c/annotations/instances_train2017.json: has no 'annotations'",
         "such a set is for the test phase", coco(annotations=None)),
    Case("objects of no category", COCO, "instances_train2017.json object 1 (category_id 7 is the id of no category); "
         "not one of 1 objects is of a known class", "are the categories those of this file?",
         coco(annotations=[{"image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 40]}])),
    Case("numbers that count other classes than named", f"{COCO} MODEL.NUM_CLASSES=81",
         "MODEL.NUM_CLASSES: 81 given, but the data set has 1 classes and the background, 2: cat", "leave the key out",
         coco()),
    Case("YOLO's reader for VOC's folder", f"{OVERRIDE} DATASET.DATASET=yolo", "data: no file names the classes "
         "(data.yaml, classes.txt or obj.names); DATASET.CLASSES must name them", "DATASET.DATASET=voc or custom"),
    Case("no label file at all", f"{YOLO}", "train: not one of 1 images of y has a label file; that of the first would "
         "be y/labels/a.txt", "put them there", yolo("")),
    Case("labels in pixels", f"{YOLO} DATASET.ON_BAD=fail", "1 object whose corners are no parts of the image's size; "
         "the first is y/labels/a.txt line 2 (not in parts of the image's size: 0 40 30 20 10)",
         "divide by width and height", yolo("0 0.5 0.5 0.5 0.5\n0 40 30 20 10\n")),
    Case("a confidence in a label", f"{YOLO} DATASET.ON_BAD=fail", "y/labels/a.txt line 1 (a line is a class and four "
         "numbers, or a class and the corners of a polygon, not 6 words: 0 0.5 0.5 0.5 0.5 0.9)",
         "are these detections?", yolo("0 0.5 0.5 0.5 0.5 0.9\n")),
    Case("a class without a name", YOLO, "y/labels/a.txt line 1 (class 1 has no name; allowed: 0 to 0); not one of 1 "
         "objects is of a known class", "data.yaml names all classes, from 0", yolo("1 0.5 0.5 0.5 0.5\n")),
    Case("a data.yaml of another place", YOLO, "y/data.yaml: there is no folder or list 'coco/train' in y; it holds "
         "data.yaml, images, labels", "paths start at the folder of the file, or at its `path`",
         yolo(description="names: [cat]\ntrain: coco/train\n")),
    Case("a wrong count of classes", YOLO, "y/data.yaml:2: nc: '80' given, but 'names' are 1", "leave nc out",
         yolo(description="names: [cat]\nnc: 80\ntrain: images\n")),
]  # fmt: skip

CHECKPOINTS = [
    Case("a misspelt name", f"{DEMO} data/JPEGImages/i0.jpg --checkpoint run/bset.pth",
         "run/bset.pth: no such checkpoint; did you mean 'best.pth'?", "take the name",
         lambda: Path("run/best.pth").symlink_to("nowhere")),
    Case("a folder", "train.py --cfg x.yml --resume run", "run: is a folder, not a checkpoint file",
         "without --resume the run in EXP_DIR goes on"),
    Case("an empty file", f"demo.py --cfg x.yml {TAKE_C}", "c.pth: not a readable checkpoint: the file is empty",
         "copy it again", content("c.pth", b"")),
    Case("half a file", "train.py --cfg x.yml --resume c.pth EXP_DIR=new",
         "c.pth: not a readable checkpoint, perhaps cut off", "copy it again", cut(CHECKPOINT, -99, "c.pth")),
    Case("a run whose only checkpoint is broken", "train.py --cfg x.yml TRAIN.MAX_EPOCHS=2",
         f"{CHECKPOINT}: not a readable checkpoint, perhaps cut off; EXP_DIR holds no other to continue",
         "give EXP_DIR another folder", lambda: (Path(CHECKPOINT).unlink(), content(CHECKPOINT, b"PK")())),
    Case("a web page saved as weights", f"{OVERRIDE} RESUME_CHECKPOINT=c.pth",
         "c.pth: no checkpoint at all but a file of another kind", "download the file itself",
         text("c.pth", "<!DOCTYPE html>")),
    Case("a pointer of Git LFS", f"{OVERRIDE} MODEL.PRETRAINED=c.pth",
         "MODEL.PRETRAINED: c.pth: no checkpoint at all but the pointer of Git LFS to one; 'git lfs pull' fetches it",
         "git lfs pull", text("c.pth", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")),
    Case("code in a file", f"demo.py --cfg x.yml {TAKE_C}",
         "c.pth: refused, because reading it would run code stored in the file (posix.mkdir)",
         "do not use the file", saved({"model": Harmful()})),
    Case("a whole model, not its weights", f"demo.py --cfg x.yml {TAKE_C}",
         "c.pth: refused, .* (torch.nn.modules.linear.Linear); a state_dict holds none",
         "torch.save(model.state_dict(), FILE)", saved(torch.nn.Linear(2, 2))),
    Case("a list", f"demo.py --cfg x.yml {TAKE_C}", "c.pth: holds a list, not a checkpoint", "name another file",
         saved([1, 2])),
    Case("no weights", f"demo.py --cfg x.yml {TAKE_C}", "c.pth: holds no weights (its entries: epoch)",
         "name another file", saved({"epoch": 3})),
    Case("keys that are no names", f"demo.py --cfg x.yml {TAKE_C}", "c.pth: holds no weights (its entries: 0)",
         "name another file", saved({0: torch.zeros(2)})),
    Case("weights of another network", f"demo.py --cfg x.yml {TAKE_C}", "c.pth: no tensor of the file fits the model",
         "the configuration of its training", saved({"fc.weight": torch.zeros(2, 2)})),
    Case("weights that are not numbers", "train.py --cfg x.yml --phase test TEST.CHECKPOINT=c.pth",
         "c.pth: backbone.layers..* holds values that are no numbers", "an earlier checkpoint", weights_with_nan),
    Case("other classes", "train.py --cfg x.yml --phase test TEST.CHECKPOINT=c.pth",
         "c.pth: was trained for the classes cat, cow (2), the data set has cat, dog (2)",
         "DATASET.CLASSES as in training", checkpoint(class_names=["cat", "cow"])),
    Case("another number of classes", f"demo.py --cfg x.yml {TAKE_C} MODEL.NUM_CLASSES=21",
         "MODEL.NUM_CLASSES is 21, but c.pth knows 2 classes and the background: cat, dog", "leave the key out",
         checkpoint()),
    Case("another size of the input", "train.py --cfg x.yml --resume c.pth EXP_DIR=new MODEL.IMAGE_SIZE=96",
         "c.pth: was trained with MODEL.IMAGE_SIZE [64, 64], now it is [96, 96]",
         "the old value, or a new run by RESUME_CHECKPOINT", checkpoint()),
    Case("a newer version", "train.py --cfg x.yml --resume c.pth EXP_DIR=new",
         "c.pth: written by a newer version (format 99, known is 1)", "update this trainer", checkpoint(format=99)),
    Case("weights alone to continue", "train.py --cfg x.yml --resume c.pth EXP_DIR=new",
         "c.pth: holds no optimizer, rng, position to continue with; start a new run from its weights",
         "RESUME_CHECKPOINT=c.pth", checkpoint("optimizer", "rng", "position")),
    Case("a replay of a checkpoint", f"train.py --replay {CHECKPOINT}", "is no replay file",
         "the command is in the message of the run that failed"),
    Case("half a replay file", "train.py --replay c.pth", "c.pth: is no replay file", "train again",
         saved({"replay": 1, "run": {}})),
]  # fmt: skip

DETECTIONS = [
    Case("a missing file", SCORE, "d.json: cannot be read: No such file or directory", "name the file"),
    Case("something else than JSON", "-m lib.tools.score --cfg x.yml --detections x.yml",
         "x.yml: line 1, column 1: not valid JSON", "name the results file"),
    Case("half a file", SCORE, "d.json: line 1, column .*: not valid JSON", "write it again",
         text("d.json", json.dumps([ENTRY])[:-20])),
    Case("one entry a line", SCORE, "d.json: a list of detections is expected, found", "one list of all entries",
         text("d.json", json.dumps(ENTRY)), shown=False),
    Case("annotations in COCO's format", SCORE,
         "d.json: a list of detections is expected, found an object with the keys images, annotations",
         "the list of detections alone", text("d.json", '{"images": [], "annotations": []}')),
    Case("UTF-16", SCORE, "d.json: not a text file in UTF-8 (byte 0)", "save as UTF-8",
         text("d.json", "[]", "utf-16")),
    Case("brackets without end", SCORE, "d.json: not a results file: ", "", text("d.json", "[" * 100_000), shown=False),
    Case("a number of thousands of digits", SCORE, "d.json: not a results file: ", "",
         text("d.json", json.dumps([ENTRY]).replace("0.5", "9" * 5000)), shown=False),
    Case("a misspelt field", SCORE, "d.json: entry 0: 'image_id' is missing; the entry has image, bbox, score",
         "image_id, category_name, bbox, score", detections({"image": "i6", "bbox": [1, 2, 3, 4], "score": 1})),
    Case("corners for sides", SCORE,
         "d.json: entry 0: bbox has a negative width or height; it is [x, y, width, height]",
         "[x, y, width, height]", detections(bbox=[30, 30, -20, -20])),
    Case("three numbers for a box", SCORE, "d.json: entry 0: bbox .* is not a list of four numbers", "four numbers",
         detections(bbox=[1, 2, 3])),
    Case("a box beyond all images", SCORE, "d.json: entry 0: bbox holds a value beyond 1e+09 pixels", "pixels",
         detections(bbox=[1, 2, 1e300, 4])),
    Case("NaN for a score", SCORE, "d.json: entry 0: score is not finite", "which detector writes such?",
         detections(score=float("nan"))),
    Case("an image of other sets", SCORE, "d.json: image 'i0' is not in the test sets (2 images, the first is 'i6')",
         "--sets train", detections(image_id="i0")),
    Case("names of files for names of images", SCORE, "d.json: image 'i6.jpg' is not in the test sets",
         "names without the extension", detections(image_id="i6.jpg")),
    Case("an unknown class", SCORE, 'd.json: entry 0: category_name "Cat" is unknown; did you mean \'cat\'?',
         "names as in the data set", detections(category_name="Cat")),
    Case("a number that is no class", SCORE, "d.json: entry 0: category_id 3 is not in 1 to 2",
         "numbers from 1, or names", detections({**ENTRY, "category_id": 3, "category_name": None})),
]  # fmt: skip

GROUPS = {
    "The command line": COMMAND_LINE,
    "The configuration": CONFIGURATION,
    "Paths": PATHS,
    "Annotations": ANNOTATIONS,
    "COCO's JSON and YOLO's labels": JSON_AND_TEXT,
    "Images": IMAGES,
    "Checkpoints": CHECKPOINTS,
    "Detections to score": DETECTIONS,
}

SHORTAGES = [
    ("too little memory on the GPU",
     torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB."),
     "out of memory (tried to allocate 2.50 GiB); halve TRAIN.BATCH_SIZE and double TRAIN.ACCUMULATE, or lower",
     "half the batch twice makes the same step"),
    ("too little memory",
     RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate 30000000000 bytes. Error code 12 (Cannot allocate memory)"),
     "out of memory (tried to allocate 30000000000 bytes)", "a smaller batch or input"),
    ("a full disk", OSError(28, "No space left on device", "run/a.pth"), "run/a.pth: No space left on device",
     "make room; the same command goes on from the last checkpoint"),
]  # fmt: skip
"""(what is wrong, the error, what the line must match, what to do) where the machine is too small."""


def picture(path: str, mode: str, dtype=np.uint8):
    """An image of 40 x 50 random pixels with a number of channels."""

    def make():
        shape = (40, 50, {"L": 1, "RGB": 3, "RGBA": 4}[mode])
        pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
        content(path, cv2.imencode(Path(path).suffix, pixels)[1].tobytes())()

    return make


def palette(path: str):
    def make():
        Path(path).parent.mkdir()
        Image.linear_gradient("L").convert("P").save(path)

    return make


SOUND = {
    "CRLF and BOM": (TRAIN.replace("y.yml", "y.yml EXP_DIR=new"), config(CONFIG.replace("\n", "\r\n"), "utf-8-sig")),
    "JSON": (TRAIN.replace("y.yml", "y.yml --print-config"), config('{"MODEL": {"NETS": "vgg16"}, "SEED": 3}')),
    "list with CRLF": (OVERRIDE, content("data/ImageSets/Main/train.txt", b"i0\r\ni1\r\ni2\r\n")),
    "list of files": (OVERRIDE, text("data/ImageSets/Main/train.txt", "i0.jpg\ni1.jpg\n")),
    "annotation with CRLF": (OVERRIDE, text(ANNOTATION, xml_text([SOUND_OBJECT]).replace("\n", "\r\n"))),
    "grey": (f"{DEMO} p", picture("p/a.png", "L")),
    "alpha": (f"{DEMO} p", picture("p/a.png", "RGBA")),
    "16 bits": (f"{DEMO} p", picture("p/a.tif", "RGB", np.uint16)),
    "palette": (f"{DEMO} p", palette("p/a.png")),
    "capital letters": (f"{DEMO} p", picture("p/A.JPG", "RGB")),
    "spaces and other scripts": (f"{DEMO} 'my ü 猫' --out 'o ü'", picture("my ü 猫/a %s {b} 猫.png", "RGB")),
    "one pixel": (f"{DEMO} p/a.png", lambda: write_image("p/a.png", (1, 1))),
    "class in another script": (OVERRIDE, annotation(("猫 é", (1, 1, 9, 9)))),
}
"""Input that only looks odd: command, how it is made."""

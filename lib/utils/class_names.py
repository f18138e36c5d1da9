"""Class names of well-known data sets, without the background, in the order of their labels, and what is no name."""

import unicodedata

from .errors import UserError

UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Kinds of characters that no name has: control characters, halves of characters, ends of lines and paragraphs."""
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text around them."""

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids of COCO below 91 that no object has."""

IMAGENET_VID_CLASSES = (
    "n02691156", "n02419796", "n02131653", "n02834778", "n01503061", "n02924116", "n02958343", "n02402425",
    "n02084071", "n02121808", "n02503517", "n02118333", "n02510455", "n02342885", "n02374451", "n02129165",
    "n01674464", "n02484322", "n03790512", "n02324045", "n02509815", "n02411705", "n01726692", "n02355227",
    "n02129604", "n04468005", "n01662784", "n04530566", "n02062744", "n02391049",
)  # fmt: skip

IMAGENET_VID_NAMES = (
    "airplane", "antelope", "bear", "bicycle", "bird", "bus", "car", "cattle", "dog", "domestic_cat", "elephant", "fox",
    "giant_panda", "hamster", "horse", "lion", "lizard", "monkey", "motorcycle", "rabbit", "red_panda", "sheep",
    "snake", "squirrel", "tiger", "train", "turtle", "watercraft", "whale", "zebra",
)  # fmt: skip
"""The words for the synsets of IMAGENET_VID_CLASSES, in the same order."""


def check_shown(names, where: str) -> None:
    """UserError naming `where` for a class name that would steer a terminal, or that no log, file or page can hold."""
    for name in names:
        if any(unicodedata.category(letter) in UNSHOWN or letter in TURNING for letter in name):
            raise UserError(
                f"{where}: {ascii(name)[:80]} holds characters that cannot be shown; give the class another name"
            )


def known_class_names(dataset: str, given=()) -> tuple[str, ...]:
    """The names given, else those that the kind of data set implies; empty where only the data can tell."""
    implied = {
        "voc": VOC_CLASSES,
        "coco": COCO_CLASSES,
        "imagenet": IMAGENET_VID_CLASSES,
        "imagenet_vid": IMAGENET_VID_NAMES,
    }
    return tuple(given) or implied.get(dataset, ())


def published_class_names(num_classes: int) -> tuple[str, ...]:
    """The names behind weights without names, by their number of classes with the background: 21 is VOC, 81 is COCO, 91
    is COCO with a class for every category id, as torchvision has it; empty for other numbers."""
    names = iter(COCO_CLASSES)
    by_id = tuple(f"unused {i}" if i in COCO_UNUSED_IDS else next(names) for i in range(1, 91))
    return {21: VOC_CLASSES, 81: COCO_CLASSES, 91: by_id}.get(num_classes, ())

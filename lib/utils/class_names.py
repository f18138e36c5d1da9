"""Class names of well-known data sets, without the background, in the order of their labels."""

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

IMAGENET_VID_CLASSES = (
    "n02691156", "n02419796", "n02131653", "n02834778", "n01503061", "n02924116", "n02958343", "n02402425",
    "n02084071", "n02121808", "n02503517", "n02118333", "n02510455", "n02342885", "n02374451", "n02129165",
    "n01674464", "n02484322", "n03790512", "n02324045", "n02509815", "n02411705", "n01726692", "n02355227",
    "n02129604", "n04468005", "n01662784", "n04530566", "n02062744", "n02391049",
)  # fmt: skip


def known_class_names(dataset: str, given=()) -> tuple[str, ...]:
    """The names given, else those that the kind of data set implies; empty where only the data can tell."""
    return tuple(given) or {"voc": VOC_CLASSES, "imagenet": IMAGENET_VID_CLASSES}.get(dataset, ())

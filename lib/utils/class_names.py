"""Class names of well-known data sets, without the background, in the order of their labels."""

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def known_class_names(dataset: str, given=()) -> tuple[str, ...]:
    """The names given, else those that the kind of data set implies; empty where only the data can tell."""
    return tuple(given) or {"voc": VOC_CLASSES}.get(dataset, ())

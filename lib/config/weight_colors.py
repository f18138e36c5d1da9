"""What the weights that MODEL.PRETRAINED names expect of an image, as far as names tell it."""

import re

from ..utils.timm_models import find_timm_settings, is_timm
from .schema import IMAGENET_COLORS

DARKNET_COLORS = {
    "DATASET.COLOR_ORDER": "RGB",
    "DATASET.PIXEL_MEANS": [0.0, 0.0, 0.0],
    "DATASET.PIXEL_STDS": [255.0, 255.0, 255.0],
}
"""What Darknet's weights expect: values from 0 to 1."""


def is_darknet_file(source: str) -> bool:
    """Whether a path or an address is, by its name, a file of weights in Darknet's own format."""
    return re.search(r"\.(weights|conv\.\d+)$", source.partition("?")[0], re.IGNORECASE) is not None


def expected_colors(net: str, pretrained: str) -> dict:
    """The DATASET keys of the images that a base's trained weights know; torchvision's where nothing else is known."""
    if is_darknet_file(pretrained):
        return DARKNET_COLORS
    return timm_colors(net) if is_timm(net) else IMAGENET_COLORS


def timm_colors(net: str) -> dict:
    """What a network of timm expects of an image: RGB, with its own mean and deviation."""
    settings = find_timm_settings(net)
    if settings is None:
        return IMAGENET_COLORS
    scaled = {key: [round(255 * value, 3) for value in values] for key, values in (
        ("DATASET.PIXEL_MEANS", settings.mean), ("DATASET.PIXEL_STDS", settings.std),
    )}  # fmt: skip
    return {"DATASET.COLOR_ORDER": "RGB", **scaled}

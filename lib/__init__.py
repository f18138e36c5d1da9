"""SSD-family detectors: trained by train.py, shown by demo.py, and used from Python by `load`.

The package is `ssds` where it is installed and `lib` in a checkout.  What stands here is imported when it is first
used, since it brings torch along.

>>> import ssds
>>> found = ssds.load("experiments/models/shapes")("street.jpg")
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import Detector, load
    from .structures import Detections
    from .utils.errors import UserError

# OpenCV reads this when it is first imported.  A GIF of 35 bytes may claim a gigapixel, and would get the memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970")

__all__ = ["Detections", "Detector", "UserError", "load"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})

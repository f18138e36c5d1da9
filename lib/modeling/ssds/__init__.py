"""Detector variants; importing the package registers them all."""

from . import bifpn, dssd, dual_path, fpn, fssd, interleaved, lstm, rfb, ssd, tdm, yolo
from .detector import SSD
from .neck import SSDS

__all__ = [
    "SSD", "SSDS", "bifpn", "dssd", "dual_path", "fpn", "fssd", "interleaved", "lstm", "rfb", "ssd", "tdm", "yolo",
]  # fmt: skip

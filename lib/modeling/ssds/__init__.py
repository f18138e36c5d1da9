"""Detector variants; importing the package registers them all."""

from . import ssd
from .detector import SSD
from .neck import SSDS

__all__ = ["SSD", "SSDS", "ssd"]

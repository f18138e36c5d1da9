"""Base networks; importing the package registers them all."""

from . import mobilenet, vgg
from .backbone import NETS, Backbone, FeatureInfo

__all__ = ["NETS", "Backbone", "FeatureInfo", "mobilenet", "vgg"]

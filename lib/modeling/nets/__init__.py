"""Base networks; importing the package registers them all."""

from . import darknet, mobilenet, resnet, vgg
from .backbone import NETS, Backbone, FeatureInfo

__all__ = ["NETS", "Backbone", "FeatureInfo", "darknet", "mobilenet", "resnet", "vgg"]

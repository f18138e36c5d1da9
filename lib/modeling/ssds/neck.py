"""The contract of detector variants: a variant is a neck.

A neck has `taps` (layers of the base it wants), `channels` (of each level it returns) and
`forward(features, state) -> (sources, state)`, where features are the tapped outputs and, last, the end of the base.
"""

from ...utils.registry import Registry

SSDS = Registry("MODEL.SSDS")
"""Builders of necks by variant name: (backbone, feature_layer, image_size, num_ratios) -> neck; feature_layer and
num_ratios are None where the configuration leaves the choice to the variant."""

"""Every configuration of the repository loads and builds."""

from pathlib import Path

import pytest
import torch

from lib.config import load_config
from lib.modeling.model_builder import create_model

CONFIGS = sorted((Path(__file__).parents[2] / "experiments" / "cfgs").glob("*.yml"))
PRIORS = {"ssd_vgg16_voc": 11620, "ssd_lite_mobilenetv1_voc": 2990, "ssd_lite_mobilenetv2_voc": 2990}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds(path):
    cfg = load_config(path)
    cfg.MODEL.NUM_CLASSES = cfg.MODEL.NUM_CLASSES or 4
    with torch.device("meta"):
        model = create_model(cfg)
    assert len(model.priors) == PRIORS.get(path.stem, len(model.priors)) and len(model.priors) > 100
    assert Path(cfg.EXP_DIR).name == path.stem or path.stem.endswith("_shapes")

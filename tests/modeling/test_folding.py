"""Folding batch norms changes no detection, for any base with any variant."""

import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.modeling.folding import fold_norms
from lib.modeling.model_builder import create_model

CASES = [
    ("ssd_lite", "mobilenet_v1_025", ()),
    ("rfb", "resnet_18", ()),
    ("rfb_lite", "mobilenet_v2_025", ()),
    ("fssd", "darknet_19", ()),
    ("fpn", "resnet_18", ("MODEL.HEAD=tower",)),
    ("bifpn", "mobilenet_v2_025", ()),
    ("dssd", "resnet_18", ()),
    ("tdm", "mobilenet_v1_025", ()),
    ("yolo_v3", "mobilenet_v1_025", ()),
    ("ssd_lite_dual", "mobilenet_v1_S1L6", ()),
    ("ssd_lite_RNN", "mobilenet_v1_025", ()),
    ("lstm_ssd", "mobilenet_v1_025", ()),
    ("lstm_ssd_interleaved", "slim_mobilenet_v2_100", ()),
    ("ssd", "resnet_18", ("MODEL.FEATURE_LAYER=[[0,1,5,9,'S'],[64,64,64,256,128]]",)),
    ("ssd_lite", "mobilenet_v2_025", ("MODEL.FEATURE_LAYER=[['5.0',12,'S'],[null,null,64]]",)),
]


def noisy_norms(model):
    """Give every batch norm statistics and weights that are no identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, std=0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize(("variant", "net", "overrides"), CASES, ids=lambda value: value if value else "")
def test_the_folded_model_computes_the_same(variant, net, overrides):
    torch.manual_seed(0)
    cfg = load_config(
        None, [f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", "MODEL.NUM_CLASSES=4", "MODEL.IMAGE_SIZE=[160,160]",
               *overrides],
    )  # fmt: skip
    model = noisy_norms(create_model(cfg)).double().eval()
    folded, images = fold_norms(model), torch.rand(2, 3, 160, 160, dtype=torch.float64)
    with torch.no_grad():
        state = other = None
        for _ in range(2):
            expected, got = model(images, state), folded(images, other)
            state, other = expected.state, got.state
            torch.testing.assert_close(got.loc, expected.loc, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(got.conf, expected.conf, rtol=1e-9, atol=1e-9)
    norms, left = (sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (model, folded))
    assert left <= norms // 4


def test_the_model_itself_stays_as_it_is():
    torch.manual_seed(0)
    model = create_model(
        load_config(None, ["MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", "MODEL.NUM_CLASSES=4"])
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not fold_norms(model.train()).training and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

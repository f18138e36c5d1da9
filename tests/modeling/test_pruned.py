"""A fresh network takes the shapes of a pruned one, and no others."""

import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.modeling.model_builder import create_model
from lib.modeling.pruned import shrink_to
from lib.utils.errors import UserError


def build(net="mobilenet_v1_025", *overrides, variant="ssd_lite"):
    words = [f"MODEL.NETS={net}", f"MODEL.SSDS={variant}", "MODEL.IMAGE_SIZE=64", "MODEL.NUM_CLASSES=4", *overrides]
    return create_model(load_config(None, words))


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_the_shapes_of_a_narrower_network_make_it_that_network():
    torch.manual_seed(0)
    wide, narrow = build("mobilenet_v1_050").eval(), build("mobilenet_v1_025").eval()
    shrink_to(wide, shapes_of(narrow), "x.pth")
    wide.load_state_dict(narrow.state_dict())
    for (name, mine), theirs in zip(wide.named_modules(), narrow.modules(), strict=True):
        assert repr(mine) == repr(theirs), name
    images = torch.rand(2, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(wide(images)[:2], narrow(images)[:2], strict=True))


def test_what_stays_are_the_first_filters_and_its_own_shapes_change_nothing():
    wide, narrow = build("mobilenet_v1_050"), build("mobilenet_v1_025")
    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    shrink_to(wide, shapes_of(wide), "x.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in wide.state_dict().items())
    shrink_to(wide, shapes_of(narrow), "x.pth")
    name = "backbone.layers.3.conv.3.weight"
    rows, columns = narrow.state_dict()[name].shape[:2]
    assert torch.equal(wide.state_dict()[name], before[name][:rows, :columns])


def test_the_predictors_keep_their_outputs_whatever_the_classes_of_the_file():
    wide, narrow = build("mobilenet_v1_050", "MODEL.NUM_CLASSES=9"), build("mobilenet_v1_025")
    shrink_to(wide, shapes_of(narrow), "x.pth")
    for mine, theirs in zip(wide.head.conf_predictors(), narrow.head.conf_predictors(), strict=True):
        assert mine.in_channels == theirs.in_channels and mine.out_channels * 4 == theirs.out_channels * 9
    assert wide(torch.rand(2, 3, 64, 64)).conf.shape[2] == 9


def test_it_learns():
    wide, narrow = build("resnet_18", variant="fpn"), build("resnet_18", "MODEL.NECK_WIDTH=32", variant="fpn")
    shrink_to(wide, shapes_of(narrow), "x.pth")
    loc, conf = wide(torch.rand(2, 3, 64, 64))[:2]
    (loc.sum() + conf.square().sum()).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in wide.parameters())


@pytest.mark.parametrize(
    ("net", "change", "message"),
    [
        ("mobilenet_v1_050", {}, r"x\.pth: is pruned, but not from this network: backbone\S+ is \[16, 3, 3, 3\]"),
        ("resnet_18", {}, "x.pth: is pruned, but not from this network: it has no backbone"),
        ("mobilenet_v1_025", {"backbone.layers.3.conv.3.weight": (0, 16, 1, 1)}, r"conv\.3\.weight is \[0, 16, 1, 1\]"),
        ("mobilenet_v1_025", {"backbone.layers.3.conv.4.weight": (7,)}, "x.pth: its layers do not fit together: "),
    ],
)  # fmt: skip
def test_shapes_that_are_not_of_a_part_of_it_are_refused_in_one_line(net, change, message):
    own = build("mobilenet_v1_025")
    shapes = shapes_of(own if net == "mobilenet_v1_025" else build(net)) | change
    for name, shape in change.items():
        if len(shape) == 1:
            stem = name.removesuffix("weight")
            shapes |= {stem + other: shape for other in ("bias", "running_mean", "running_var")}
    with pytest.raises(UserError, match=message) as error:
        shrink_to(own, shapes, "x.pth")
    assert "\n" not in str(error.value)


def test_a_layer_of_another_kind_keeps_its_shape():
    model = build()
    model.neck.norm = nn.PReLU(8)
    shapes = shapes_of(model) | {"neck.norm.weight": (4,)}
    with pytest.raises(UserError, match="neck.norm.weight is .4., here .8."):
        shrink_to(model, shapes, "x.pth")

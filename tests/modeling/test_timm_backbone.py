"""Networks of timm as bases: the contract of a base, timm's own features, and what is refused."""

import copy
import sys

import pytest
import torch

from lib.config import load_config
from lib.modeling.model_builder import create_backbone, create_model
from lib.modeling.nets.timm_backbone import build_timm_backbone
from lib.modeling.pretrained import PREFIX, base_state
from lib.utils.errors import UserError

timm = pytest.importorskip("timm")

# One of each way in which timm takes features out of its networks; mambaout emits channels last, vit has a fixed size.
NETS = ["test_resnet", "test_efficientnet", "test_mambaout", "test_vit", "xception41"]


def config(net, *overrides):
    return load_config(None, [f"MODEL.NETS={net}", "MODEL.NUM_CLASSES=4", "MODEL.SSDS=ssd_lite", *overrides])


@pytest.mark.parametrize("name", [*NETS, "resnet50.a1_in1k", "convnext_tiny", "mobilenetv3_large_100"])
def test_feature_info_is_what_the_maps_are(name):
    with torch.device("meta"):
        net = build_timm_backbone(f"timm/{name}", (96, 192)).eval()
        net.emit(range(len(net.layers)))
        outputs, state = net(torch.empty(1, 3, 96, 192), "state")
    assert state == "state" and len(outputs) == len(net.feature_info) + 1 == len(net.layers) + 1
    for output, (channels, stride) in zip(outputs[:-1], net.feature_info, strict=True):
        assert output.shape[1:] == (channels, 96 // stride, 192 // stride)
    assert outputs[-1] is outputs[-2]


@pytest.mark.parametrize("name", NETS)
def test_maps_are_timms_own(name):
    net = build_timm_backbone(f"timm/{name}", (64, 64)).eval()
    sized = {"img_size": 64} if name == "test_vit" else {}
    theirs = timm.create_model(name, features_only=True, **sized).eval()
    theirs.load_state_dict({k.removeprefix("layers.net."): v for k, v in net.state_dict().items()})
    images = torch.randn(1, 3, 64, 64)
    net.emit([0, len(net.layers) - 1])
    with torch.no_grad():
        maps = theirs(images)
        first, last, _ = net(images)[0]
    if name == "test_mambaout":
        maps = [x.permute(0, 3, 1, 2) for x in maps]
    assert torch.equal(first, maps[0]) and torch.equal(last, maps[-1])


def test_maps_are_found_by_number_stride_and_name():
    net = build_timm_backbone("timm/resnet18", (64, 64))
    assert [net.find_tap(token) for token in (3, "/16", "layer3")] == [3, 3, 3]
    assert [net.find_tap(token) for token in (5, -1, "/64", "layer9", "S", "3.1")] == [None] * 6
    assert "3 = 'layer3' ('/16')" in net.taps_in_words()
    assert net.last_layers_by_stride() == [0, 1, 2, 3, 4] and net.info_at(3) == (256, 16)


def test_a_detector_learns_and_all_of_its_base_is_in_the_words_base():
    model = create_model(config("timm/test_efficientnet", "MODEL.IMAGE_SIZE=64"))
    assert all(name.startswith("backbone.layers.") for name, _ in model.backbone.named_parameters("backbone"))
    other = copy.deepcopy(model)
    predictions = model.train()(torch.randn(2, 3, 64, 64))
    (predictions.loc.square().mean() + predictions.conf.square().mean()).backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
    other.eval(), model.eval()
    other.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other(images).conf, model(images).conf)


def test_levels_by_timms_names():
    model = create_model(
        config("timm/resnet18", "MODEL.FEATURE_LAYER=[[layer3,layer4,S],[256,512,128]]", "MODEL.IMAGE_SIZE=64")
    )
    assert model.neck.taps == [3, 4] and model.neck.channels == [256, 512, 128]


@pytest.mark.parametrize("name", NETS[:-1])
def test_weights_of_the_whole_classifier_fill_the_base(name):
    """timm names some parts otherwise in networks that return feature maps; its own way there is the witness."""
    sized = {"img_size": 64} if name == "test_vit" else {}
    whole = timm.create_model(name, **sized).state_dict()
    own_file = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(whole)}}
    theirs = timm.create_model(name, features_only=True, **own_file, **sized).eval()
    net = build_timm_backbone(f"timm/{name}", (64, 64)).eval()
    state = base_state(f"timm/{name}", whole)
    own = {PREFIX + key: tensor for key, tensor in net.state_dict().items()}
    assert base_state(f"timm/{name}", own) == own
    net.load_state_dict({key.removeprefix(PREFIX): state[key] for key in own})
    net.emit([len(net.layers) - 1])
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(images)[-1]
        assert torch.equal(net(images)[0][0], expected.permute(0, 3, 1, 2) if name == "test_mambaout" else expected)


BAD = [
    (["timm/resnett18"], r"^MODEL.NETS: 'timm/resnett18' is unknown to timm [\d.]+; the nearest: timm/resnet18, timm/"),
    (["timm/"], "unknown to timm .*; timm.list_models"),
    (["timm/resnet18.a9"], "'timm/resnet18.a9' is unknown to timm; allowed: .*timm/resnet18.a1_in1k"),
    (["timm/nest_tiny"], "timm/nest_tiny cannot be a base network: "),
    (["timm/hrnet_w18_small"], "timm/hrnet_w18_small takes no images of 300x300 pixels: "),
    (["timm/bat_resnext26ts", "MODEL.IMAGE_SIZE=[96,100]"], "takes no images of 96x100 pixels: AssertionError$"),
    (
        ["timm/vit_tiny_patch16_224", "MODEL.IMAGE_SIZE=64", "TRAIN.IMAGE_SIZES=[64,96]"],
        "takes no images of 96x96 pixels: ",
    ),
    (["timm/resnet18", "MODEL.FEATURE_LAYER=[[layer9,S],[256,512]]"], "entry 0 .'layer9'.*3 = 'layer3' \\('/16'\\)"),
    (["timm/resnet18", "MODEL.FEATURE_LAYER=[[9,S],[256,512]]"], "the base network has feature maps 0 = 'act1'"),
    (["timm/resnet18", "MODEL.NORM_IN_TRUNK=True"], "nothing can be inserted .*timm/resnet18.*NORM_IN_TRUNK"),
]


@pytest.mark.parametrize("words, message", BAD, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_what_cannot_be_a_base_is_told_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        create_model(config(*words))
    assert "\n" not in str(caught.value)


def test_a_split_is_refused():
    with pytest.raises(UserError, match="timm/test_resnet. cannot be split"):
        build_timm_backbone("timm/test_resnet", (64, 64)).emit([1, 2], split_at=0)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for words in ([], ["MODEL.PRETRAINED=imagenet"]):
        with pytest.raises(UserError, match="^MODEL.NETS: .* need the package timm, .*'pip install timm' installs it$"):
            create_backbone(config("timm/resnet18", *words))


def test_colors_follow_the_networks_own_mean_and_deviation():
    assert config("timm/resnet18", "MODEL.PRETRAINED=imagenet").DATASET.PIXEL_MEANS == [123.675, 116.28, 103.53]
    for source in ("imagenet", "weights/vit.pth"):
        data = config("timm/vit_tiny_patch16_224", f"MODEL.PRETRAINED={source}").DATASET
        assert (data.COLOR_ORDER, data.PIXEL_MEANS, data.PIXEL_STDS) == ("RGB", [127.5] * 3, [127.5] * 3)
    given = config("timm/vit_tiny_patch16_224", "MODEL.PRETRAINED=imagenet", "DATASET.PIXEL_STDS=[1,2,3]").DATASET
    assert (given.PIXEL_MEANS, given.PIXEL_STDS) == ([127.5] * 3, [1, 2, 3])
    assert config("timm/vit_tiny_patch16_224").DATASET.PIXEL_STDS == [1, 1, 1]


def test_networks_without_weights_are_refused_when_built():
    untrained = next(name for name in timm.list_models("resnet*") if not timm.get_pretrained_cfg(name).has_weights)
    with pytest.raises(UserError, match=f"timm has no weights for timm/{untrained}; it can be given a file"):
        create_backbone(config(f"timm/{untrained}", "MODEL.PRETRAINED=imagenet"))

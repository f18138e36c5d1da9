"""Bases with torchvision's weights compute torchvision's features."""

import pytest
import torch
import torchvision
from torch import nn

from lib.modeling.nets import NETS
from lib.modeling.pretrained import IMAGENET_WEIGHTS, PREFIX, base_state, decimate
from lib.utils.errors import UserError


def randomize(model, seed=0):
    """Weights that keep signals at their scale, and batch norms unlike fresh ones; double precision."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2, generator=generator)
            module.bias.data.normal_(0, 0.7, generator=generator)
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=generator)
    return model.double().eval()


def fill(name, theirs, **settings):
    """Our base with the weights of a torchvision model."""
    net = NETS.get(name)(**settings).double().eval()
    net.load_state_dict({k.removeprefix(PREFIX): v for k, v in base_state(name, theirs).items()}, strict=False)
    return net


@torch.no_grad()
def outputs(chain, images):
    maps = []
    for layer in chain:
        images = layer(images)
        maps.append(images.clone())  # activations in place would write into the map before them
    return maps


def normalized_images(batch, size):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *size, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape and theirs.abs().max() > 1e-3
    assert (ours - theirs).abs().max() < 1e-9 * theirs.abs().max()


@pytest.mark.parametrize("name", IMAGENET_WEIGHTS)
def test_every_tensor_of_the_base_is_there(name):
    with torch.device("meta"):
        model = type(IMAGENET_WEIGHTS[name]).__name__.removesuffix("_Weights").lower()
        theirs = torchvision.models.get_model(model, weights=None).state_dict()
        own = NETS.get(name)().state_dict()
    if name.startswith("mobilenet_v2"):  # the expansion of the first block is computed
        theirs = {key: torch.ones(value.shape) for key, value in theirs.items()}
    state = base_state(name, theirs)
    wanted = {PREFIX + k: v.shape for k, v in own.items() if not k.endswith("num_batches_tracked")}
    assert {key: state[key].shape for key in wanted} == wanted


def test_vgg16_to_conv5():
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    theirs = nn.ModuleDict({"features": randomize(features)}).state_dict()
    images = normalized_images(1, (64, 32))
    ours = outputs(fill("vgg16", theirs).layers[:30], images)
    for tap, (a, b) in enumerate(zip(ours, outputs(features[:30], images), strict=True)):
        if tap in (3, 8, 15, 22, 29):  # conv1_2, conv2_2, conv3_3, conv4_3, conv5_3 after their activations
            assert_close(a, b)


def test_fc6_and_fc7_keep_every_fourth_output_and_every_third_cell():
    generator = torch.Generator().manual_seed(2)
    fc6, fc7 = nn.Linear(512 * 7 * 7, 16).double(), nn.Linear(16, 16).double()
    for layer in (fc6, fc7):
        layer.weight.data.normal_(generator=generator)
        layer.bias.data.normal_(generator=generator)
    conv6 = nn.Conv2d(512, 4, 3, padding=6, dilation=6).double()
    conv7 = nn.Conv2d(4, 4, 1).double()
    for conv, layer in ((conv6, fc6), (conv7, fc7)):
        conv.load_state_dict({name: decimate(tensor) for name, tensor in layer.state_dict().items()})
    with torch.no_grad():
        # Where 7x7 inputs stand apart by 2 (pool5 has lost its stride), those of the 9 kept cells reach the layer.
        window = torch.zeros(512, 13, 13, dtype=torch.float64)
        cells = torch.randn(512, 7, 7, dtype=torch.float64, generator=generator)
        kept = torch.zeros(512, 7, 7, dtype=torch.float64)
        for row in range(7):
            for column in range(7):
                window[:, 2 * row, 2 * column] = cells[:, row, column]
                if row in (0, 3, 6) and column in (0, 3, 6):
                    kept[:, row, column] = cells[:, row, column]
        hidden = fc6(kept.flatten()) * torch.tensor([1.0, 0, 0, 0] * 4, dtype=torch.float64)
        expected = fc7(hidden)[[0, 4, 8, 12]]
        assert_close(conv7(conv6(window[None]))[0, :, 6, 6], expected)


@pytest.fixture(scope="module")
def mobilenet():
    return randomize(torchvision.models.mobilenet_v2(weights=None))


@pytest.mark.parametrize("name, num_layers", [("mobilenet_v2", 18), ("mobilenet_v2_full", 19)])
def test_mobilenet_v2(mobilenet, name, num_layers):
    images = normalized_images(2, (64, 96))
    net = fill(name, mobilenet.state_dict(), stem_activation=nn.ReLU6)
    theirs = outputs(mobilenet.features[:num_layers], images * 4)
    assert (theirs[0] == 6).any()  # the bound of ReLU6 is reached
    for a, b in zip(outputs(net.layers, images * 4), theirs, strict=True):
        assert_close(a, b)


def test_mobilenet_v2_starts_its_training_with_those_features(mobilenet):
    """With statistics of the batch the added norm is no exact identity any more, but a near one."""
    net = fill("mobilenet_v2", mobilenet.state_dict(), stem_activation=nn.ReLU6).train()
    state = {name: tensor.clone() for name, tensor in mobilenet.state_dict().items()}
    images = normalized_images(4, (64, 64))
    ours, theirs = outputs(net.layers, images), outputs(mobilenet.train().features[:18], images)
    mobilenet.load_state_dict(state)
    mobilenet.eval()
    for tap, limit in ((1, 0.01), (6, 0.03), (13, 0.1)):
        assert (ours[tap] - theirs[tap]).norm() < limit * theirs[tap].norm()


# The last layer of the stem and of each stage.
RESNET_STAGES = {"resnet_18": [3, 5, 7, 9], "resnet_34": [3, 6, 10, 16], "resnet_50": [3, 6, 10, 16]}


@pytest.mark.parametrize("name", RESNET_STAGES)
def test_resnets(name):
    model = randomize(torchvision.models.get_model(name.replace("_", ""), weights=None))
    images = normalized_images(2, (64, 96))
    net = fill(name, model.state_dict())
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    theirs = outputs([stem, model.layer1, model.layer2, model.layer3], images)
    ours = outputs(net.layers, images)
    for layer, b in zip(RESNET_STAGES[name], theirs, strict=True):
        assert_close(ours[layer], b)


def test_a_resnet_of_other_depth_is_refused():
    """Its first blocks would fit."""
    with torch.device("meta"):
        theirs = torchvision.models.resnet101(weights=None).state_dict()
    with pytest.raises(UserError, match=r"a ResNet of \[3, 4, 23\] blocks, the base has \[3, 4, 6\]"):
        base_state("resnet_50", theirs)


@pytest.mark.parametrize("prefix", ["", "layers.", "backbone.layers."])
def test_names_of_a_base_alone(prefix):
    own = NETS.get("mobilenet_v1_025")().layers.state_dict()
    state = base_state("mobilenet_v1_025", {prefix + name: tensor for name, tensor in own.items()})
    assert set(state) == {f"backbone.layers.{name}" for name in own}

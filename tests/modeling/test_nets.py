"""Every registered base network keeps its published contract."""

import pytest
import torch

from lib.modeling.nets import NETS
from lib.modeling.nets.darknet import DARKNETS
from lib.utils.errors import UserError

# Parameters of the reference family's base networks (spec of its code, counted layer by layer).
PARAMETERS = {
    "vgg16": 20_483_904,
    "vgg16_S1L2": 20_483_904,
    "vgg16_S2L2_5": 20_483_904,
    "mobilenet_v1": 3_206_976,
    "mobilenet_v1_075": 1_816_560,
    "mobilenet_v1_050": 818_592,
    "mobilenet_v1_025": 213_072,
    "mobilenet_v1_S1L0": 3_206_976,
    "mobilenet_v1_S1L4": 3_206_976,
    "mobilenet_v1_S1L6": 3_206_976,
    "mobilenet_v1_S2L0_6": 3_206_976,
    "mobilenet_v2": 1_812_800,
    "mobilenet_v2_075": 1_037_832,
    "mobilenet_v2_050": 477_376,
    "mobilenet_v2_025": 133_232,
    "mobilenet_v2_cut": 1_812_800,
    "mobilenet_v2_full": 1_812_800 + 1280 * 320 + 2 * 1280,
    "mobilenet_v2_full_075": 1_037_832 + 1280 * 240 + 2 * 1280,
    "mobilenet_v2_full_050": 477_376 + 1280 * 160 + 2 * 1280,
    "mobilenet_v2_full_025": 133_232 + 1280 * 80 + 2 * 1280,
    "mobilenet_v1_025_stride8": 213_072,
    "mobilenet_v1_025_stride16": 213_072,
    "slim_mobilenet_v2_140": 3_509_376,
    "slim_mobilenet_v2_100": 1_811_712,
    "slim_mobilenet_v2_035": 258_784,
    "slim_mobilenet_v2_035_stride8": 258_784,
    "slim_mobilenet_v2_035_stride16": 258_784,
    "resnet_18": 2_782_784,
    "resnet_18_stride8": 2_782_784,
    "resnet_18_stage1": 157_504,
    "resnet_34": 8_170_304,
    "resnet_50": 8_543_296,
    "resnet_101": 27_535_424,
    "darknet_19": 19_817_376,
    "darknet_53": 40_584_928,
}

# (layer, channels, side of the map at 300, at 416) of the reference family's tables; 0 where a table has no figure.
DARKNET_19 = [
    (0, 32, 300, 416), (1, 32, 150, 208), (2, 64, 150, 208), (3, 64, 75, 104), (5, 128, 75, 104), (6, 128, 37, 52),
    (8, 256, 37, 52), (9, 256, 18, 26), (12, 512, 18, 26), (13, 512, 9, 13), (14, 1024, 9, 13), (16, 1024, 9, 13),
]  # fmt: skip
MOBILENET_V1 = [
    (0, 32, 150, 208), (1, 64, 150, 208), (2, 128, 75, 104), (3, 128, 75, 104), (4, 256, 38, 52), (5, 256, 38, 52),
    (6, 512, 19, 26), (11, 512, 19, 26), (12, 1024, 10, 13), (13, 1024, 10, 13),
]  # fmt: skip
MOBILENET_V2 = [
    (0, 32, 150, 208), (1, 16, 150, 208), (3, 24, 75, 104), (6, 32, 38, 52), (10, 64, 19, 26), (13, 96, 19, 26),
    (16, 160, 10, 13), (17, 320, 10, 13),
]  # fmt: skip
RESNET_50 = [
    (0, 64, 150, 0), (1, 64, 150, 0), (2, 64, 150, 0), (3, 64, 75, 0), (4, 256, 75, 0), (6, 256, 75, 0),
    (7, 512, 38, 0), (10, 512, 38, 0), (11, 1024, 19, 0), (16, 1024, 19, 0),
]  # fmt: skip
MAPS = {
    "vgg16": [
        (3, 64, 300, 0), (4, 64, 150, 0), (9, 128, 75, 0), (16, 256, 38, 0), (22, 512, 38, 0), (23, 512, 19, 0),
        (29, 512, 19, 0), (30, 512, 19, 0), (34, 1024, 19, 0),
    ],
    "vgg16_S1L2": [
        (4, 64, 300, 0), (9, 128, 150, 0), (16, 256, 75, 0), (22, 512, 75, 0), (23, 512, 37, 0), (29, 512, 37, 0),
        (30, 512, 37, 0), (34, 1024, 37, 0),
    ],
    "vgg16_S2L2_5": [
        (4, 64, 300, 0), (9, 128, 300, 0), (16, 256, 150, 0), (22, 512, 150, 0), (23, 512, 75, 0), (29, 512, 75, 0),
        (30, 512, 25, 0), (34, 1024, 25, 0),
    ],
    "mobilenet_v1": MOBILENET_V1,
    "mobilenet_v1_S1L0": [(0, 32, 300, 0), (2, 128, 150, 0), (4, 256, 75, 0), (11, 512, 38, 0), (13, 1024, 19, 0)],
    "mobilenet_v1_S1L4": [(0, 32, 150, 0), (2, 128, 75, 0), (4, 256, 75, 0), (11, 512, 38, 0), (13, 1024, 19, 0)],
    "mobilenet_v1_S1L6": [(0, 32, 150, 0), (2, 128, 75, 0), (4, 256, 38, 0), (11, 512, 38, 0), (13, 1024, 19, 0)],
    "mobilenet_v1_S2L0_6": [(0, 32, 300, 0), (2, 128, 150, 0), (4, 256, 75, 0), (11, 512, 75, 0), (13, 1024, 38, 0)],
    "mobilenet_v2": MOBILENET_V2,
    "mobilenet_v2_full": [*MOBILENET_V2, (18, 1280, 10, 13)],
    "mobilenet_v2_full_050": [(13, 48, 19, 26), (17, 160, 10, 13), (18, 1280, 10, 13)],
    "slim_mobilenet_v2_140": [(0, 48, 150, 0), (1, 24, 150, 0), (3, 32, 75, 0), (6, 48, 38, 0), (10, 88, 19, 0),
                              (13, 136, 19, 0), (16, 224, 10, 0), (17, 448, 10, 0)],
    "slim_mobilenet_v2_035_stride16": [(0, 16, 150, 0), (1, 16, 150, 0), (3, 16, 75, 0), (6, 16, 38, 0),
                                       (10, 24, 19, 0), (13, 32, 19, 0), (16, 56, 19, 0), (17, 112, 19, 0)],
    "resnet_18": [(3, 64, 75, 0), (4, 64, 75, 0), (5, 64, 75, 0), (6, 128, 38, 0), (8, 256, 19, 0), (9, 256, 19, 0)],
    "resnet_34": [(4, 64, 75, 0), (6, 64, 75, 0), (7, 128, 38, 0), (11, 256, 19, 0), (16, 256, 19, 0)],
    "resnet_50": RESNET_50,
    "resnet_101": [*RESNET_50, (33, 1024, 19, 0)],
    "darknet_19": DARKNET_19,
    "darknet_53": [
        (0, 32, 300, 416), (1, 64, 150, 208), (2, 64, 150, 208), (3, 128, 75, 104), (5, 128, 75, 104),
        (6, 256, 38, 52), (14, 256, 38, 52), (15, 512, 19, 26), (23, 512, 19, 26), (24, 1024, 10, 13),
        (28, 1024, 10, 13),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NETS.names())
def test_feature_info_is_what_the_layers_emit(name):
    with torch.device("meta"):
        net = NETS.get(name)().eval()
        net.emit(range(len(net.layers)))
        outputs, state = net(torch.empty(1, 3, 96, 192), "state")
    assert state == "state" and len(outputs) == len(net.feature_info) + 1
    for output, info in zip(outputs[:-1], net.feature_info, strict=True):
        assert output.shape[1] == info.channels
        if not name.startswith("vgg16_S2L2_5"):  # its pool of stride 3 has no padding
            assert list(output.shape[2:]) == [-(-96 // info.stride), -(-192 // info.stride)]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    with torch.device("meta"):
        assert sum(p.numel() for p in NETS.get(name)().parameters()) == PARAMETERS[name]


def test_every_base_has_its_count():
    assert set(NETS.names()) == set(PARAMETERS)


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_those_of_the_tables(name):
    """Where a size is no multiple of 32 paddings and roundings show: pool3 of VGG gives 38, pool4 19."""
    with torch.device("meta"):
        net = NETS.get(name)().eval()
        net.emit([layer for layer, *_ in MAPS[name]])
        for column, size in ((2, 300), (3, 416)):
            outputs, _ = net(torch.empty(1, 3, size, size))
            found = [(x.shape[1], *x.shape[2:]) for x in outputs[:-1]]
            wanted = [(row[1], row[column], row[column]) for row in MAPS[name]]
            assert [f for f, w in zip(found, wanted, strict=True) if w[1]] == [w for w in wanted if w[1]]


@pytest.mark.parametrize("name", DARKNETS)
def test_darknets_pairs_have_shortcuts_where_the_family_has_them(name):
    """A pair whose last norm emits nothing passes its input on where it has a shortcut, else emits nothing."""
    net = NETS.get(name)().eval()
    pair = next(layer for layer in net.layers if len(getattr(layer, "conv", ())) == 6)
    torch.nn.init.zeros_(pair.conv[4].weight)
    x = torch.randn(1, pair.conv[0].in_channels, 4, 4)
    with torch.no_grad():
        assert torch.equal(pair(x), torch.zeros_like(x) if name == "darknet_19" else x)


@pytest.mark.parametrize("name", ["resnet_18", "resnet_50"])
def test_the_parts_of_the_resnets_stem_can_be_tapped(name):
    """The layers that follow do not write into what was tapped."""
    net = NETS.get(name)().eval()
    net.emit([0, 1, 2])
    with torch.no_grad():
        images = torch.randn(1, 3, 32, 32)
        convolution, norm, activation, _ = net(images)[0]
        assert torch.equal(convolution, net.layers[0](images))
        assert torch.equal(norm, net.layers[1](convolution)) and (norm < 0).any()
        assert torch.equal(activation, norm.clamp(min=0))


def test_cut_follows_its_structure():
    with torch.device("meta"):
        net = NETS.get("mobilenet_v2_cut")(1.0, [1, 2, 3, 4, 3, 1, 1])
    assert len(net.layers) == 16 and net.feature_info[13].channels == 96 and net.feature_info[15].channels == 320


def test_taps_are_not_changed_by_later_layers():
    net = NETS.get("vgg16")().eval()
    net.emit([3, 22])
    with torch.no_grad():
        images = torch.randn(1, 3, 32, 32)
        early, late, _ = net(images)[0]
        x = images
        for layer in net.layers[:4]:
            x = layer(x)
    assert torch.equal(early, x) and (late >= 0).all()


@pytest.mark.parametrize("name, tap", [("vgg16", 0), ("mobilenet_v2", (1, 1)), ("mobilenet_v2", (1, 4))])
def test_taps_before_an_activation_in_place_are_the_maps_before_it(name, tap):
    net = NETS.get(name)().eval()
    net.emit([tap])
    chain = net.layers[:1] if isinstance(tap, int) else [net.layers[0], net.layers[1].conv[: tap[1] + 1]]
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found, wanted = net(images)[0][0], torch.nn.Sequential(*chain)(images)
    assert (found < 0).any() and torch.equal(found, wanted)


def test_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'mobilenet_v2'"):
        NETS.get("mobilnet_v2")

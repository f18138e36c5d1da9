"""Every registered base network keeps its published contract."""

import pytest
import torch

from lib.modeling.nets import NETS
from lib.utils.errors import UserError

# Parameters of the reference family's base networks (spec of its code, counted layer by layer).
PARAMETERS = {
    "vgg16": 20_483_904,
    "mobilenet_v1": 3_206_976,
    "mobilenet_v1_075": 1_816_560,
    "mobilenet_v1_050": 818_592,
    "mobilenet_v1_025": 213_072,
    "mobilenet_v2": 1_812_800,
    "mobilenet_v2_075": 1_037_832,
    "mobilenet_v2_050": 477_376,
    "mobilenet_v2_025": 133_232,
}


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


def test_map_sizes_of_vgg_at_300():
    """pool3 rounds up to 38, pool4 down to 19 (reference family's table)."""
    with torch.device("meta"):
        net = NETS.get("vgg16")()
        net.emit([4, 9, 16, 22, 23, 30, 34])
        outputs, _ = net(torch.empty(1, 3, 300, 300))
    assert [o.shape[-1] for o in outputs[:-1]] == [150, 75, 38, 38, 19, 19, 19]


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


def test_unknown_name_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'mobilenet_v2'"):
        NETS.get("mobilnet_v2")

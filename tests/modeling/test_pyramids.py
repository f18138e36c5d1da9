"""Necks with a way back to finer levels, and the losses that come with them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.config import load_config
from lib.modeling.model_builder import create_criterion, create_model, create_postprocess
from lib.modeling.nets import NETS
from lib.modeling.ssds import SSDS
from lib.modeling.ssds.bifpn import BiFPNLayer, FusionNode
from lib.modeling.ssds.detector import source_map_sizes
from lib.modeling.ssds.dssd import DeconvolutionModule
from lib.modeling.ssds.neck import NeckSpec
from lib.solver.checkpoint import copy_weights
from lib.structures import Target
from lib.utils.errors import UserError

PYRAMIDS = ("fpn", "bifpn", "dssd", "tdm")
BASES = (
    "vgg16", "vgg16_S1L2", "vgg16_S2L2_5", "mobilenet_v1_025", "mobilenet_v1_S2L0_6", "mobilenet_v2_025", "resnet_18",
    "darknet_19",
)  # fmt: skip


def config(*overrides):
    return load_config(None, ["MODEL.NUM_CLASSES=4", "MODEL.NECK_WIDTH=32", *overrides])


def small(variant, *overrides):
    return config(f"MODEL.SSDS={variant}", "MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=96", *overrides)


@pytest.mark.parametrize("variant", PYRAMIDS)
@pytest.mark.parametrize("net", BASES)
def test_usual_levels_of_any_base_and_odd_maps(variant, net):
    """Maps have the sizes of the base's taps, get coarser from level to level, and have the width asked for."""
    size = (157, 273)
    with torch.device("meta"):
        backbone = NETS.get(net)()
        neck = SSDS.get(variant)(backbone, NeckSpec(size, width=8)).eval()
        backbone.emit(neck.taps)
        features, _ = backbone.eval()(torch.empty(1, 3, *size))
        sources, state = neck(features, "state")
    assert state == "state" and len(sources) >= 4
    assert neck.channels == [8] * len(sources) == [x.shape[1] for x in sources]
    sizes = [tuple(x.shape[2:]) for x in sources]
    assert sizes[: len(neck.taps)] == [tuple(x.shape[2:]) for x in features[:-1]]
    assert all(a[0] >= b[0] and a[1] >= b[1] for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize("variant", ["fpn", "bifpn"])
def test_levels_of_retinanet(variant):
    """P3 to P7 from a base with strides up to 32."""
    model = create_model(config(f"MODEL.SSDS={variant}", "MODEL.NETS=mobilenet_v2_025", "MODEL.IMAGE_SIZE=512"))
    sizes = source_map_sizes(model.backbone, model.neck, (512, 512))
    assert sizes == [(side, side) for side in (64, 32, 16, 8, 4)]


@pytest.mark.parametrize("variant", PYRAMIDS)
def test_fine_levels_see_what_only_coarse_ones_saw(variant):
    """The finest map depends on the whole image, and every parameter of the neck on the loss of some level."""
    torch.manual_seed(0)
    model = create_model(small(variant, "MODEL.IMAGE_SIZE=[96,160]"))
    features, _ = model.backbone(torch.randn(2, 3, 96, 160))
    features = [x.detach().requires_grad_() for x in features]
    sources, _ = model.neck(features)
    (gradient,) = torch.autograd.grad(sources[0].sum(), features[-2], retain_graph=True)
    assert gradient.abs().sum() > 0
    sum(source.square().sum() for source in sources).backward()
    for name, parameter in model.neck.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("variant", ["dssd", "tdm"])
def test_levels_that_do_not_halve(variant):
    """VGG's last levels shrink from 5 to 3 to 1."""
    layers = "[[16,22,34,S,S,'',''],[256,512,1024,512,256,256,256]]"
    model = create_model(config(f"MODEL.SSDS={variant}", "MODEL.NETS=vgg16", f"MODEL.FEATURE_LAYER={layers}"))
    sizes = source_map_sizes(model.backbone, model.neck, (300, 300))
    assert sizes == [(side, side) for side in (38, 38, 19, 10, 5, 3, 1)]


@pytest.mark.parametrize("variant", ["dssd", "tdm"])
def test_weights_of_ssd_fill_base_and_extras(variant):
    ssd, model = create_model(small("ssd")), create_model(small(variant))
    report = copy_weights(model, ssd.state_dict(), "ssd.pth", "base,norm,extras")
    assert not report.missing and not report.mismatched
    assert all(name.startswith("head.") for name in report.unexpected)
    assert torch.equal(model.neck.extras[0].weight, ssd.neck.extras[0].weight)


def test_fusion_is_a_weighted_mean_of_the_inputs():
    node = FusionNode(2, 3)
    node.conv = nn.Identity()
    node.weight.data = torch.tensor([3.0, -1.0])
    maps = [torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)]
    torch.testing.assert_close(node(maps), maps[0] * 3 / (3 + 1e-4))  # a weight below 0 counts as 0
    node.weight.data = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(node(maps), (maps[0] + 3 * maps[1]) / (4 + 1e-4))


@pytest.mark.parametrize("num_levels", [2, 3, 5])
def test_every_level_of_a_bifpn_layer_sees_every_other(num_levels):
    layer = BiFPNLayer(num_levels, 4).eval()
    maps = [torch.randn(1, 4, side, side + 3, requires_grad=True) for side in (17, 9, 5, 3, 2)[:num_levels]]
    out = layer(maps)
    assert [x.shape for x in out] == [x.shape for x in maps]
    for x in out:
        gradients = torch.autograd.grad(x.square().sum(), maps, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_deconvolution_multiplies():
    module = DeconvolutionModule(2, 3, 4).eval()
    fine, coarse = torch.randn(1, 2, 5, 7), torch.randn(1, 3, 3, 4)
    enlarged = module.coarse(module.enlarge(coarse)[..., :5, :7])
    torch.testing.assert_close(module(fine, coarse), F.relu(module.fine(fine) * enlarged))


BAD = [
    ("fpn", "[[5,11,''],[64,128,64]]", "unknown token; allowed: 'S'"),
    ("bifpn", "[[11],[128]]", "MODEL.FEATURE_LAYER: bifpn passes features between levels"),
    ("dssd", "[[5,11,P],[64,128,64]]", "'P'"),
    ("tdm", "[[11,5],[128,64]]", "ascending"),
]


@pytest.mark.parametrize("variant, layers, expected", BAD, ids=[case[0] for case in BAD])
def test_bad_levels_are_one_clear_line(variant, layers, expected):
    with pytest.raises(UserError) as error:
        create_model(small(variant, f"MODEL.FEATURE_LAYER={layers}"))
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("variant", ["fpn", "dssd", "tdm"])
def test_a_single_level_is_enough(variant):
    model = create_model(small(variant, "MODEL.FEATURE_LAYER=[[11],[null]]")).eval()
    assert model(torch.zeros(1, 3, 96, 96)).loc.shape == (1, 6 * 6 * 6, 4)


@pytest.mark.parametrize("head", ["conv3", "tower"])
@pytest.mark.parametrize("loss, sigmoid", [("focal", False), ("sigmoid_focal", True)])
def test_priors_start_with_little_belief_in_objects(loss, sigmoid, head):
    """RetinaNet's 0.01: for each class where classes are apart, for all together under a softmax."""
    model = create_model(small("fpn", f"CRITERION.CONF_LOSS={loss}", f"MODEL.HEAD={head}")).eval()
    with torch.no_grad():
        conf = model(torch.zeros(1, 3, 96, 96)).conf
    belief = conf[..., 1:].sigmoid() if sigmoid else conf.softmax(2)[..., 1:].sum(2)
    torch.testing.assert_close(belief, torch.full_like(belief, 0.01), rtol=0.1, atol=0)


CASES = [
    ("fpn", "focal", "giou", "conv3"),
    ("bifpn", "sigmoid_focal", "diou", "auto"),
    ("dssd", "multibox", "ciou", "auto"),
    ("tdm", "multibox", "smooth_l1", "auto"),
    ("fpn", "sigmoid_focal", "smooth_l1", "tower"),
]


@pytest.mark.parametrize("variant, conf_loss, box_loss, head", CASES)
def test_overfits_one_image(variant, conf_loss, box_loss, head):
    """A few dozen steps on one picture find both of its objects, where they are and as what they are."""
    torch.manual_seed(0)
    cfg = small(
        variant, f"CRITERION.CONF_LOSS={conf_loss}", f"CRITERION.BOX_LOSS={box_loss}", f"MODEL.HEAD={head}",
        "CRITERION.BOX_WEIGHT=2", "MODEL.FEATURE_LAYER=[[11,13,S],[128,256,64]]", "MODEL.NECK_REPEATS=1",
        "POST_PROCESS.IOU_THRESHOLD=0.3",
    )  # fmt: skip
    model, criterion, postprocess = create_model(cfg), create_criterion(cfg), create_postprocess(cfg)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.55, 0.4, 0.95, 0.9]])
    image = torch.randn(1, 3, 96, 96) * 0.1
    image[:, 0, 10:58, 10:48] += 2
    image[:, 1, 38:86, 53:91] += 2
    images, targets = image.expand(2, -1, -1, -1), [Target(boxes=boxes, labels=torch.tensor([2, 3]))] * 2
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        losses = criterion(model(images), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.no_grad():
        found = postprocess(model(images))[0]
    best = found.select(torch.arange(2))
    order = best.labels.argsort()
    assert best.labels[order].tolist() == [2, 3] and best.scores.min() > 0.5
    assert (best.boxes[order] - boxes).abs().max() < 0.06

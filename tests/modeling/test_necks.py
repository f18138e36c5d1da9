"""Necks of the reference family besides SSD: receptive field blocks, fused maps, YOLO shapes and two paths."""

import importlib.util

import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.layers.rfb_blocks import MOMENTUM, rfb, rfb_a_lite, rfb_lite
from lib.modeling.model_builder import create_model
from lib.modeling.nets import NETS
from lib.modeling.ssds import SSDS
from lib.modeling.ssds.detector import source_map_sizes
from lib.modeling.ssds.dual_path import dual_path_bases
from lib.modeling.ssds.feature_layer import Level
from lib.modeling.ssds.fssd import FSSDNeck
from lib.modeling.ssds.neck import NeckSpec
from lib.modeling.ssds.yolo import SpaceToDepth, Upsample, space_to_depth
from lib.utils.errors import UserError

VARIANTS = ("rfb", "rfb_lite", "fssd", "fssd_lite", "yolo_v2", "yolo_v3", "ssd_dual", "ssd_lite_dual")
FSSD_TOKENS = ["", "S", "S", "S", "", ""]
BASES = ("vgg16", "vgg16_S1L2", "vgg16_S2L2_5", "mobilenet_v1_025", "mobilenet_v1_S1L6", "resnet_18", "darknet_19")


def config(*overrides):
    return load_config(None, ["MODEL.NUM_CLASSES=4", *overrides])


def build(variant, net, *overrides):
    return create_model(config(f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", *overrides)).eval()


def build_on_shapes(variant, net, *overrides):
    with torch.device("meta"):
        return build(variant, net, *overrides)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def map_sides(model, side):
    sizes = source_map_sizes(model.backbone, model.neck, (side, side))
    assert all(rows == columns for rows, columns in sizes)
    return [rows for rows, _ in sizes]


def run_layers(x, layers):
    for layer in layers:
        x = layer(x)
    return x


def fault_of(shared, name):
    """What the script of the original networks' figures finds wrong with a model, '' for nothing."""
    spec = importlib.util.spec_from_file_location("parity_check", shared / "parity" / "check.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.check(str(shared / "parity" / "models" / f"{name}.npz"))


@pytest.mark.parametrize(
    "name",
    [
        "lstm__cfgs__rfb_lite_mobilenetv2_train_voc", "lstm__cfgs__fssd_lite_mobilenetv1_train_voc",
        "lstm__cfgs__yolo_v3_mobilenetv2_voc",
    ],
)  # fmt: skip
def test_parity_with_published_networks(shared, name):
    assert fault_of(shared, name) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "lstm__cfgs__rfb_vgg16_train_voc", "lstm__cfgs__rfb_darknet19_voc", "lstm__cfgs__fssd_vgg16_train_voc",
        "lstm__cfgs__fssd_darknet53_voc", "lstm__cfgs__yolo_v2_darknet19_voc",
        "bmvc__mobilenetv1__ssd_lite_dual_mobilenetv1_train_coco_S1L0_Split",
        "bmvc__vgg16__ssd_dual_vgg16_S1L2_train_coco_1",
    ],
)  # fmt: skip
def test_parity_with_large_published_networks(shared, name):
    assert fault_of(shared, name) == ""


def check_usual_levels(variant, net, size):
    with torch.device("meta"):
        backbone = NETS.get(net)().eval()
        neck = SSDS.get(variant)(backbone, NeckSpec(size)).eval()
        backbone.emit(neck.taps, neck.split_at)
        sources, state = neck(*backbone(torch.empty(1, 3, *size), "state", neck.inserts()))
    assert state == "state"
    assert [x.shape[1] for x in sources] == neck.channels
    areas = [x.shape[2] * x.shape[3] for x in sources]
    assert areas[-1] > 0 and areas == sorted(areas, reverse=variant != "yolo_v3")


def bases_of(variant, bases):
    return [net for net in bases if not variant.endswith("_dual") or net in dual_path_bases()]


@pytest.mark.parametrize("variant, net", [(v, net) for v in VARIANTS for net in bases_of(v, BASES)])
def test_usual_levels_on_odd_maps(variant, net):
    """Every level has cells and the channels it announces; levels are in order of their sizes."""
    check_usual_levels(variant, net, (157, 273))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(300, 300), (96, 160)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_usual_levels_of_every_base(variant, size):
    for net in bases_of(variant, NETS.names()):
        check_usual_levels(variant, net, size)


@pytest.mark.parametrize(
    "variant, net, layers",
    [
        ("rfb", "vgg16", [[22, 34, "RBF", "RBF", "", ""], [512, 1024, 512, 256, 256, 256]]),
        ("rfb_lite", "mobilenet_v2", [[13, 17, "RBF", "S", "S", "S"], [96, 320, 512, 256, 256, 128]]),
        ("fssd", "vgg16", [[[22, 34, "S"], [512, 1024, 512]], [FSSD_TOKENS, [512] * 2 + [256] * 4]]),
        ("fssd", "darknet_53", [[[14, 23, 28], [256, 512, 1024]], [FSSD_TOKENS, [512] * 2 + [256] * 4]]),
        ("fssd_lite", "mobilenet_v2", [[[6, 13, 17], [32, 96, 320]], [FSSD_TOKENS, [256] * 4 + [128] * 2]]),
        ("yolo_v2", "mobilenet_v1", [[["", "", 11, ""]], [[1024, 1024, 64, 1024]]]),
        ("ssd_dual", "vgg16_S1L2", [[22, 34, "S", "S", "", ""], [512, 1024, 512, 256, 256, 256]]),
        ("ssd_lite_dual", "mobilenet_v1_S1L0", [[11, 13, "S", "S", "S", "S"], [512, 1024, 512, 256, 256, 128]]),
    ],
)  # fmt: skip
def test_usual_levels_are_the_published_ones(variant, net, layers):
    usual, given = (build_on_shapes(variant, net, *more) for more in ([], [f"MODEL.FEATURE_LAYER={layers}"]))
    assert usual.neck.taps == given.neck.taps and usual.neck.channels == given.neck.channels
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (usual, given)]
    assert shapes[0] == shapes[1] and map_sides(usual, 300) == map_sides(given, 300)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_of_the_neck_learns(variant):
    net = "mobilenet_v1_S1L0" if variant.endswith("_dual") else "mobilenet_v1_025"
    model = build(variant, net, "MODEL.IMAGE_SIZE=[64,96]", "MODEL.SOURCE_NORM=batch").train()
    out = model(torch.randn(2, 3, 64, 96))
    (out.loc.square().sum() + out.conf.square().sum()).backward()
    for name, parameter in model.neck.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


class TestRFB:
    def test_the_trunk_goes_on_from_the_later_blocks_and_not_from_the_first(self):
        torch.manual_seed(0)
        model = build("rfb", "mobilenet_v1_025", "MODEL.FEATURE_LAYER=[[5,8,11,RBF,S],[64,128,128,128,64]]")
        layers, neck, images = model.backbone.layers, model.neck, torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            found, _ = model.sources(images)
            x = run_layers(images, layers[:6])
            sources = [neck.norm[0](x)]
            sources.append(neck.norm[1](run_layers(x, layers[6:9])))
            sources.append(neck.norm[2](run_layers(sources[-1], layers[9:12])))
            sources.append(neck.extras[0](run_layers(sources[-1], layers[12:])))
            sources.append(neck.extras[2](neck.extras[1](sources[-1])))
        for one, other in zip(found, sources, strict=True):
            torch.testing.assert_close(one, other)

    def test_rfb_lite_takes_the_second_tap_as_it_is(self):
        model = build("rfb_lite", "mobilenet_v1_025", "MODEL.FEATURE_LAYER=[[5,11],[64,128]]")
        images = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            first, second = model.sources(images)[0]
            x = run_layers(images, model.backbone.layers[:6])
            torch.testing.assert_close(first, model.neck.norm(x))
            torch.testing.assert_close(second, run_layers(x, model.backbone.layers[6:12]))

    def test_a_block_by_hand(self):
        """Two branches of zeros leave the shortcut, whose strided 1x1 convolution takes every second cell."""
        block = rfb(16, 16, stride=2, paper=False).eval()
        nn.init.zeros_(block.ConvLinear.conv.weight)
        with torch.no_grad():
            block.shortcut.conv.weight.copy_(torch.eye(16)[:, :, None, None])
        x = torch.randn(1, 16, 5, 6)
        torch.testing.assert_close(block(x), x[:, :, ::2, ::2].relu() / (1 + 1e-5) ** 0.5)

    def test_branches_of_the_family_and_of_the_paper(self):
        def dilations(block):
            return [getattr(block, name)[-1].conv.dilation[0] for name in block.branches]

        assert dilations(rfb(512, 256, 2, paper=False)) == [3, 5]
        assert dilations(rfb(512, 256, 2, paper=True)) == [2, 3, 5]
        assert dilations(rfb(256, 256, 2, paper=True)) == [1, 2, 3]
        assert dilations(rfb(256, 256, 1, paper=True)) == [2, 3, 5]
        for depthwise in (False, True):
            for block in (rfb_lite(64, 32, 2, depthwise), rfb_a_lite(64, depthwise)):
                last = [getattr(block, name)[-1].conv for name in block.branches]
                assert all(conv.groups == (conv.out_channels if depthwise else 1) for conv in last)

    @pytest.mark.parametrize(
        "variant, net, overrides, parameters",
        [
            ("rfb", "vgg16", ["MODEL.NUM_CLASSES=21"], 36_531_296),
            ("rfb_lite", "mobilenet_v1", ["MODEL.NUM_CLASSES=81", "MODEL.HEAD=conv1"], 7_677_728),
        ],
    )
    def test_sizes_of_the_published_rfb_nets(self, variant, net, overrides, parameters):
        ratios = "MODEL.ASPECT_RATIOS=[[1,2,3],[1,2,3],[1,2,3],[1,2,3],[1,2],[1,2]]"
        model = build_on_shapes(variant, net, "MODEL.RFB_BLOCK=paper", ratios, *overrides)
        assert count(model) == parameters

    def test_levels_of_rfb_net_512(self):
        layers = "[[22,34,RBF,RBF,RBF,RBF,K4],[512,1024,512,256,256,256,[128,256]]]"
        overrides = ["MODEL.IMAGE_SIZE=512", "MODEL.RFB_BLOCK=paper", f"MODEL.FEATURE_LAYER={layers}"]
        assert map_sides(build_on_shapes("rfb", "vgg16", *overrides), 512) == [64, 32, 16, 8, 4, 2, 1]

    @pytest.mark.parametrize("variant", ["rfb", "rfb_lite"])
    def test_momentum_of_the_norms(self, variant):
        neck = build_on_shapes(variant, "mobilenet_v1").neck
        assert {m.momentum for m in neck.modules() if isinstance(m, nn.BatchNorm2d)} == {MOMENTUM}


class TestFSSD:
    @pytest.mark.parametrize("align_corners, resized", [(False, [0, 0.25, 0.75, 1]), (True, [0, 1 / 3, 2 / 3, 1])])
    def test_maps_are_resized_to_the_first(self, align_corners, resized):
        fused = [Level(0, 2, 0), Level(1, 2, 1)]
        neck = FSSDNeck(fused, [("", 8)], [], 1, align_corners).eval()
        with torch.no_grad():
            for transform in neck.transforms:
                transform.conv.weight.copy_(torch.tensor([1.0, 0])[None, :, None, None])
                transform.conv.bias.zero_()
            fine = torch.tensor([-4.0, 5, 6, 7]).expand(1, 2, 3, 4)
            joined = neck.fuse([fine, torch.tensor([0.0, 1]).expand(1, 2, 2, 2)])
        torch.testing.assert_close(joined[0, 0], torch.tensor([0.0, 5, 6, 7]).expand(3, 4))
        torch.testing.assert_close(joined[0, 1], torch.tensor(resized).expand(3, 4))

    def test_the_key_reaches_the_resizes(self):
        for corners in (False, True):
            model = build_on_shapes("fssd_lite", "mobilenet_v2_025", f"MODEL.ALIGN_CORNERS={corners}")
            assert model.neck.align_corners is corners
            model = build_on_shapes("yolo_v3", "mobilenet_v2_025", f"MODEL.ALIGN_CORNERS={corners}")
            routers = [m for m in model.neck.modules() if isinstance(m, Upsample)]
            assert len(routers) == 2 and all(router.align_corners is corners for router in routers)

    def test_the_pyramid_is_a_chain_from_the_normalised_maps(self):
        layers = "[[[5,11,S],[64,128,64]],[['',S,'',''],[48,40,32,24]]]"
        model = build("fssd", "mobilenet_v1_025", f"MODEL.FEATURE_LAYER={layers}")
        neck = model.neck
        neck.norm.running_mean.fill_(0.1)
        with torch.no_grad():
            features, _ = model.backbone(torch.randn(1, 3, 96, 160))
            sources, _ = neck(features)
            extra = run_layers(features[-1], neck.extras)
            x = neck.norm(neck.fuse([*features[:-1], extra]))
            assert (extra < 0).any()  # no activation before the fusion
            for source, layer in zip(sources, neck.pyramids, strict=True):
                x = layer(x)
                torch.testing.assert_close(source, x)
        assert [tuple(x.shape[1:]) for x in sources] == [(48, 12, 20), (40, 6, 10), (32, 4, 8), (24, 2, 6)]


class TestYOLO:
    def test_order_of_space_to_depth(self):
        """Channel (row * 2 + column) * C + c."""
        x = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
        y = space_to_depth(x, 2)
        assert y.shape == (1, 8, 2, 3)
        for row in range(2):
            for column in range(2):
                for channel in range(2):
                    got = y[0, (row * 2 + column) * 2 + channel]
                    assert torch.equal(got, x[0, channel, row::2, column::2])

    def test_space_to_depth_of_a_map_that_is_too_small(self):
        """19 cells, of which a strided layer made 10: the 20th is empty."""
        router = SpaceToDepth([nn.Identity()], 2)
        x, tap = torch.full((1, 3, 10, 10), 7.0), torch.ones(1, 1, 19, 19)
        out = router(x, tap)
        assert out.shape == (1, 7, 10, 10) and (out[:, :3] == 7).all()
        assert (out[0, 3] == 1).all()
        assert (out[0, 4, :, -1] == 0).all() and (out[0, 4, :, :-1] == 1).all()
        assert (out[0, 5, -1] == 0).all() and (out[0, 5, :-1] == 1).all()

    @pytest.mark.parametrize("side, kept", [(36, slice(0, 36)), (37, slice(1, 37)), (38, slice(1, 37))])
    def test_maps_of_the_base_are_cut_to_the_enlarged_chain(self, side, kept):
        router = Upsample([nn.Identity()], 2, align_corners=False)
        x, tap = torch.ones(1, 3, 18, 18), torch.randn(1, 2, side, side)
        out = router(x, tap)
        assert out.shape == (1, 5, 36, 36) and (out[:, :3] == 1).all()
        assert torch.equal(out[:, 3:], tap[:, :, kept, kept])

    def test_maps_of_the_base_are_padded_to_the_enlarged_chain(self):
        router = Upsample([nn.Identity()], 2, align_corners=False)
        out = router(torch.ones(1, 3, 10, 10), torch.ones(1, 2, 17, 18))
        inside = torch.zeros(20, 20)
        inside[1:18, 1:19] = 1
        assert torch.equal(out[0, 3], inside)

    def test_levels_go_from_coarse_to_fine_and_are_predicted_by_1x1(self):
        model = build_on_shapes("yolo_v3", "darknet_53", "MODEL.IMAGE_SIZE=416")
        assert map_sides(model, 416) == [13, 26, 52]
        assert {layer.kernel_size for layer in (*model.head.loc, *model.head.conf)} == {(1, 1)}

    def test_a_pool_can_be_a_router(self):
        layers = "[[[B],[9,B]],[[64],[32,64]]]"  # in darknet_19, layer 9 is the pool to stride 16
        model = build("yolo_v3", "darknet_19", "MODEL.IMAGE_SIZE=64", f"MODEL.FEATURE_LAYER={layers}")
        with torch.no_grad():
            images = torch.randn(1, 3, 64, 64)
            sources, _ = model.sources(images)
            x = model.neck.extras[0](run_layers(images, model.backbone.layers))
            pooled = run_layers(images, model.backbone.layers[:10])
            torch.testing.assert_close(sources[1], model.neck.extras[2](model.neck.extras[1](x, pooled)))

    def test_one_size_a_level_is_enough_for_given_boxes(self):
        """The size at the end belongs to the second square of ratio 1, which [w, h] pairs do not have."""
        overrides = ["MODEL.IMAGE_SIZE=416", "MODEL.SIZES=[[416,416]]", "MODEL.ASPECT_RATIOS=[[[.1,.2],[.5,.4]]]"]
        model = build_on_shapes("yolo_v2", "mobilenet_v1_025", *overrides)
        assert model.priors.shape == (13 * 13 * 2, 4)
        overrides[2] = "MODEL.ASPECT_RATIOS=[[1,2]]"
        with pytest.raises(UserError, match="one more at the end"):
            build_on_shapes("yolo_v2", "mobilenet_v1_025", *overrides)
        overrides[2] = "MODEL.ASPECT_RATIOS=[[2,3]]"
        assert build_on_shapes("yolo_v2", "mobilenet_v1_025", *overrides).priors.shape == (13 * 13 * 4, 4)


class TestDualPath:
    @pytest.mark.parametrize("net, split_at", [("mobilenet_v1_S1L0", 0), ("mobilenet_v1_S1L4", 4), ("vgg16_S1L2", 4)])
    def test_it_is_the_base_run_twice(self, net, split_at):
        torch.manual_seed(0)
        variant = "ssd_dual" if net.startswith("vgg") else "ssd_lite_dual"
        model = build(variant, net, "MODEL.IMAGE_SIZE=64")
        layers, neck, (first, second) = model.backbone.layers, model.neck, model.neck.taps
        assert neck.split_at == split_at
        with torch.no_grad():
            images = torch.randn(1, 3, 64, 96)
            found, _ = model.sources(images)
            x = run_layers(images, layers[: split_at + 1])
            middle = run_layers(x, layers[split_at + 1 : first + 1])
            torch.testing.assert_close(found[0], neck.norm(middle))
            torch.testing.assert_close(found[1], run_layers(middle, layers[first + 1 : second + 1]))
            coarse = run_layers(x[:, :, ::2, ::2], layers[split_at + 1 : second + 1])
            for layer in neck.extras[: neck.layers_per_level]:
                coarse = layer(coarse).relu()
            torch.testing.assert_close(found[2], coarse)

    @pytest.mark.parametrize("net", ["mobilenet_v1_S1L0", "mobilenet_v1_S1L6"])
    def test_the_coarse_path_is_the_plain_network(self, net):
        """Every second cell of a convolution without its stride is what the convolution with it computes."""
        torch.manual_seed(0)
        dual, plain = build("ssd_lite_dual", net, "MODEL.IMAGE_SIZE=64"), NETS.get("mobilenet_v1")().eval()
        plain.load_state_dict(dual.backbone.state_dict())
        with torch.no_grad():
            images = torch.randn(1, 3, 64, 96)
            torch.testing.assert_close(dual.backbone(images)[0][-1], plain(images)[0][-1])

    def test_norms_behind_the_split_see_both_paths(self):
        model = build("ssd_lite_dual", "mobilenet_v1_S1L0", "MODEL.IMAGE_SIZE=64").train()
        model(torch.randn(2, 3, 64, 64))
        batches = [layer.conv[1].num_batches_tracked.item() for layer in model.backbone.layers]
        assert batches == [1] + [2] * 13

    def test_a_norm_in_the_trunk_stands_in_both_paths(self):
        torch.manual_seed(0)
        model = build("ssd_lite_dual", "mobilenet_v1_S1L0", "MODEL.IMAGE_SIZE=64", "MODEL.NORM_IN_TRUNK=true")
        layers, neck, images = model.backbone.layers, model.neck, torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            features, _ = model.backbone(images, None, neck.inserts())
            for found, x in ((features[1], layers[0](images)), (features[2], layers[0](images)[:, :, ::2, ::2])):
                torch.testing.assert_close(found, run_layers(neck.norm(run_layers(x, layers[1:12])), layers[12:]))

    def test_extra_levels_start_from_the_coarse_path_at_the_last_tap(self):
        """Of layers behind the last tap only the other variants make use."""
        layers = "MODEL.FEATURE_LAYER=[[5,11,S],[256,512,64]]"
        model = build_on_shapes("ssd_lite_dual", "mobilenet_v1_S1L0", "MODEL.IMAGE_SIZE=64", layers)
        assert map_sides(model, 64) == [16, 8, 2]
        assert model.neck.extras[0][0].in_channels == 512

    def test_the_bases_that_are_named_are_those_that_can(self):
        with torch.device("meta"):
            assert dual_path_bases() == [name for name in NETS.names() if NETS.get(name)().unstrided]


BAD = [
    ("rfb", "vgg16", "[[22,34,X],[512,1024,512]]", "entry 2 ('X'): unknown token; allowed: '', 'K4', 'RBF', 'S'"),
    ("rfb", "vgg16", "[[22,34,RBF],[512,1024,[64,512]]]", "'RBF': channels must be one number"),
    ("rfb", "vgg16", "[]", "expected [tokens, channels], two lists"),
    ("rfb", "mobilenet_v2", "[[13,'14.2'],[null,null]]", "'14.2': rfb goes on from a block"),
    ("rfb", "mobilenet_v2_025", "[[2,17],[8,80]]", "2: a block needs an input of at least 16 channels"),
    ("rfb_lite", "mobilenet_v2", "[[13,17,S,RBF],[96,320,8,64]]", "'RBF': a block needs an input of at least 16"),
    ("fssd", "vgg16", "[[22,34,S],[512,1024,512]]", "four lists, got [[22, 34, 'S'], [512, 1024, 512]]"),
    ("fssd", "vgg16", "[[[22,34],[512,1024]]]", "four lists"),
    ("fssd", "vgg16", "[[[S,22],[512,512]],[[''],[256]]]", "fused maps: entry 1 (22): layers of the base come first"),
    ("fssd", "vgg16", "[[[22,35],[512,1024]],[[''],[256]]]", "fused maps: entry 1 (35): the base network has layers 0"),
    ("fssd", "vgg16", "[[[22,34],[512,1024]],[['',K],[512,256]]]", "pyramid: entry 1 ('K'): unknown token; allowed:"),
    ("fssd", "vgg16", "[[[22,34],[512,1024]],[[34,S],[512,256]]]", "pyramid: entry 0 (34): unknown token"),
    ("fssd", "vgg16", "[[[22,34],[512,1024]],[[''],[0]]]", "pyramid: entry 0 (''): channels must be a positive number"),
    ("fssd", "vgg16", "[[[22,34],[512,1024]],[[],[]]]", "pyramid: there must be a level"),
    ("ssd", "vgg16", "[[[22,34],[512,1024]],[[''],[256]]]", "entry 0 ([22, 34]): unknown token"),
    ("yolo_v3", "mobilenet_v1", "[[11,B],[512,1024]]", "a list of tokens and one of channels for each level"),
    ("yolo_v3", "mobilenet_v1", "[[[B],[]],[[512],[]]]", "a list of tokens and one of channels for each level"),
    ("yolo_v3", "mobilenet_v1", "[[],[]]", "there must be a level"),
    ("yolo_v3", "mobilenet_v1", "[[[B],[S,B]],[[512],[64,64]]]", "level 1: entry 0 ('S'): unknown token; allowed: ''"),
    ("yolo_v3", "mobilenet_v1", "[[[B],[14,B]],[[512],[64,64]]]", "level 1: entry 0 (14): the base network has layers"),
    ("yolo_v3", "mobilenet_v1", "[[[B],[13,B]],[[512],[64,64]]]", "level 1: 13: a router joins the chain, of stride"),
    ("yolo_v3", "mobilenet_v1", "[[[B],[5,B],[11,B]],[[64],[64,64],[64,64]]]", "has stride 16; allowed: 2, 4"),
    ("yolo_v2", "mobilenet_v1", "[['','',11,''],[1024,1024,64,1024]]", "a list of tokens and one of channels"),
    ("yolo_v2", "mobilenet_v1", "[[['',B]],[[64,x]]]", "level 0: entry 1 ('B'): channels must be a positive number"),
    ("yolo_v2", "mobilenet_v1", "[[['11.2','11.3']],[[64,64]]]", "can be tapped at one place only"),
    ("ssd_dual", "vgg16", "null", "MODEL.SSDS: the dual-path variants need a base that keeps a map"),
    ("ssd_lite_dual", "mobilenet_v1_S1L4", "[[3,S],[128,64]]", "the paths part behind layer 4"),
    (
        "ssd_lite_dual", "mobilenet_v1_S1L0", "[[11,13,E,S,S,P],[512,1536,512,256,256,128]]",
        "entry 1 (13): 1536 channels are those of layers 11 and 13 concatenated (512 + 1024), which the fork this "
        "comes from had switched off; give 1024",
    ),
]  # fmt: skip


@pytest.mark.parametrize("variant, net, layers, expected", BAD, ids=[f"{case[0]} {case[2]}" for case in BAD])
def test_bad_levels_are_one_clear_line(variant, net, layers, expected):
    with pytest.raises(UserError) as error:
        build_on_shapes(variant, net, f"MODEL.FEATURE_LAYER={layers}")
    assert expected in str(error.value) and str(error.value).startswith("MODEL.") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "variant, layers, channels, expected",
    [
        (
            "fssd",
            "[[[5,11,S],[64,128]],[['',S],[32,16]]]",
            [32, 16],
            ("fused maps are of unequal", "tokens ['S']"),
        ),
        ("fssd", "[[[5,11],[64,128]],[['',S,S],[32,16]]]", [32, 16], ("pyramid are of unequal", "tokens ['S']")),
        ("yolo_v3", "[[[B],[11,B,B]],[[32],[16,16]]]", [32, 16], ("level 1 are of unequal", "tokens ['B']")),
        ("yolo_v3", "[[[B],[11,B]],[[32]]]", [32], ("FEATURE_LAYER are of unequal", "[[11, 'B']]")),
    ],
)
def test_lists_are_cut_to_the_shortest_with_a_warning(caplog, variant, layers, channels, expected):
    model = build_on_shapes(variant, "mobilenet_v1_025", f"MODEL.FEATURE_LAYER={layers}")
    assert model.neck.channels == channels
    (record,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert all(part in record for part in expected)


def test_an_extra_level_may_have_a_single_channel():
    model = build_on_shapes("ssd", "mobilenet_v1_025", "MODEL.FEATURE_LAYER=[[13,S,S],[null,1,8]]")
    assert model.neck.channels == [256, 1, 8] and all(parameter.numel() for parameter in model.parameters())


def test_levels_follow_the_number_of_aspect_ratios(caplog):
    ratios = "MODEL.ASPECT_RATIOS=[[1],[1],[1]]"
    assert len(build_on_shapes("fssd", "mobilenet_v1_025", ratios).neck.channels) == 3
    assert len(build_on_shapes("yolo_v3", "mobilenet_v1_025", "MODEL.ASPECT_RATIOS=[[1],[1]]").neck.channels) == 2
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]

"""Pruned detectors compute what the whole ones would without the filters that were removed, and are smaller."""

import copy
import sys

import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.layers.normalize import L2Norm
from lib.modeling.complexity import count_macs
from lib.modeling.model_builder import create_criterion, create_model
from lib.modeling.pruned import shrink_to
from lib.modeling.ssds import SSD
from lib.structures import Target
from lib.tools.prune import Wish, prune_model
from lib.tools.prune_groups import OUT, find_groups, kept_layers
from lib.tools.prune_report import filters_by_layer
from lib.tools.prune_select import choose_by_ratio, group_norms, kept_channels, remove_channels
from lib.utils.errors import UserError
from tests.modeling.test_folding import noisy_norms

pytest.importorskip("torch_pruning")

CASES = [
    ("ssd_lite", "mobilenet_v1_025", ()),
    ("ssd", "resnet_18", ("MODEL.FEATURE_LAYER=[[0,1,5,9,'S'],[64,64,64,256,128]]",)),
    ("fpn", "mobilenet_v1_025", ("MODEL.HEAD=tower",)),
]
MORE_CASES = [
    ("rfb_lite", "mobilenet_v2_025", ("MODEL.RFB_BLOCK=paper",)),
    ("bifpn", "mobilenet_v1_025", ("MODEL.NECK_REPEATS=1",)),
    ("yolo_v2", "mobilenet_v1_025", ()),
    ("lstm_ssd", "mobilenet_v1_025", ()),
    ("ssd", "vgg16", ()),
    ("ssd", "mobilenet_v1_025", ("MODEL.HEAD=separable_all", "MODEL.SOURCE_NORM=batch", "MODEL.NORM_IN_TRUNK=True")),
    ("ssd_lite", "mobilenet_v2_025", ("MODEL.FEATURE_LAYER=[['5.0',12,'S'],[null,null,64]]",)),
    ("ssd_lite", "resnet_50", ()),
    ("ssd_lite", "darknet_53", ()),
    ("ssd_lite", "slim_mobilenet_v2_035", ()),
    ("ssd_lite", "mobilenet_v2_full_025", ()),
    ("rfb", "resnet_18", ()),
    ("fssd", "darknet_19", ()),
    ("fssd_lite", "mobilenet_v2_025", ()),
    ("dssd", "mobilenet_v1_025", ()),
    ("tdm", "mobilenet_v1_025", ()),
    ("yolo_v3", "resnet_18", ()),
    ("ssd_dual", "mobilenet_v1_S1L0", ()),
    ("ssd_lite_dual", "mobilenet_v1_S1L0", ()),
    ("ssd_lite_RNN", "mobilenet_v1_025", ("MODEL.FEATURE_LAYER=[[11,13,'L','S'],[128,256,64,64]]",)),
    ("bifpn", "resnet_18", ()),
]
ALL = [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES)]


def config(variant, net, *overrides):
    words = [f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", "MODEL.IMAGE_SIZE=64", "MODEL.NUM_CLASSES=4"]
    return load_config(None, [*words, "MODEL.NECK_WIDTH=24", "MODEL.SIZES=[0.2, 0.9]", *overrides])


def build(cfg) -> SSD:
    torch.manual_seed(0)
    return noisy_norms(create_model(cfg)).eval()


def total(counts) -> int:
    return sum(counts.values())


def silence(model, kept) -> SSD:
    """A copy in which what is not kept makes nothing but zeros."""
    model = copy.deepcopy(model)
    layers = dict(model.named_modules())
    for (name, side), stays in kept.items():
        if side == OUT:
            layer = layers[name]
            weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
            weight[~stays] = 0
            if getattr(layer, "bias", None) is not None:
                layer.bias.data[~stays] = 0
    return model


@pytest.mark.parametrize(("variant", "net", "overrides"), ALL, ids=lambda value: value if value else "")
def test_without_its_filters_a_detector_computes_what_it_would_if_they_made_zeros(variant, net, overrides):
    cfg = config(variant, net, *overrides)
    model, fresh = build(cfg), build(cfg)
    groups = find_groups(model)
    removed = choose_by_ratio([torch.rand(group.size) for group in groups], 0.4, "layer")
    kept = kept_channels(groups, removed, dict(model.named_modules()))
    state = remove_channels(model, kept)
    shrink_to(fresh, {name: tuple(tensor.shape) for name, tensor in state.items()}, "x")
    fresh.load_state_dict(state)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, got = silence(model, kept)(images), fresh(images)
    for mine, theirs in zip(got[:2], expected[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
    whole, left = (sum(p.numel() for p in each.parameters()) for each in (model, fresh))
    assert left < 0.75 * whole and total(count_macs(fresh, (64, 64))) < 0.75 * total(count_macs(model, (64, 64)))
    losses = create_criterion(cfg)(
        fresh.train()(images), [Target(torch.tensor([[0.2, 0.2, 0.7, 0.8]]), torch.tensor([1]))] * 2
    )
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in fresh.head.parameters())


@pytest.mark.parametrize(("scope", "share"), [("layer", 0.6), ("global", 0.35)])
def test_the_number_of_multiply_adds_is_met(scope, share):
    cfg = config("ssd_lite", "mobilenet_v1_025")
    model, fresh = build(cfg), build(cfg)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prune_model(model, fresh, Wish(scope=scope, macs=share, multiple=1))
    was, is_now = fresh.pruned["multiply_adds"]
    assert (was, is_now) == (total(count_macs(model, (64, 64))), total(count_macs(fresh, (64, 64))))
    assert 0.98 * share <= is_now / was <= share
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_layers_keep_multiples_and_the_multiply_adds_are_met_all_the_same():
    cfg = config("ssd_lite", "mobilenet_v1_050")
    model, fresh = build(cfg), build(cfg)
    prune_model(model, fresh, Wish(macs=0.6))
    was, is_now = fresh.pruned["multiply_adds"]
    assert 0.58 <= is_now / was <= 0.6
    for name, before, after in filters_by_layer(model, fresh):
        assert after == before or after % 8 == 0, name
    sizes = {size: int((~choose_by_ratio([torch.rand(size)], 0.4, "layer", 8)[0]).sum()) for size in (5, 8, 16, 24, 60)}
    assert sizes == {5: 5, 8: 8, 16: 8, 24: 16, 60: 32}


def chain():
    """A plain detector and the groups of its three convolutions that have one each."""
    model = build(config("ssd", "vgg16", "MODEL.FEATURE_LAYER=[[22,34],[512,1024]]"))
    groups = {group.members[0].layer: group for group in find_groups(model)}
    return model, groups


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
def test_the_filters_of_the_smallest_norm_go(norm, order):
    model, groups = chain()
    name = "backbone.layers.10"
    weight = dict(model.named_modules())[name].weight.data
    weight *= torch.rand(len(weight), 1, 1, 1)
    weight[3, :, 1:] = 0  # few weights, but large ones: small in the sum, not in the squares
    weight[3, :, 0] *= 4
    (norms,) = group_norms([groups[name]], model, norm)
    (removed,) = choose_by_ratio([norms], 0.25, "layer")
    expected = torch.linalg.vector_norm(weight.flatten(1), order, dim=1).argsort()[: len(weight) // 4]
    assert set(removed.nonzero().flatten().tolist()) == set(expected.tolist())


def test_l1_and_l2_do_not_mean_the_same():
    model, groups = chain()
    weight = dict(model.named_modules())["backbone.layers.10"].weight.data
    weight[:] = 0.1
    weight[3], weight[3, 0, 0, 0] = 0, 0.09 * weight[0].numel()
    for norm, smallest in (("l1", True), ("l2", False)):
        (norms,) = group_norms([groups["backbone.layers.10"]], model, norm)
        assert (norms.argmin().item() == 3) is smallest


def test_layers_lose_the_same_share_or_what_the_whole_network_can_spare():
    norms = [torch.linspace(0.9, 1.1, 10), torch.linspace(0.1, 1.9, 10)]
    assert [gone.sum().item() for gone in choose_by_ratio(norms, 0.4, "layer")] == [4, 4]
    assert [gone.sum().item() for gone in choose_by_ratio(norms, 0.4, "global")] == [3, 5]
    starved = [torch.full((10,), 0.1), torch.ones(10)]
    assert [gone.sum().item() for gone in choose_by_ratio(starved, 0.5, "global")] == [7, 0]
    assert [gone.sum().item() for gone in choose_by_ratio([torch.ones(1)], 0.9, "layer")] == [0]


def test_a_residual_sum_ranks_by_the_mean_over_all_that_make_it():
    model = build(config("ssd", "resnet_18"))
    last = "backbone.layers.4.conv2"
    (group,) = [g for g in find_groups(model) if any(m.layer == last and m.side == OUT for m in g.members)]
    makers = {m.layer for m in group.members if m.side == OUT and "conv" in m.layer or m.layer == "backbone.layers.0"}
    assert makers >= {"backbone.layers.0", "backbone.layers.4.conv2", "backbone.layers.5.conv2"}
    layers = dict(model.named_modules())
    for name in makers:
        layers[name].weight.data[7] = 0
    (norms,) = group_norms([group], model, "l1")
    assert norms[7] == 0 and norms.argmin() == 7 and norms.mean().item() == pytest.approx(1, abs=1e-5)


def test_memories_and_stacked_cells_keep_their_filters():
    for variant, part in (("lstm_ssd", "neck.cells.0"), ("yolo_v2", "neck.extras.2")):
        cfg = config(variant, "mobilenet_v1_025", *(["MODEL.RNN.CELL_LEVELS=[0]"] if variant == "lstm_ssd" else []))
        model, fresh = build(cfg), build(cfg)
        assert part in kept_layers(model)
        prune_model(model, fresh, Wish(ratio=0.5, multiple=1))
        for name, before, after in filters_by_layer(model, fresh):
            assert after == before if name.startswith(f"{part}.") else after <= before


def test_two_extractors_are_refused_and_so_is_what_cannot_be_reached():
    model = build(config("lstm_ssd_interleaved", "slim_mobilenet_v2_035"))
    with pytest.raises(UserError, match="MODEL.SSDS: lstm_ssd_interleaved cannot be pruned"):
        find_groups(model)
    model = build(config("ssd_lite", "mobilenet_v1_025"))
    with pytest.raises(UserError, match=r"--macs 0\.01: at least \d+ % of the multiply-adds stay"):
        prune_model(model, model, Wish(macs=0.01))


def test_norms_of_a_source_follow_its_channels():
    cfg = config("ssd", "mobilenet_v1_025")
    model, fresh = build(cfg), build(cfg)
    prune_model(model, fresh, Wish(ratio=0.5, multiple=1))
    assert isinstance(fresh.neck.norm, L2Norm) and len(fresh.neck.norm.weight) == len(model.neck.norm.weight) // 2


def test_a_missing_package_is_told_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UserError, match="needs the package torch-pruning: pip install 'torch-pruning"):
        find_groups(build(config("ssd_lite", "mobilenet_v1_025")))

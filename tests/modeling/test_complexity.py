"""Receptive fields, multiply-adds and memory: hand-checked figures, and agreement with what a real run does."""

import copy

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from lib.config import load_config
from lib.modeling.complexity import (
    count_macs,
    count_parameters,
    layer_fields,
    peak_bytes,
    saved_bytes,
    source_fields,
    trains_on_one_image,
    unused_parameters,
)
from lib.modeling.model_builder import create_model
from lib.modeling.nets import NETS
from lib.modeling.receptive_field import receptive_fields

SIZE = (64, 96)


def conv(kernel=3, stride=1, padding=None, **options):
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = tuple(k // 2 for k in kernel) if padding is None else padding
    return nn.Conv2d(3, 3, kernel, stride, padding, device="meta", **options)


def field_of(function, image_size=SIZE):
    (field,) = receptive_fields(lambda images: [function(images)], image_size)
    return field


class Join(nn.Module):
    """A deep and a shallow path of the same map, side by side, with the channels of one."""

    def __init__(self, deep, shallow):
        super().__init__()
        self.deep, self.shallow = deep, shallow

    def forward(self, x):
        return torch.cat([self.deep(x), self.shallow(x)], 1)[:, :3]


# module, size of the field (down, across), pitch, cells
CHAINS = {
    "two convolutions": (nn.Sequential(conv(), conv()), (5, 5), 1, (64, 96)),
    "a stride counts from the next on": (nn.Sequential(conv(stride=2), conv()), (7, 7), 2, (32, 48)),
    "dilation": (conv(dilation=6, padding=6), (13, 13), 1, (64, 96)),
    "a pool": (nn.Sequential(conv(), nn.MaxPool2d(2)), (4, 4), 2, (32, 48)),
    "a pool that rounds up": (nn.MaxPool2d(3, 2, ceil_mode=True), (3, 3), 2, (32, 48)),
    "an average pool": (nn.AvgPool2d(4), (4, 4), 4, (16, 24)),
    "a flat and a tall kernel": (nn.Sequential(conv((1, 5)), conv((3, 1))), (3, 5), 1, (64, 96)),
    "norm and activation": (nn.Sequential(conv(), nn.BatchNorm2d(3, device="meta"), nn.ReLU()), (3, 3), 1, (64, 96)),
    "the widest of two paths": (Join(nn.Sequential(conv(), conv()), conv()), (5, 5), 1, (64, 96)),
    "up again": (nn.Sequential(conv(stride=2), nn.Upsample(scale_factor=2)), (3, 3), 1, (64, 96)),
    "up again, blended": (
        nn.Sequential(conv(stride=2), nn.Upsample(scale_factor=2, mode="bilinear")), (5, 5), 1, (64, 96),
    ),
    "space to depth": (nn.Sequential(conv(), nn.PixelUnshuffle(2)), (4, 4), 2, (32, 48)),
    "padding": (nn.Sequential(conv(), nn.ZeroPad2d(2)), (3, 3), 1, (68, 100)),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS, ids=lambda case: case.replace(" ", "_"))
def test_receptive_fields_by_hand(case):
    module, size, pitch, cells = CHAINS[case]
    field = field_of(module)
    assert (field.size, field.pitch, field.cells) == (size, (pitch, pitch), cells)


def test_every_second_row_doubles_the_pitch():
    field = field_of(lambda x: conv()(x[..., ::2, ::2]))
    assert (field.size, field.pitch) == ((5, 5), (2, 2))
    assert field_of(lambda x: x[..., 1:-1, 1:-1]).pitch == (1, 1)


def test_transposed_convolution_reads_the_cells_that_lie_under_its_kernel():
    up = nn.ConvTranspose2d(3, 3, 2, stride=2, device="meta")
    assert field_of(nn.Sequential(conv(stride=2), up))[:2] == ((3, 3), (1, 1))
    wide = nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1, device="meta")
    assert field_of(nn.Sequential(conv(stride=2), wide))[:2] == ((5, 5), (1, 1))


def test_a_mean_over_the_map_sees_all_of_it():
    field = field_of(lambda x: x * x.mean((2, 3), keepdim=True))
    assert (field.size, field.cells) == (SIZE, SIZE)


@pytest.mark.parametrize("name", ["mobilenet_v1_025", "darknet_19"])
def test_theory_agrees_with_gradients(name):
    """The pixels from which a gradient comes, with positive weights so that nothing cancels."""
    layers = copy.deepcopy(NETS.get(name)().layers[:7]).double().eval()
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        if isinstance(module, nn.MaxPool2d):  # only one of its inputs gets a gradient
            module.forward = lambda x, pool=module: F.avg_pool2d(x, pool.kernel_size, pool.stride)
    image = torch.ones(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    x = image
    for layer in layers:
        x = layer(x)
    middle = x.shape[2] // 2
    x[0, :, middle, middle].sum().backward()
    touched = image.grad[0].abs().sum(0) > 0
    seen = (touched.any(1).sum().item(), touched.any(0).sum().item())
    backbone = NETS.get(name)()
    assert seen == layer_fields(backbone, (160, 160))[6].size


def test_vgg_has_the_fields_of_the_literature():
    with torch.device("meta"):
        backbone = NETS.get("vgg16")()
    fields = layer_fields(backbone, (300, 300))
    sizes = {index: fields[index].size[0] for index in (9, 22, 23, 29, 31)}
    assert sizes == {9: 16, 22: 92, 23: 100, 29: 196, 31: 420}  # pool2, conv4_3, pool4, conv5_3, dilated fc6
    assert [fields[i].pitch[0] for i in (9, 22, 34)] == [4, 8, 16]
    assert fields[22].cells == (38, 38)


@pytest.mark.parametrize("name", NETS.names())
def test_bases_publish_the_stride_that_they_have(name):
    with torch.device("meta"):
        backbone = NETS.get(name)()
    fields = layer_fields(backbone, (64, 64))
    assert [(info.stride,) * 2 for info in backbone.feature_info] == [field.pitch for field in fields]


# --------------------------------------------------------------------------------------------------- detectors


def model_of(*overrides, size=64):
    cfg = load_config(None, [
        "MODEL.SSDS=ssd_lite", "MODEL.NETS=mobilenet_v1_025", f"MODEL.IMAGE_SIZE={size}", "MODEL.NUM_CLASSES=4",
        "MODEL.FEATURE_LAYER=[[11,13,S],[128,256,64]]", *overrides,
    ])  # fmt: skip
    return create_model(cfg)


def macs_by_hooks(model, size):
    """Multiply-adds of every convolution of a real run."""
    total = 0

    def after(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(after) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


def test_parts_have_the_names_of_the_family_and_sum_up():
    model = model_of()
    counts = count_parameters(model)
    assert list(counts) == ["base", "norm", "extras", "loc", "conf"]
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert counts["norm"] == 128
    assert counts["loc"] == sum(c * 9 * 24 + 24 for c in (128, 256, 64))  # six boxes of four numbers, with bias


def test_macs_of_the_head_by_hand():
    macs = count_macs(model_of(), (64, 64))
    cells = {128: 4 * 4, 256: 2 * 2, 64: 1}
    assert macs["loc"] == sum(n * c * 9 * 24 for c, n in cells.items())
    assert macs["conf"] == macs["loc"]  # four classes, as many as coordinates


def test_macs_agree_with_a_real_run():
    model = model_of()
    assert sum(count_macs(model, (64, 64)).values()) == macs_by_hooks(model, 64)


def test_weights_that_run_twice_count_twice():
    net = "MODEL.NETS=mobilenet_v1_S1L0"
    levels = "MODEL.FEATURE_LAYER=[[11,13,S],[512,1024,64]]"
    plain, dual = model_of(net, levels), model_of(net, levels, "MODEL.SSDS=ssd_lite_dual")
    assert count_parameters(plain) == count_parameters(dual)
    # The coarse path has a fourth of the cells, behind the first layer.
    stem = 64 * 64 * 27 * 32
    fine = count_macs(plain, (64, 64))["base"]
    assert count_macs(dual, (64, 64))["base"] == fine + (fine - stem) // 4


def test_levels_see_what_their_layers_see():
    model = model_of("MODEL.FEATURE_LAYER=[[11,'12.2',S],[128,null,64]]")
    layers = layer_fields(model.backbone, (64, 64))
    levels = source_fields(model, (64, 64))
    assert levels[0] == layers[11]
    assert levels[1].size == layers[12].size and levels[1].pitch == (32, 32)
    assert levels[2].size[0] == layers[13].size[0] + 2 * 32
    assert model.backbone.taps == (11, (12, 2))  # as it was


def test_layers_behind_the_last_tap_are_found_unused():
    model = model_of("MODEL.FEATURE_LAYER=[[5,11],[64,128]]")
    unused = unused_parameters(model, (64, 64))
    assert {name.split(".")[2] for name in unused} == {"12", "13"}
    assert not unused_parameters(model_of(), (64, 64))


def saved_in_a_real_step(model, batch_size, size):
    own = {StorageWeakRef(t.untyped_storage()) for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        kept[StorageWeakRef(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(torch.zeros(batch_size, 3, size, size))
    assert outputs.loc.requires_grad
    return sum(storage.nbytes() for key, storage in kept.items() if key not in own)


def test_activations_are_those_that_a_real_step_saves():
    model = model_of().train()
    assert saved_bytes(model, (64, 64), 4) == saved_in_a_real_step(model, 4, 64)


def test_a_frozen_base_saves_less():
    model = model_of().train()
    whole = saved_bytes(model, (64, 64), 4)
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    model.backbone.eval()
    assert saved_bytes(model, (64, 64), 4) < whole / 2


def test_peak_of_inference_by_hand():
    """The image; the 8 channels that enter the second layer; its 16 channels before and after their norm."""
    numbers = 3 * 64 * 64 + (8 + 16 + 16) * 32 * 32
    assert peak_bytes(model_of(), (64, 64)) == pytest.approx(4 * numbers, rel=0.01)


def test_one_image_fails_where_a_batch_norm_gets_one_value():
    assert not trains_on_one_image(model_of(), (64, 64))
    assert trains_on_one_image(model_of(), (128, 128))


def test_counting_leaves_the_model_as_it_was():
    model = model_of().train()
    model.neck.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    count_macs(model, (64, 64))
    saved_bytes(model, (64, 64), 4)
    unused_parameters(model, (64, 64))
    trains_on_one_image(model, (64, 64))
    source_fields(model, (64, 64))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

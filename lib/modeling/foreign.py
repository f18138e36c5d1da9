"""Weights of detectors trained elsewhere: which system a file comes from, and its tensors in the names of our models.

Everything here is a table, or a pure function of state dicts.  The tables speak the words of the reference family
(base, norm, extras, loc, conf); FAMILY_PREFIXES turns these into ours.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..config.schema import IMAGENET_COLORS
from .pretrained import identity_expansion

FAMILY_PREFIXES = {
    "base": "backbone.layers",
    "norm": "neck.norm",
    "extras": "neck.extras",
    "loc": "head.loc",
    "conf": "head.conf",
    "transforms": "neck.transforms",
    "pyramids": "neck.pyramids",
}
"""Parts of a model in the words of the reference family, and where they live here."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class System:
    """A published detector: how to know its files, how its names read in the family's words, what it expects to see.

    marks: beginnings of names that all occur in its files.  names: beginnings of its names -> the family's, the longest
    that fits counting; names without one have no counterpart.  inputs: configuration keys -> the values its weights
    were trained with, in levels of 0 to 255.  finish: what remains to be done to the translated tensors.  wiring:
    configuration keys of which its network has other values than the defaults, without its tensors showing it.
    """

    title: str
    marks: tuple[str, ...]
    names: Mapping[str, str]
    inputs: Mapping[str, object] = field(default_factory=dict)
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    wiring: Mapping[str, object] = field(default_factory=dict)


def recognise(names: Iterable[str]) -> System | None:
    """The system whose names these are; None for those of our models and for unknown ones."""
    names = [_without_wrapper(name) for name in names]
    fits = (s for s in SYSTEMS if all(any(_begins(name, mark) for name in names) for mark in s.marks))
    in_family = any(name.partition(".")[0] in FAMILY_PREFIXES for name in names)
    return next(fits, FAMILY if in_family else None)


def translate(state: State) -> dict[str, Tensor]:
    """The tensors of a state dict by the names they have in our models; what has no counterpart keeps its name."""
    system, plain = recognise(state), {_without_wrapper(name): tensor for name, tensor in state.items()}
    if system is None:
        return plain
    renamed = {_renamed(name, system.names): tensor for name, tensor in plain.items()}
    return {_renamed(name, FAMILY_PREFIXES): tensor for name, tensor in system.finish(renamed).items()}


def _without_wrapper(name: str) -> str:
    """The name without what torch's wrapper for several devices puts before it."""
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _begins(name: str, mark: str) -> bool:
    return name == mark or name.startswith(mark + ".")


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """The name with its longest beginning that is in the table replaced."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        head = ".".join(parts[:count])
        if head in table:
            return ".".join([table[head], *parts[count:]])
    return name


def _colors(order: str, means, stds=(1.0, 1.0, 1.0)) -> dict:
    return dict(zip(IMAGENET_COLORS, (order, list(means), list(stds)), strict=True))


def _pairs(pattern: str, first: int) -> dict[str, str]:
    """Names of four extra levels counted from `first`, each a chain of convolution, ReLU, convolution -> extras.0-7."""
    return {pattern.format(first + k, 2 * j): f"extras.{2 * k + j}" for k in range(4) for j in range(2)}


def _blocks(base: str, num_layers: int) -> dict[str, str]:
    """Names of a MobileNet whose layers are bare chains -> those of layers that hold their chain under `conv`."""
    return {f"{base}.{i}.{j}": f"base.{i}.conv.{j}" for i in range(num_layers) for j in range(6)}


def _flat_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.flatten() if name == "norm.weight" else tensor for name, tensor in state.items()}


def _with_expansion(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the expansion in the first block that our MobileNet V2 has: one that changes nothing."""
    stem = [state.get(f"base.0.conv.1.{leaf}") for leaf in ("weight", "bias")]
    if any(tensor is None for tensor in stem):
        return state
    return state | {f"base.1.conv.{name}": tensor for name, tensor in identity_expansion(*stem).items()}


VGG_COLORS = _colors("RGB", [123.0, 117.0, 104.0])
QFGAOHAO_HEADS = {"regression_headers": "loc", "classification_headers": "conf"}

FAMILY = System("the reference family", (), {})
"""Files in the family's own words.  Their colours are the defaults of the schema, unless somebody changed them."""

SYSTEMS = (
    System(
        "amdegroot/ssd.pytorch",
        ("vgg", "L2Norm", "loc", "conf"),
        {"vgg": "base", "L2Norm": "norm"},
        VGG_COLORS,
    ),
    System(
        "lufficc/SSD",
        ("backbone.vgg", "box_head.predictor.cls_headers"),
        {
            "backbone.vgg": "base",
            "backbone.l2_norm": "norm",
            "backbone.extras": "extras",
            "box_head.predictor.reg_headers": "loc",
            "box_head.predictor.cls_headers": "conf",
        },
        VGG_COLORS,
    ),
    System(
        "torchvision ssd300_vgg16",
        ("backbone.features", "backbone.scale_weight", "head.classification_head.module_list"),
        {
            "backbone.features": "base",
            "backbone.scale_weight": "norm.weight",
            **{f"backbone.extra.0.{i}": f"base.{23 + i}" for i in (1, 3, 5)},
            "backbone.extra.0.7.1": "base.31",
            "backbone.extra.0.7.3": "base.33",
            **_pairs("backbone.extra.{}.{}", 1),
            "head.regression_head.module_list": "loc",
            "head.classification_head.module_list": "conf",
        },
        _colors("RGB", [round(255 * mean, 5) for mean in (0.48235, 0.45882, 0.40784)]),
    ),
    System(
        "ynrjh92/ssd-pytorch",
        ("vgg", "l2norm", "loc_pred_convs", "cls_pred_convs"),
        {
            "vgg": "base",
            "l2norm": "norm",
            **_pairs("extra{}.conv.{}", 1),
            **{f"loc_pred_convs.{level}.conv": f"loc.{level}" for level in range(6)},
            **{f"cls_pred_convs.{level}.conv": f"conf.{level}" for level in range(6)},
        },
        IMAGENET_COLORS,
        _flat_norm,
        {"MODEL.NORM_IN_TRUNK": True},
    ),
    System(
        "ruinmessi/RFBNet (VGG)",
        ("base.0.weight", "Norm"),
        {"Norm": "norm.0", "extras.0": "norm.1", **{f"extras.{k}": f"extras.{k - 1}" for k in range(1, 10)}},
        _colors("BGR", [104.0, 117.0, 123.0]),
    ),
    System(
        "ruinmessi/RFBNet (MobileNet)",
        ("base.0.0", "Norm"),
        {**_blocks("base", 14), "Norm": "norm"},
        _colors("BGR", [103.94, 116.78, 123.68]),
    ),
    System(
        "qfgaohao/pytorch-ssd vgg16-ssd",
        ("base_net.0.weight", "source_layer_add_ons.0", "classification_headers"),
        {
            "base_net": "base",
            "source_layer_add_ons.0": "norm",
            **_pairs("extras.{}.{}", 0),
            **QFGAOHAO_HEADS,
        },
        VGG_COLORS,
        wiring={"MODEL.SOURCE_NORM": "batch"},
    ),
    System(
        "qfgaohao/pytorch-ssd mb1-ssd",
        ("base_net.0.0", "base_net.1.0", "classification_headers"),
        {**_blocks("base_net", 14), **_pairs("extras.{}.{}", 0), **QFGAOHAO_HEADS},
        _colors("RGB", [127.0] * 3, [128.0] * 3),
        wiring={"MODEL.SOURCE_NORM": "none"},
    ),
    System(
        "qfgaohao/pytorch-ssd mb2-ssd-lite",
        ("base_net.0.0", "base_net.1.conv", "classification_headers"),
        {
            "base_net": "base",
            **{f"base_net.{i}.{j}": f"base.{i}.conv.{j}" for i in (0, 18) for j in (0, 1)},
            # Its first block has no expansion.
            **{f"base_net.1.conv.{j}": f"base.1.conv.{j + 3}" for j in (0, 1, 3, 4)},
            **{f"extras.{k}.conv": f"extras.{k}" for k in range(4)},
            **QFGAOHAO_HEADS,
        },
        _colors("RGB", [127.0] * 3, [128.0] * 3),
        _with_expansion,
        {"MODEL.SOURCE_NORM": "none", "MODEL.EXTRAS_ACTIVATION": "none"},
    ),
)
"""The detectors whose files are known."""

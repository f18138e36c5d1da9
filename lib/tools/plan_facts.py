"""What the plan tool says of a configuration, as plain records: layers, levels, costs, and all the rest by parts."""

from dataclasses import dataclass, field

import torch

from ..layers.prior_box import build_cells, level_ratios
from ..modeling.complexity import count_macs, count_parameters, layer_fields, part_of, source_fields
from ..modeling.foreign import FAMILY_PREFIXES
from ..modeling.model_builder import create_backbone
from ..modeling.nets.backbone import Backbone, layer_of
from ..modeling.ssds.detector import SSD
from ..modeling.ssds.dual_path import usual_dual
from ..modeling.ssds.feature_layer import usual_levels
from ..modeling.ssds.fpn import usual_pyramid
from ..modeling.ssds.fssd import usual_fssd
from ..modeling.ssds.interleaved import EXTRAS
from ..modeling.ssds.lstm import LSTMNeck
from ..modeling.ssds.rfb import usual_rfb, usual_rfb_lite
from ..modeling.ssds.yolo import usual_yolo_v2, usual_yolo_v3
from ..solver.optim import LearningRate
from .plan_memory import Memory, inference_memory, training_memory
from .plan_rate import RateFacts, collect_rate
from .plan_video import (
    SMALL,
    CellFacts,
    InterleavingFacts,
    cell_in_words,
    collect_cells,
    collect_interleaving,
    large_extractor,
    remembers,
)
from .plan_words import NORM, layer_in_words, levels_of, token_in_words, variant_in_words

SOURCE_NORMS = {"l2": "an L2 norm", "batch": "a batch norm", "none": ""}
LEVEL_NAMES = {"tokens": "an extra level", "pyramid": "a level of the pyramid", "chains": "a chain"}
TAP_NAMES = {"pyramid": "fused", "chains": "joined"}


def usual_interleaved(backbone: Backbone, image_size) -> list[list]:
    """The last layer of the base and the usual extra levels."""
    last = len(backbone.feature_info) - 1
    return [[last, *EXTRAS[0]], [backbone.feature_info[last].channels, *EXTRAS[1]]]


FLAT = ("ssd", "ssd_lite", "ssd_lite_RNN", "lstm_ssd_lite", "lstm_ssd", "dssd", "tdm")
USUAL = {
    **dict.fromkeys(FLAT, usual_levels),
    "lstm_ssd_interleaved": usual_interleaved,
    **dict.fromkeys(("ssd_dual", "ssd_lite_dual"), usual_dual),
    **dict.fromkeys(("fssd", "fssd_lite"), usual_fssd),
    **dict.fromkeys(("fpn", "bifpn"), usual_pyramid),
    **{"rfb": usual_rfb, "rfb_lite": usual_rfb_lite, "yolo_v2": usual_yolo_v2, "yolo_v3": usual_yolo_v3},
}
"""What a variant takes for a FEATURE_LAYER that is null, where that can be written down."""


@dataclass
class LayerFacts:
    """A layer of the base.  Sizes are (rows, columns); stride and receptive field are in pixels of the image."""

    index: int
    what: str
    stride: int
    channels: int
    map: tuple[int, int]
    receptive_field: tuple[float, float]


@dataclass
class LevelFacts:
    """A level of the detector.  pitch is STEPS as used, (height, width) like the others; priors are (width, height) as
    used, all in pixels."""

    token: object
    source: str
    channels: int
    map: tuple[int, int]
    stride: tuple[float, float]
    receptive_field: tuple[float, float]
    pitch: tuple[float, float]
    boxes_per_cell: int
    num_priors: int
    priors: list[tuple[float, float]]


@dataclass
class Plan:
    """Everything that the tool says of a configuration.

    num_layers: those of `layers` that are built.  training is a step on stills, clips one on clips, each None where no
    epoch has such steps.  Of two extractors, `layers` are those of the large one, and `macs` those of its frames.
    remembers: whether anything in it can; in_use and frames_in_video are keys of MODEL.RNN.
    """

    config: str
    ssds: str
    nets: str
    image_size: tuple[int, int]
    num_classes: int
    num_classes_assumed: bool
    feature_layer: list | None
    feature_layer_given: bool
    taps: list
    split_at: int | None
    layers: list[LayerFacts]
    num_layers: int
    levels: list[LevelFacts]
    num_priors: int
    parameters: dict[str, int]
    macs: dict[str, int]
    cells: list[CellFacts]
    remembers: bool
    in_use: bool
    frames_in_video: int
    interleaving: InterleavingFacts | None
    training: Memory | None
    clips: Memory | None
    inference: Memory
    rate: RateFacts
    findings: list[str] = field(default_factory=list)


def collect_facts(
    cfg, model: SSD, config: str, classes_assumed: bool, images: int | None, videos: int | None
) -> tuple[Plan, LearningRate]:
    """The plan of a configuration and what it builds, without findings; and the rule of its learning rate."""
    size, feature_layer = tuple(cfg.MODEL.IMAGE_SIZE), _feature_layer(cfg, model)
    levels, (rate, rule) = _levels(cfg, model, feature_layer), collect_rate(cfg, images, videos)
    cells, interleaving = collect_cells(model, [level.map for level in levels]), collect_interleaving(cfg, model)
    for cell in cells:
        levels[cell.level].source += cell_in_words(cell)
    if interleaving is not None:
        interleaving.small_layers = _layers(model.backbone.small, interleaving.light.image_size)
        for frame in (interleaving.heavy, interleaving.light):
            frame.macs = _by_scope_word(model, frame.macs)
    plan = Plan(
        config=config,
        ssds=cfg.MODEL.SSDS,
        nets=cfg.MODEL.NETS,
        image_size=size,
        num_classes=cfg.MODEL.NUM_CLASSES,
        num_classes_assumed=classes_assumed,
        feature_layer=feature_layer,
        feature_layer_given=cfg.MODEL.FEATURE_LAYER is not None,
        taps=list(model.neck.taps),
        split_at=model.neck.split_at,
        layers=_layers(_whole_base(cfg, model), size),
        num_layers=len(model.backbone.feature_info),
        levels=levels,
        num_priors=len(model.priors),
        parameters=_by_scope_word(model, _count_parameters(model)),
        macs=interleaving.heavy.macs if interleaving else _by_scope_word(model, count_macs(model, size)),
        cells=cells,
        remembers=remembers(model),
        in_use=cfg.MODEL.RNN.IN_USE,
        frames_in_video=cfg.MODEL.RNN.FRAMES_IN_VIDEO,
        interleaving=interleaving,
        training=training_memory(cfg, model, rate.stages, clips=False),
        clips=training_memory(cfg, model, rate.stages, clips=True),
        inference=inference_memory(cfg, model, cells),
        rate=rate,
    )
    return plan, rule


def _whole_base(cfg, model: SSD) -> Backbone:
    """The base as FEATURE_LAYER may name its layers, of which a variant may build fewer."""
    if not isinstance(model.neck, LSTMNeck):
        return large_extractor(model.backbone)
    with torch.device("meta"):
        return create_backbone(cfg)


def _count_parameters(model: SSD) -> dict[str, int]:
    """count_parameters, with the small one of two extractors as a part of its own."""
    counts = count_parameters(model)
    small = getattr(model.backbone, "small", None)
    if not isinstance(small, Backbone):
        return counts
    light = sum(parameter.numel() for parameter in small.parameters())
    return {"base": counts.pop("base") - light, SMALL: light, **counts}


def _by_scope_word(model: SSD, counts: dict[str, int]) -> dict[str, int]:
    """Counts of the parts of a detector by what TRAINABLE_SCOPE calls them."""
    paths = {part_of(name): ".".join(name.split(".")[:2]) for name, _ in model.named_parameters()}
    return {part if part in FAMILY_PREFIXES else paths.get(part, part): count for part, count in counts.items()}


def _feature_layer(cfg, model: SSD) -> list | None:
    """FEATURE_LAYER as given, or what the variant takes instead; None where that cannot be written down."""
    if cfg.MODEL.FEATURE_LAYER is not None:
        return cfg.MODEL.FEATURE_LAYER
    if cfg.MODEL.SSDS not in USUAL:
        return None
    count, usual = len(model.neck.channels), USUAL[cfg.MODEL.SSDS](model.backbone, cfg.MODEL.IMAGE_SIZE)
    if variant_in_words(cfg.MODEL.SSDS).levels == "pyramid":
        return [usual[0], [part[:count] for part in usual[1]]]
    return [part[:count] for part in usual]


def _layers(backbone: Backbone, size) -> list[LayerFacts]:
    names = getattr(backbone, "modules_of_maps", None)  # the networks of timm have maps instead of layers
    words = [f"timm's {n}" for n in names] if names else [layer_in_words(layer) for layer in backbone.layers]
    rows = zip(words, backbone.feature_info, layer_fields(backbone, size), strict=True)
    return [
        LayerFacts(index, what, info.stride, info.channels, seen.cells, seen.size)
        for index, (what, info, seen) in enumerate(rows)
    ]


def _levels(cfg, model: SSD, feature_layer) -> list[LevelFacts]:
    height, width = cfg.MODEL.IMAGE_SIZE
    sources = source_fields(model, (height, width))
    priors = cell_priors(cfg, [seen.cells for seen in sources])
    levels = []
    for index, (seen, boxes) in enumerate(zip(sources, priors, strict=True)):
        token, source = _source(cfg, model, feature_layer, index)
        rows, columns = seen.cells
        pitch = tuple(cfg.MODEL.STEPS[index]) if cfg.MODEL.STEPS else (height / rows, width / columns)
        used = [(min(w, width), min(h, height)) if cfg.MODEL.CLIP else (w, h) for w, h in boxes]
        channels, count = model.neck.channels[index], len(boxes)
        levels.append(
            LevelFacts(
                token, source, channels, seen.cells, seen.pitch, seen.size, pitch, count, rows * columns * count, used
            )
        )
    return levels


def cell_priors(cfg, map_sizes) -> list[list[tuple[float, float]]]:
    """(width, height) in pixels of the priors of a cell of each level, before CLIP."""
    height, width = cfg.MODEL.IMAGE_SIZE
    cells = build_cells(
        (height, width), map_sizes, level_ratios(cfg.MODEL.ASPECT_RATIOS, len(map_sizes)), cfg.MODEL.SIZES
    )
    return [[(round(w * width, 3), round(h * height, 3)) for w, h in boxes] for boxes in cells]


def _source(cfg, model: SSD, feature_layer, index: int) -> tuple[object, str]:
    """(entry of FEATURE_LAYER, what it means) for a level."""
    variant, taps = variant_in_words(cfg.MODEL.SSDS), model.neck.taps
    through = variant.later_through if index else variant.first_through
    through = SOURCE_NORMS[cfg.MODEL.SOURCE_NORM] if through == NORM else through
    entries = [] if feature_layer is None else levels_of(feature_layer, variant)
    if index < len(entries):  # a variant that nobody has described may read the key in its own way
        token = entries[index]
        return token, token_in_words(token, variant, model.backbone, through)
    if variant.levels == "tokens" and index < len(taps):
        return None, token_in_words(taps[index], variant, model.backbone, through)
    return None, f"{LEVEL_NAMES[variant.levels]} of the variant's choice"


def taps_of_layers(plan: Plan) -> dict[int, str]:
    """What reads each layer of the base that is tapped, in words, by its index."""
    found = {}
    for position, tap in enumerate(plan.taps):
        place = "" if isinstance(tap, int) else f" (at {tap[0]}.{tap[1]})"
        found[layer_of(tap)] = TAP_NAMES.get(variant_in_words(plan.ssds).levels, f"level {position}") + place
    return found

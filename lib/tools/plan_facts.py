"""What the plan tool says of a configuration, as plain records: layers, levels, costs, memory, learning rate."""

import math
from dataclasses import dataclass, field

from ..layers.prior_box import build_cells, level_ratios
from ..modeling.complexity import (
    count_macs,
    count_parameters,
    layer_fields,
    peak_bytes,
    saved_bytes,
    source_fields,
)
from ..modeling.nets.backbone import Backbone, layer_of
from ..modeling.ssds.detector import SSD
from ..modeling.ssds.dual_path import usual_dual
from ..modeling.ssds.feature_layer import usual_levels
from ..modeling.ssds.fpn import usual_pyramid
from ..modeling.ssds.fssd import usual_fssd
from ..modeling.ssds.rfb import usual_rfb, usual_rfb_lite
from ..modeling.ssds.yolo import usual_yolo_v2, usual_yolo_v3
from ..solver.optim import LearningRate, hold_frozen_norms
from .plan_words import NORM, layer_in_words, levels_of, token_in_words, variant_in_words

ASSUMED_IMAGES = 10_000
FLOAT = 4  # bytes
OPTIMIZER_COPIES = {"adam": 2, "adamw": 2, "rmsprop": 1, "sgd": 0}  # besides the momentum of the last two
SOURCE_NORMS = {"l2": "an L2 norm", "batch": "a batch norm", "none": ""}
LEVEL_NAMES = {"tokens": "an extra level", "pyramid": "a level of the pyramid", "chains": "a chain"}
TAP_NAMES = {"pyramid": "fused", "chains": "joined"}
LOSS_COPIES = 3  # of the logits: themselves, their logarithmic softmax, its gradient

USUAL = {
    **dict.fromkeys(("ssd", "ssd_lite", "ssd_lite_RNN", "dssd", "tdm"), usual_levels),
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
class Memory:
    """Estimated bytes of one kind of work, by what they are for; `images` are in a batch of `image_size`."""

    images: int
    image_size: tuple[int, int]
    fp32: dict[str, int]
    mixed: dict[str, int]


@dataclass
class RateFacts:
    """The course of the learning rate: (step, epochs passed, rate, what happens there)."""

    images: int
    images_assumed: bool
    steps_per_epoch: int
    epochs: int
    points: list[tuple[int, float, float, str]]


@dataclass
class Plan:
    """Everything that the tool says of a configuration."""

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
    levels: list[LevelFacts]
    num_priors: int
    parameters: dict[str, int]
    macs: dict[str, int]
    training: Memory
    inference: Memory
    rate: RateFacts
    findings: list[str] = field(default_factory=list)


def collect_facts(cfg, model: SSD, config: str, classes_assumed: bool, images: int | None) -> tuple[Plan, LearningRate]:
    """The plan of a configuration and what it builds, without findings; and the rule of its learning rate."""
    size = tuple(cfg.MODEL.IMAGE_SIZE)
    images_assumed, images = images is None, images or ASSUMED_IMAGES
    rule = LearningRate(cfg, steps_per_epoch(cfg, images))
    feature_layer = _feature_layer(cfg, model)
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
        layers=_layers(model.backbone, size),
        levels=_levels(cfg, model, feature_layer),
        num_priors=len(model.priors),
        parameters=count_parameters(model),
        macs=count_macs(model, size),
        training=_training_memory(cfg, model),
        inference=_inference_memory(cfg, model),
        rate=RateFacts(images, images_assumed, rule.lengths.first, cfg.TRAIN.MAX_EPOCHS, rate_points(cfg, rule)),
    )
    return plan, rule


def steps_per_epoch(cfg, images: int) -> int:
    """Optimizer steps of an epoch of so many images."""
    return math.ceil(math.ceil(images / cfg.TRAIN.BATCH_SIZE) / cfg.TRAIN.ACCUMULATE)


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


def _training_memory(cfg, model: SSD) -> Memory:
    """Of a step with the largest images of the training."""
    size = tuple(max([cfg.MODEL.IMAGE_SIZE, *cfg.TRAIN.IMAGE_SIZES], key=math.prod))
    images, settings = cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.OPTIMIZER
    weights = sum(parameter.numel() for parameter in model.parameters()) * FLOAT
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) * FLOAT
    copies = OPTIMIZER_COPIES[settings.OPTIMIZER]
    copies += settings.OPTIMIZER in ("sgd", "rmsprop") and settings.MOMENTUM > 0
    model.train()
    hold_frozen_norms(model)
    kept = saved_bytes(model, size, images)
    model.eval()
    num_priors = len(model.priors) * math.prod(size) / math.prod(cfg.MODEL.IMAGE_SIZE)
    fp32 = {
        "weights": weights,
        "gradients": learnt,
        "optimizer state": learnt * copies,
        "averaged weights": weights if cfg.TRAIN.EMA_DECAY else 0,
        "activations": kept,
        "loss": int(LOSS_COPIES * images * num_priors * cfg.MODEL.NUM_CLASSES * FLOAT),
    }
    mixed = {**fp32, "weights": weights * 3 // 2, "activations": kept // 2}
    return Memory(images, size, fp32, mixed)


def _inference_memory(cfg, model: SSD) -> Memory:
    size, images = tuple(cfg.MODEL.IMAGE_SIZE), cfg.TEST.BATCH_SIZE
    weights = sum(parameter.numel() for parameter in model.parameters()) * FLOAT
    fp32 = {"weights": weights, "feature maps": peak_bytes(model, size) * images}
    mixed = {"weights": weights * 3 // 2, "feature maps": fp32["feature maps"] // 2}
    return Memory(images, size, fp32, mixed)


def rate_points(cfg, rule: LearningRate) -> list[tuple[int, float, float, str]]:
    """(step, epochs passed, rate, what happens there) where the learning rate is worth a look, in order."""
    schedule, per_epoch = cfg.TRAIN.LR_SCHEDULER, rule.lengths.first
    last = cfg.TRAIN.MAX_EPOCHS * per_epoch - 1
    start = rule.hold * per_epoch
    points = {quarter * (last - start) // 4 + start: "" for quarter in range(1, 4)} if start < last else {}
    if schedule.SCHEDULER in ("step", "multi_step"):
        points = {}
    if schedule.SCHEDULER == "multi_step":
        points = {start + (n - 1) * per_epoch: f"STEPS {n}" for n in schedule.STEPS}
    if schedule.SCHEDULER == "step":
        every = schedule.STEPS[0]
        count = (cfg.TRAIN.MAX_EPOCHS - rule.hold) // every
        chosen = range(1, count + 1) if count <= 6 else [1, 2, 3, count // 2, count]
        points = {start + (n * every - 1) * per_epoch: f"step {n} of {count}" for n in chosen}
    if schedule.SCHEDULER == "SGDR" and schedule.RESTART_EPOCHS:
        points = {start + at: "restart" for at in _restarts(schedule, last - start, per_epoch)}
    points[start] = f"after WARM_UP_EPOCHS, {schedule.SCHEDULER} begins" if rule.hold else points.get(start, "")
    points[rule.ramp] = points.get(rule.ramp, "") or "after the ramp of WARM_UP_ITERATIONS"
    points[0] = "first step" if rule.ramp else points.get(0) or "first step"
    points[last] = "last step"
    return [(at, at / per_epoch, rule.at(at), points[at]) for at in sorted(points) if 0 <= at <= last]


def _restarts(schedule, steps: int, per_epoch: int) -> list[int]:
    """Steps, from the beginning of the schedule, at which its first cosine cycles end; at most six."""
    found, at, length = [], 0.0, schedule.RESTART_EPOCHS * per_epoch
    while at + length <= steps and len(found) < 6:
        at += length
        found.append(math.ceil(at))
        length *= schedule.RESTART_FACTOR
    return found

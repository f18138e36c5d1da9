"""What does not go together in a configuration, each in one line that ends with what to do."""

import math

from ..config.schema import MODEL
from ..layers.prior_box import level_ratios, level_scales
from ..modeling.complexity import trains_on_one_image
from ..modeling.ssds.detector import SSD
from .plan_facts import LevelFacts, Plan, cell_priors
from .plan_video_findings import find_video_problems, unused_names
from .plan_words import VARIANTS

PITCH_TOLERANCE = 0.12  # by which STEPS may differ from the pitch of the cells
LEAST_COVERED = 0.85  # of the image, by the cells that STEPS lays out
FARTHEST_CENTRE = 1.05  # in parts of the image

SSD_LIKE = ("ssd", "ssd_lite", "ssd_lite_RNN", "lstm_ssd_lite", "ssd_dual", "ssd_lite_dual", "dssd", "tdm")
NECKS_OF = {
    "NECK_WIDTH": ("fpn", "bifpn", "dssd", "tdm"),
    "NECK_REPEATS": ("bifpn",),
    "RFB_BLOCK": ("rfb", "rfb_lite"),
    "ALIGN_CORNERS": ("fssd", "fssd_lite", "yolo_v3"),
    "SOURCE_NORM": SSD_LIKE,
    "NORM_IN_TRUNK": SSD_LIKE,
    "EXTRAS_ACTIVATION": SSD_LIKE,
}
"""Keys of MODEL that only some variants read; of variants that VARIANTS does not describe nothing is known."""

BASES_OF = {"BASE_STRUCTURE": "mobilenet_v2_cut", "DEPTH_MULTIPLIER": "mobilenet_v2_cut"}
"""Keys of MODEL that only one base reads."""


def find_problems(cfg, plan: Plan, model: SSD) -> list[str]:
    """The findings on a configuration that can be built; none on one that fits together."""
    return [
        *_too_long(cfg, len(plan.levels)),
        *_steps(cfg, plan.levels),
        *_sizes(cfg, plan.levels),
        *_visible(plan.levels, plan.image_size),
        *_ratios(cfg, plan.levels),
        *_single_cells(cfg, plan, model),
        *_unread_keys(cfg, plan),
        *find_video_problems(cfg, plan),
        *_other_sizes(cfg, plan),
        *_schedule(cfg),
        *_cut_cycle(cfg, plan),
        *_unused_parts(model, plan),
    ]


def _steps(cfg, levels: list[LevelFacts]) -> list[str]:
    given, size = cfg.MODEL.STEPS, cfg.MODEL.IMAGE_SIZE
    if not given:
        return []
    wrong = [k for k, level in enumerate(levels) if not all(_axis_fits(level, size, axis) for axis in (0, 1))]
    if not wrong:
        return []
    steps = [_pair(levels[k].pitch) for k in wrong]
    right = [[_own_pitch(level, size, axis) for axis in (0, 1)] for level in levels]
    return [
        f"MODEL.STEPS: {_levels(wrong)}: priors stand {', '.join(steps)} px apart, but the maps have "
        f"{', '.join(_map(levels[k]) for k in wrong)} cells on an image of {size[0]} x {size[1]} px; give {right}, or "
        "leave STEPS empty"
    ]


def _axis_fits(level: LevelFacts, size, axis: int) -> bool:
    """Whether the priors stand about where the cells look: the pitch is the map's stride or an even division of the
    image, and the cells cover the image and no more."""
    cells, pitch, extent = level.map[axis], level.pitch[axis], size[axis]
    pitches = (level.stride[axis], extent / cells)
    near = min(pitches) * (1 - PITCH_TOLERANCE) <= pitch <= max(pitches) * (1 + PITCH_TOLERANCE)
    return near and pitch * cells >= LEAST_COVERED * extent and pitch * (cells - 0.5) <= FARTHEST_CENTRE * extent


def _own_pitch(level: LevelFacts, size, axis: int) -> float:
    """The stride where the cells cover the image with it, else an even division of the image, in whole pixels."""
    stride, even = level.stride[axis], size[axis] / level.map[axis]
    fits = stride * level.map[axis] >= LEAST_COVERED * size[axis]
    fits = fits and stride * (level.map[axis] - 0.5) <= FARTHEST_CENTRE * size[axis]
    return round(stride if fits else even)


def _sizes(cfg, levels: list[LevelFacts]) -> list[str]:
    sizes, size, count = cfg.MODEL.SIZES, cfg.MODEL.IMAGE_SIZE, len(levels)
    maps = [level.map for level in levels]
    found, areas = [], [_mean_side(boxes) for boxes in cell_priors(cfg, maps)]
    for k in range(1, count):
        fine, coarse = (k - 1, k) if math.prod(levels[k - 1].map) >= math.prod(levels[k].map) else (k, k - 1)
        if areas[coarse] < areas[fine] * 0.99:
            found.append(
                f"MODEL.SIZES: level {coarse}, the coarser one, has smaller priors (about {_px(areas[coarse])} px) "
                f"than level {fine} (about {_px(areas[fine])} px); give sizes that grow with the cells"
            )
    scales = [scale for scale, _ in level_scales(sizes, maps, size)]
    large = [k for k, scale in enumerate(scales) if scale > 1]
    if large:
        found.append(
            f"MODEL.SIZES: {_levels(large)}: larger than the image of {size[0]} x {size[1]} px; objects are not, so "
            "give smaller ones or leave these levels out"
        )
    return found


def _visible(levels: list[LevelFacts], size) -> list[str]:
    found = []
    for k, level in enumerate(levels):
        sides = [math.sqrt(w * h) for w, h in level.priors]
        smallest, pitch = min(sides), max(extent / cells for extent, cells in zip(size, level.map, strict=True))
        if smallest < pitch * 0.99 and math.prod(level.map) > 1:
            found.append(
                f"MODEL.SIZES: level {k}: its smallest priors, about {_px(smallest)} px, leave gaps between cells "
                f"{_px(pitch)} px apart, where objects of that size match none; give such sizes to a finer layer, or "
                f"take {_px(pitch)} px and more"
            )
        largest, seen = max(sides), min(level.receptive_field)
        if largest > seen:
            found.append(
                f"MODEL.SIZES: level {k}: its largest priors, about {_px(largest)} px, are beyond what its cells see "
                f"of the image ({_px(seen)} px); take a deeper layer in FEATURE_LAYER, or smaller sizes"
            )
    return found


def _ratios(cfg, levels: list[LevelFacts]) -> list[str]:
    height, width = cfg.MODEL.IMAGE_SIZE
    ratios = level_ratios(cfg.MODEL.ASPECT_RATIOS, len(levels))
    plain = {k: list(entry) for k, entry in enumerate(ratios) if not isinstance(entry[0], (list, tuple))}
    found = []
    without = [k for k, entry in plain.items() if 1 not in entry]
    if without:
        found.append(
            f"MODEL.ASPECT_RATIOS: {_levels(without)}: without 1 there are no square priors; write [1, "
            f"{', '.join(f'{ratio:g}' for ratio in plain[without[0]])}], unless no object is about square"
        )
    for k, entry in plain.items():
        shapes = [max(ratio, 1 / ratio) for ratio in entry]
        twice = next((ratio for i, ratio in enumerate(entry) if any(math.isclose(shapes[i], s) for s in shapes[:i])), 0)
        if twice:
            found.append(
                f"MODEL.ASPECT_RATIOS: level {k}: {twice:g} makes priors that are there already, because r also gives "
                "1/r; leave it out"
            )
    shape = max(width / height, height / width)
    stretched = [k for k, entry in plain.items() if not any(abs(max(r, 1 / r) / shape - 1) < 0.15 for r in entry)]
    if shape > 1.15 and stretched:
        w, h = levels[stretched[0]].priors[0]
        found.append(
            f"MODEL.ASPECT_RATIOS: {_levels(stretched)}: ratios are in parts of the image, which is not square, so 1 "
            f"gives {_px(w)} x {_px(h)} px; add {shape:.2g} for priors that are square in pixels"
        )
    return found


def _single_cells(cfg, plan: Plan, model: SSD) -> list[str]:
    single = [k for k, level in enumerate(plan.levels) if math.prod(level.map) == 1]
    found = []
    if len(single) > 1:
        found.append(
            f"MODEL.FEATURE_LAYER: {_levels(single)} have maps of one cell each, which see the same; leave out all but "
            f"one, or give larger images than {cfg.MODEL.IMAGE_SIZE}"
        )
    alone = [stage for stage in plan.rate.stages if stage.frames * stage.rows == 1]
    if alone and not trains_on_one_image(model, cfg.MODEL.IMAGE_SIZE):
        key = "MODEL.RNN.BATCH_SIZE" if all(stage.clips for stage in alone) else "TRAIN.BATCH_SIZE"
        found.append(
            f"{key}: training will fail on 1 image, since a batch norm on a map of one cell would get a single value; "
            "give 2 at least"
        )
    return found


def _unread_keys(cfg, plan: Plan) -> list[str]:
    found = []
    for key, variants in NECKS_OF.items():
        if cfg.MODEL[key] != MODEL[key].default and plan.ssds in VARIANTS and plan.ssds not in variants:
            found.append(f"MODEL.{key}: not read by {plan.ssds}, only by {', '.join(variants)}; leave it out")
    for key, base in BASES_OF.items():
        if cfg.MODEL[key] != MODEL[key].default and plan.nets != base:
            found.append(f"MODEL.{key}: not read by {plan.nets}, only by {base}; leave it out")
    if cfg.MODEL.STEM_ACTIVATION == "relu6" and not plan.nets.startswith("mobilenet_v2"):
        found.append(f"MODEL.STEM_ACTIVATION: not read by {plan.nets}, only by mobilenet_v2; leave it out")
    if cfg.MODEL.NORM_IN_TRUNK and cfg.MODEL.SOURCE_NORM == "none" and plan.ssds in NECKS_OF["SOURCE_NORM"]:
        found.append("MODEL.NORM_IN_TRUNK: without effect where SOURCE_NORM is none; leave it out")
    return found


def _other_sizes(cfg, plan: Plan) -> list[str]:
    stride = plan.layers[plan.num_layers - 1].stride
    odd = [list(size) for size in cfg.TRAIN.IMAGE_SIZES if any(side % stride for side in size)]
    if not odd:
        return []
    right = [[max(stride, round(side / stride) * stride) for side in size] for size in odd]
    return [
        f"TRAIN.IMAGE_SIZES: {', '.join(map(str, odd))}: no multiples of the base's stride of {stride} px, so that "
        f"cells at the border lie half outside; give {', '.join(map(str, right))}"
    ]


def _schedule(cfg) -> list[str]:
    schedule, epochs = cfg.TRAIN.LR_SCHEDULER, cfg.TRAIN.MAX_EPOCHS
    rest, found = epochs - schedule.WARM_UP_EPOCHS, []
    if rest <= 0:
        found.append(
            f"TRAIN.LR_SCHEDULER.WARM_UP_EPOCHS: {schedule.WARM_UP_EPOCHS} of {epochs} epochs leave none for "
            f"{schedule.SCHEDULER}, so the rate never falls; give fewer"
        )
    steps = {"step": schedule.STEPS[:1], "multi_step": schedule.STEPS}.get(schedule.SCHEDULER, [])
    late = [n for n in steps if n > rest > 0]
    if late:
        found.append(
            f"TRAIN.LR_SCHEDULER.STEPS: {', '.join(map(str, late))}: never reached, since {rest} epochs follow "
            "WARM_UP_EPOCHS, from which STEPS count; give smaller ones or a larger MAX_EPOCHS"
        )
    if schedule.RESTART_EPOCHS and schedule.SCHEDULER != "SGDR":
        found.append(f"TRAIN.LR_SCHEDULER.RESTART_EPOCHS: not read by {schedule.SCHEDULER}, only by SGDR; leave it out")
    if schedule.SCHEDULER != "SGDR" and schedule.GAMMA > 1:
        found.append(f"TRAIN.LR_SCHEDULER.GAMMA: {schedule.GAMMA:g} makes the rate grow; give one below 1")
    return found


def _cut_cycle(cfg, plan: Plan) -> list[str]:
    """A last cosine cycle that ends where the rate is still high."""
    schedule, epochs = cfg.TRAIN.LR_SCHEDULER, cfg.TRAIN.MAX_EPOCHS
    last = plan.rate.points[-1][2]
    high = last > cfg.TRAIN.OPTIMIZER.LEARNING_RATE / 10 and epochs > schedule.WARM_UP_EPOCHS
    if not (schedule.SCHEDULER == "SGDR" and schedule.RESTART_EPOCHS and high):
        return []
    before, after, length = 0.0, float(schedule.WARM_UP_EPOCHS), float(schedule.RESTART_EPOCHS)
    while after < epochs:
        before, after, length = after, after + length, length * schedule.RESTART_FACTOR
    ends = " or ".join(f"{math.ceil(end)}" for end in (before, after) if end > schedule.WARM_UP_EPOCHS)
    return [
        f"TRAIN.LR_SCHEDULER.RESTART_EPOCHS: the last cosine is cut short by epoch {epochs}, at a rate of {last:.3g}; "
        f"give MAX_EPOCHS at which one ends, {ends}"
    ]


def _unused_parts(model: SSD, plan: Plan) -> list[str]:
    names = unused_names(model, plan.image_size)
    if not names:
        return []
    lost = sum(parameter.numel() for name, parameter in model.named_parameters() if name in names)
    layers = sorted({int(name.split(".")[2]) for name in names if _is_base_layer(name)})
    where = f"layers {layers[0]} to {layers[-1]} of the base" if layers else min(names)
    return [
        f"MODEL.FEATURE_LAYER: {where}: no prediction depends on {lost:,} parameters there, which cost memory and "
        "time; tap a later layer or add an extra level"
    ]


def _is_base_layer(name: str) -> bool:
    parts = name.split(".")
    return parts[:2] == ["backbone", "layers"] and parts[2].isdigit()


def _too_long(cfg, num_levels: int) -> list[str]:
    """STEPS and SIZES with entries that no level uses."""
    in_pixels = isinstance(cfg.MODEL.SIZES[0], (list, tuple))
    used = {"STEPS": num_levels, "SIZES": num_levels + 1 if in_pixels else 2}
    long = {key: count for key, count in used.items() if len(cfg.MODEL[key]) > count}
    if not long:
        return []
    given = " and ".join(f"the first {count} of {len(cfg.MODEL[key])} {key}" for key, count in long.items())
    return [
        f"MODEL.{' and '.join(long)}: the {num_levels} levels use {given}; leave out the rest, or give FEATURE_LAYER "
        "and ASPECT_RATIOS the levels that are missing"
    ]


def _mean_side(boxes) -> float:
    return math.exp(sum(math.log(w * h) / 2 for w, h in boxes) / len(boxes))


def _levels(indices: list[int]) -> str:
    return f"level{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def _map(level: LevelFacts) -> str:
    return f"{level.map[0]} x {level.map[1]}"


def _pair(values) -> str:
    low, high = values
    return _px(low) if low == high else f"{_px(low)} x {_px(high)}"


def _px(value: float) -> str:
    return f"{round(value, 1):g}"

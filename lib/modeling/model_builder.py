"""Builds the three parts of a detector from a configuration: model, criterion, postprocess."""

from functools import partial

from torch import nn

from ..layers.box_loss import BoxLoss
from ..layers.focal_loss import FocalLoss
from ..layers.matcher import Matcher
from ..layers.multibox_loss import MultiBoxLoss
from ..layers.postprocess import PostProcess
from ..layers.prior_box import build_priors, level_ratios, num_boxes_per_cell
from ..utils.errors import UserError
from ..utils.timm_models import is_timm
from .initialize import initialize_weights
from .nets import NETS, Backbone
from .nets.interleaved import InterleavedBackbone, Policy, check_strides, usual_small_net
from .nets.timm_backbone import build_timm_backbone, has_timm_weights
from .pretrained import IMAGENET_WEIGHTS
from .ssds import SSD, SSDS
from .ssds.detector import source_map_sizes
from .ssds.head import build_head
from .ssds.neck import Neck, NeckSpec

INTERLEAVED = "lstm_ssd_interleaved"
PRIOR_PROBABILITY = 0.01  # RetinaNet, arXiv 1708.02002, section 4.1


def create_model(cfg) -> SSD:
    """The detector that cfg.MODEL describes, with fresh weights for the loss of cfg.CRITERION, drawn from torch's
    generator.

    Raises UserError for unknown names, and where levels, steps, sizes and ratios do not go together.
    """
    model = cfg.MODEL
    if model.NUM_CLASSES is None:
        raise UserError("MODEL.NUM_CLASSES is not set and no data set has been opened to take it from")
    backbone = create_backbone(cfg)
    ratios = None if model.ASPECT_RATIOS is None else _check_ratios(model.ASPECT_RATIOS)
    neck = create_neck(cfg, backbone, None if ratios is None else len(ratios))
    backbone.emit(neck.taps, neck.split_at)
    num_levels = len(neck.channels)
    ratios = level_ratios(ratios, num_levels)
    _check_counts(model, num_levels, has_larger_square=1 in ratios[-1])
    kind = neck.head if model.HEAD == "auto" else model.HEAD
    head = build_head(kind, neck.channels, [num_boxes_per_cell(r) for r in ratios], model.NUM_CLASSES)
    maps = _map_sizes(backbone, neck, model.NETS, model.SSDS, "MODEL.IMAGE_SIZE", model.IMAGE_SIZE)
    for size in cfg.TRAIN.IMAGE_SIZES:
        _map_sizes(backbone, neck, model.NETS, model.SSDS, "TRAIN.IMAGE_SIZES", size)
    priors = build_priors(model.IMAGE_SIZE, maps, ratios, model.SIZES, model.STEPS, model.CLIP)
    priors_at = partial(_priors_at, ratios=ratios, sizes=model.SIZES, clip=model.CLIP)
    detector = SSD(backbone, neck, head, priors, model.IMAGE_SIZE, priors_at)
    rare = None if cfg.CRITERION.CONF_LOSS == "multibox" else PRIOR_PROBABILITY
    initialize_weights(detector, rare, has_sigmoid_scores(cfg))
    detector.switch_memory(model.RNN.IN_USE)
    return detector


def _priors_at(image_size, map_sizes, ratios, sizes, clip):
    """Priors for images of another size than MODEL.IMAGE_SIZE: boxes given in pixels stay as large in pixels, so that a
    level keeps its kind of objects, and stand in the middle of the cells, since STEPS belong to MODEL.IMAGE_SIZE."""
    return build_priors(image_size, map_sizes, ratios, sizes, (), clip)


def create_backbone(cfg) -> Backbone:
    """The base network of cfg.MODEL alone; two in one where the variant is interleaved."""
    base, rnn = _create_net(cfg), cfg.MODEL.RNN
    if cfg.MODEL.SSDS != INTERLEAVED:
        return base
    for key, net in (("MODEL.NETS", cfg.MODEL.NETS), ("MODEL.RNN.SMALL_NETS", rnn.SMALL_NETS)):
        if is_timm(net):
            raise UserError(f"{key}: the networks of timm ({net}) cannot be interleaved; {INTERLEAVED} takes others")
    name = usual_small_net(base) if rnn.SMALL_NETS == "auto" else rnn.SMALL_NETS
    small = NETS.get(name, "MODEL.RNN.SMALL_NETS")()
    check_strides(base, small, name)
    # async is a way of running the fixed policy's parts, which belongs to whoever runs the frames.
    rule = rnn.INTERVAL, rnn.ADAPT_THRESHOLD, rnn.SMALL_UPDATES
    policies = [Policy(kind, *rule) for kind in (rnn.POLICY, rnn.TRAIN_POLICY)]
    return InterleavedBackbone(base, small, *policies)


def _create_net(cfg) -> Backbone:
    model = cfg.MODEL
    if is_timm(model.NETS):
        if model.PRETRAINED == "imagenet" and not has_timm_weights(model.NETS):
            raise UserError(f"MODEL.PRETRAINED: timm has no weights for {model.NETS}; it can be given a file")
        return build_timm_backbone(model.NETS, model.IMAGE_SIZE, cfg.TRAIN.IMAGE_SIZES)
    build = NETS.get(model.NETS)
    if model.PRETRAINED == "imagenet" and model.NETS not in IMAGENET_WEIGHTS:
        raise UserError(
            f"MODEL.PRETRAINED: torchvision has no ImageNet weights for {model.NETS}; it has them for "
            f"{', '.join(IMAGENET_WEIGHTS)}; other bases can be given a file"
        )
    if model.NETS.startswith("mobilenet_v2"):
        build = partial(build, stem_activation=nn.ReLU6 if model.STEM_ACTIVATION == "relu6" else nn.ReLU)
    if model.NETS == "mobilenet_v2_cut":
        return build(model.DEPTH_MULTIPLIER, model.BASE_STRUCTURE)
    return build()


def create_neck(cfg, backbone: Backbone, num_ratios: int | None) -> Neck:
    """The neck of cfg.MODEL.SSDS on a base, for so many lists of aspect ratios (None: as many as it has levels)."""
    model = cfg.MODEL
    spec = NeckSpec(
        image_size=tuple(model.IMAGE_SIZE),
        feature_layer=model.FEATURE_LAYER,
        num_ratios=num_ratios,
        source_norm=model.SOURCE_NORM,
        norm_in_trunk=model.NORM_IN_TRUNK,
        extras_activation=model.EXTRAS_ACTIVATION,
        rfb_block=model.RFB_BLOCK,
        align_corners=model.ALIGN_CORNERS,
        width=model.NECK_WIDTH,
        repeats=model.NECK_REPEATS,
        cell_levels=model.RNN.CELL_LEVELS,
        cell_channels=tuple(model.RNN.CELL_CHANNELS),
        cell_bound=model.RNN.CELL_BOUND,
        cell_skip=model.RNN.CELL_SKIP,
    )
    return SSDS.get(model.SSDS)(backbone, spec)


def create_criterion(cfg) -> nn.Module:
    """The loss: (Predictions, targets) -> dict of named scalar losses."""
    matched, unmatched = cfg.MATCHER.MATCHED_THRESHOLD, cfg.MATCHER.UNMATCHED_THRESHOLD
    matcher, criterion = Matcher(matched, min(matched, unmatched)), cfg.CRITERION
    box_loss = BoxLoss(criterion.BOX_LOSS, cfg.MATCHER.VARIANCE, criterion.BOX_WEIGHT)
    if criterion.CONF_LOSS == "multibox":
        mining = cfg.MATCHER.NEGPOS_RATIO, cfg.MATCHER.EMPTY_NEGATIVES, criterion.NEGATIVE_WEIGHT
        return MultiBoxLoss(matcher, box_loss, *mining)
    return FocalLoss(matcher, box_loss, criterion.FOCAL_ALPHA, criterion.FOCAL_GAMMA, has_sigmoid_scores(cfg))


def has_sigmoid_scores(cfg) -> bool:
    """Whether scores are the sigmoids of the classes' logits, each alone, and not a softmax over all."""
    return cfg.CRITERION.CONF_LOSS == "sigmoid_focal"


def create_postprocess(cfg) -> PostProcess:
    """(Predictions, sizes [B, 2] or None) -> list of Detections."""
    post = cfg.POST_PROCESS
    return PostProcess(
        cfg.MATCHER.VARIANCE,
        post.SCORE_THRESHOLD,
        post.IOU_THRESHOLD,
        post.MAX_DETECTIONS,
        post.MAX_PER_IMAGE,
        post.CLIP_BOXES,
        has_sigmoid_scores(cfg),
    )


def _map_sizes(backbone, neck, net: str, variant: str, key: str, size) -> list[tuple[int, int]]:
    try:
        return source_map_sizes(backbone, neck, size)
    except RuntimeError as error:  # torch refuses maps that would have no cells
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{key} {list(size)} does not pass through {net} and the {len(neck.channels)} levels of {variant}: {reason}"
        ) from error


def _check_counts(model, num_levels: int, has_larger_square: bool) -> None:
    if len(model.STEPS) not in range(1, num_levels):
        missing = ""
    else:
        missing = (
            f"MODEL.STEPS has {len(model.STEPS)} entries, the model {num_levels} levels: give one for each, or none"
        )
    sizes = model.SIZES
    pixel_form = len(sizes) > 0 and all(map(_is_pair, sizes))
    fraction_form = len(sizes) == 2 and all(map(_positive, sizes)) and sizes[0] <= min(sizes[1], 1)
    if not (pixel_form or fraction_form):
        missing = (
            "MODEL.SIZES: expected [h, w] pairs in pixels or two fractions of the image [smallest, largest], all above "
            f"0, got {sizes}"
        )
    elif pixel_form and len(sizes) < num_levels + has_larger_square:
        end = " and one more at the end" if has_larger_square else ""
        missing = f"MODEL.SIZES has {len(sizes)} entries, the model {num_levels} levels: give one for each level{end}"
    if not all(map(_is_pair, model.STEPS)):
        missing = f"MODEL.STEPS: expected [h, w] pairs in pixels above 0, got {model.STEPS}"
    if missing:
        raise UserError(missing)


def _check_ratios(ratios) -> list:
    if not ratios:
        raise UserError("MODEL.ASPECT_RATIOS: the list is empty; give a list of ratios for each level, or null")
    for level, entry in enumerate(ratios):
        where = f"MODEL.ASPECT_RATIOS: level {level}"
        if not isinstance(entry, (list, tuple)) or not entry:
            raise UserError(f"{where}: expected a list of ratios, got {entry!r}")
        pairs = [_is_pair(r) for r in entry]
        if not all(pairs) and not all(_positive(r) for r in entry):
            raise UserError(f"{where}: expected positive ratios or [w, h] pairs, not a mixture, got {entry!r}")
    return list(ratios)


def _is_pair(value) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_positive, value))


def _positive(value) -> bool:
    return isinstance(value, (int, float)) and value > 0

"""What does not go together in the keys of MODEL.RNN, each in one line that ends with what to do."""

from ..config.schema import MODEL
from ..modeling.complexity import unused_parameters
from ..modeling.nets.interleaved import InterleavedBackbone
from ..modeling.ssds.detector import SSD
from .plan_facts import Plan
from .plan_video import memory_switched, seen_by
from .plan_words import VARIANTS

CELLS, TWO = ("lstm_ssd", "lstm_ssd_interleaved"), ("lstm_ssd_interleaved",)
KEYS_OF = {
    "CELL_LEVELS": ("lstm_ssd",), "CELL_CHANNELS": CELLS, "CELL_BOUND": CELLS, "SMALL_NETS": TWO, "POLICY": TWO,
    "TRAIN_POLICY": TWO, "SMALL_UPDATES": TWO, "INTERVAL": TWO, "ADAPT_THRESHOLD": TWO,
}  # fmt: skip
"""Keys of MODEL.RNN that only some variants read."""

NO_MEMORY = {
    "ssd_lite_RNN": "has no 'L' in FEATURE_LAYER; give one",
    "lstm_ssd_lite": "has no 'L' in FEATURE_LAYER; give one",
    "lstm_ssd": "has no level in CELL_LEVELS; give one",
}
OTHERS = "has no memory; take lstm_ssd_lite, lstm_ssd or lstm_ssd_interleaved"
TURNS = ("fixed", "adaptive", "async")  # policies that count the frames in between


def find_video_problems(cfg, plan: Plan) -> list[str]:
    """The findings on MODEL.RNN; none on what fits together or is not read."""
    return [*_in_use(cfg, plan), *_clips(cfg, plan), *_cells(cfg, plan), *_policies(cfg, plan)]


def _in_use(cfg, plan: Plan) -> list[str]:
    """A memory that is not used, or use of what is not there."""
    rnn, epochs = cfg.MODEL.RNN, cfg.TRAIN.MAX_EPOCHS
    clips = [stage.first for stage in plan.rate.stages if stage.clips]
    if rnn.IN_USE and not plan.remembers:
        so = f"clips from epoch {clips[0]} on teach it no more than stills" if clips else "it changes nothing"
        return [f"MODEL.RNN.IN_USE: {so}, since {plan.ssds} {NO_MEMORY.get(plan.ssds, OTHERS)}, or leave it out"]
    if rnn.IN_USE and not clips:
        return [
            f"MODEL.RNN.USE_LSTM_AFTER_EPOCH: {rnn.USE_LSTM_AFTER_EPOCH} of {epochs} epochs train on stills, so the "
            "memory never learns; give fewer, or a larger MAX_EPOCHS"
        ]
    if plan.remembers and not rnn.IN_USE:
        return [
            f"MODEL.RNN.IN_USE: False, so the memory of {plan.ssds} is built but takes every frame as the first one of "
            "a video; give True, or a variant without"
        ]
    return []


def _clips(cfg, plan: Plan) -> list[str]:
    rnn, found = cfg.MODEL.RNN, []
    if not any(stage.clips for stage in plan.rate.stages):
        return []
    if rnn.FRAMES_IN_VIDEO < rnn.BACKPROP_STEPS:
        found.append(
            f"MODEL.RNN.FRAMES_IN_VIDEO: {rnn.FRAMES_IN_VIDEO} frames of a video do not fill a clip of "
            f"{rnn.BACKPROP_STEPS} (BACKPROP_STEPS), so that no memory reaches back so far; give {rnn.BACKPROP_STEPS} "
            "and more"
        )
    fresh = not (cfg.MODEL.PRETRAINED or cfg.RESUME_CHECKPOINT or rnn.USE_LSTM_AFTER_EPOCH)
    if fresh and any(stage.base_held for stage in plan.rate.stages):
        found.append(
            f"MODEL.RNN.FREEZE_BASE_EPOCHS: {rnn.FREEZE_BASE_EPOCHS} epochs hold a base that has learnt nothing yet; "
            "give 0, or weights (MODEL.PRETRAINED, RESUME_CHECKPOINT), or begin with stills (USE_LSTM_AFTER_EPOCH)"
        )
    return found


def _cells(cfg, plan: Plan) -> list[str]:
    rnn = cfg.MODEL.RNN
    found = [
        f"MODEL.RNN.{key}: not read by {plan.ssds}, only by {', '.join(variants)}; leave it out"
        for key, variants in KEYS_OF.items()
        if _is_set(rnn, key) and plan.ssds in VARIANTS and plan.ssds not in variants
    ]
    groups = max((cell.groups for cell in plan.cells), default=1)
    if rnn.CELL_BOUND == "none" and groups > 1:
        found.append(
            f"MODEL.RNN.CELL_BOUND: none lets the memory in {groups} groups grow without end, though it is read only "
            "up to 6; give clip or scale, with which it was published"
        )
    return found


def _is_set(rnn, key: str) -> bool:
    return rnn[key] != MODEL["RNN"][key].default


def _policies(cfg, plan: Plan) -> list[str]:
    """What the two extractors of an interleaved detector do not see, and keys of policies that are not chosen."""
    rnn = cfg.MODEL.RNN
    if plan.interleaving is None:
        return []
    found, never = [], _never_learns(rnn, plan)
    if never:
        found.append(
            f"MODEL.RNN.TRAIN_POLICY: {rnn.TRAIN_POLICY} shows {never} no frame, so that it never learns; give random"
        )
    if not rnn.INTERVAL and rnn.POLICY in TURNS and rnn.IN_USE:
        found.append(
            f"MODEL.RNN.INTERVAL: 0 leaves SMALL_NETS no frame under POLICY {rnn.POLICY}; give 1 or more, or POLICY "
            "large"
        )
    if _is_set(rnn, "INTERVAL") and rnn.POLICY not in TURNS and rnn.TRAIN_POLICY != "fixed":
        found.append(
            f"MODEL.RNN.INTERVAL: not read under POLICY {rnn.POLICY} and TRAIN_POLICY {rnn.TRAIN_POLICY}; leave it out"
        )
    if _is_set(rnn, "ADAPT_THRESHOLD") and rnn.POLICY != "adaptive":
        found.append(
            f"MODEL.RNN.ADAPT_THRESHOLD: not read under POLICY {rnn.POLICY}, only under adaptive; leave it out"
        )
    return found


def _never_learns(rnn, plan: Plan) -> str:
    """The key of the extractor that sees nothing in training; '' where both see something."""
    if rnn.TRAIN_POLICY == "small":
        return "NETS"
    always_large = rnn.TRAIN_POLICY == "large" or (rnn.INTERVAL == 0 and all(stage.clips for stage in plan.rate.stages))
    return "SMALL_NETS" if always_large and rnn.TRAIN_POLICY != "random" else ""


def unused_names(model: SSD, image_size) -> set[str]:
    """Names of the parameters on which no prediction depends, with the memory on and whichever extractor sees the
    frame."""
    kinds = ("large", "small") if isinstance(model.backbone, InterleavedBackbone) else ("large",)
    found = []
    with memory_switched(model, True):
        for kind in kinds:
            with seen_by(model, kind):
                found.append(set(unused_parameters(model, image_size)))
    return set.intersection(*found)

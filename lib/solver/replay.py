"""Runs the step of a replay file again and says why it was not finite: what `train.py --replay FILE` shows."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ..config.effective import config_from_dict
from ..config.stages import stage_of
from ..layers.normalize import Normalize
from ..modeling.model_builder import create_criterion, create_model
from ..structures import Batch, Clip, Predictions, Target
from ..utils.device import autocast
from ..utils.errors import UserError
from . import checkpoint as ckpt
from .optim import freeze_outside_scope, hold_frozen_norms
from .replay_report import Image, Run, bad_boxes, finding, report
from .stages import enter_stage
from .step_guard import FORMAT
from .task import DetectionTask, state_for

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")

ENTRIES = {"run", "clips", "threads", "arithmetic", "learning_rate", "losses", "gradient_norm"}


def replay(path) -> None:
    """Run the step that a replay file holds on the CPU and log what it shows; UserError for any other file."""
    content = read_replay(path)
    saved = content["run"]
    clips = [[_batch(plain) for plain in clip] for clip in content["clips"]]
    paths = {target["image_id"]: target["path"] for clip in content["clips"] for b in clip for target in b["targets"]}
    with _arithmetic_of(content):
        cfg = config_from_dict(saved["config"])
        task = _create_task(cfg, saved, path)
        dtype = None if content["arithmetic"] == "float32" else getattr(torch, content["arithmetic"])
        run = run_step(task, saved, clips, dtype, paths)
        plain = None
        if dtype is not None and not run.finite:
            plain = run_step(task, saved, clips, None, paths)
    logger.info("%s\nfinding: %s", report(content, run), finding(content, run, plain))


def read_replay(path) -> dict:
    """The content of a replay file."""
    content = ckpt.read_checkpoint(path)
    version = content.get("replay")
    if isinstance(version, int) and version > FORMAT:
        raise UserError(f"{path}: written by a newer version (format {version}, known is {FORMAT})")
    if not isinstance(version, int) or not set(content) >= ENTRIES or not ckpt.is_run_checkpoint(content["run"]):
        raise UserError(f"{path}: is no replay file; those that training writes are named EXP_DIR/replay/step_N.pth")
    return content


def run_step(task: DetectionTask, saved: dict, clips: list[Clip], dtype, paths: dict) -> Run:
    """Forward and backward of all clips of a step from the saved state, with the network in `dtype` (None: fp32)."""
    task.model.load_state_dict(saved["model"])
    task.zero_grad()
    torch.set_rng_state(saved["rng"]["torch"])
    run, state = Run(), saved.get("recurrent")
    for number, clip in enumerate(clips):
        with _watched(task, run) as seen:
            losses, state = task(clip, state_for(clip, state), lambda: autocast(CPU, dtype))
        (sum(losses.values()) / saved["config"]["TRAIN"]["ACCUMULATE"]).backward()
        run.losses.append({name: value.item() for name, value in losses.items()})
        run.norms = {n: p.grad.norm().item() for n, p in task.model.named_parameters() if p.grad is not None}
        run.gradient_norm = torch.nn.utils.clip_grad_norm_(task.model.parameters(), math.inf).item()
        boxes_finite = all(target.boxes.isfinite().all() for batch in clip for target in batch.targets)
        if run.culprit < 0 and (number == len(clips) - 1 or not (boxes_finite and run.finite)):
            run.culprit = number
            run.images = [image for batch, found in zip(clip, _frames(seen, clip), strict=True)
                          for image in _images(task, batch, found, paths)]  # fmt: skip
    return run


@contextmanager
def _watched(task: DetectionTask, run: Run) -> Iterator[list[Predictions]]:
    """Inside, the predictions are collected, and `run` learns which module breaks first."""
    seen = []

    def watch(name: str):
        def hook(module, given, output):
            if module is task.model:
                seen.append(output)
            if run.broken is None and not _finite(output):
                run.broken = (name, _finite(given))

        return hook

    hooks = [module.register_forward_hook(watch(name.removeprefix("model."))) for name, module in task.named_modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _finite(value) -> bool:
    """Whether all floating point tensors in nested tuples, lists and dicts are finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return True
    return all(_finite(part) for part in value)


def _frames(seen: list[Predictions], clip: Clip) -> list[Predictions]:
    """The predictions of each frame of a clip, which the detector made of all frames in one run."""
    (whole,), sizes = seen, [len(batch.images) for batch in clip]
    parts = zip(whole.loc.split(sizes), whole.conf.split(sizes), strict=True)
    return [Predictions(loc, conf, whole.priors) for loc, conf in parts]


@torch.no_grad()
def _images(task: DetectionTask, batch: Batch, predictions: Predictions, paths: dict) -> Iterator[Image]:
    for i, target in enumerate(batch.targets):
        alone = Predictions(predictions.loc[i : i + 1], predictions.conf[i : i + 1], predictions.priors)
        losses = {name: value.item() for name, value in task.criterion(alone, [target]).items()}
        pixels = batch.images[i]
        yield Image(
            target, paths.get(target.image_id, ""), (int(pixels.min()), int(pixels.max())),
            _finite(task.normalize(pixels[None])), losses, list(bad_boxes(target.boxes)),
        )  # fmt: skip


@contextmanager
def _arithmetic_of(content: dict) -> Iterator[None]:
    """Inside, torch adds numbers up in as many threads as the run did; its random state is put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(content["threads"])
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def _create_task(cfg, saved: dict, path: Path) -> DetectionTask:
    """What the solver trains, from the configuration alone, in training mode."""
    model = create_model(cfg)
    ckpt.match_shapes(model, saved, path, cfg)
    model.to(CPU, memory_format=torch.channels_last)
    try:
        model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise UserError(
            f"{path}: its weights do not fit the model of this version ({error})".splitlines()[0]
        ) from error
    learning = freeze_outside_scope(model, cfg.TRAIN.TRAINABLE_SCOPE)
    enter_stage(model, stage_of(cfg, saved["position"]["epoch"] + 1), learning)
    model.train()
    hold_frozen_norms(model)
    return DetectionTask(model, create_criterion(cfg), Normalize(cfg.DATASET.PIXEL_MEANS, cfg.DATASET.PIXEL_STDS))


def _batch(plain: dict) -> Batch:
    fields = [{name: value for name, value in target.items() if name != "path"} for target in plain["targets"]]
    return Batch(plain["images"], [Target(**named) for named in fields], plain["first"])

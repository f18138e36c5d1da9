"""What a step that was run again showed: as a compact table, and as a finding in plain words."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..evaluation import written_id
from ..structures import Target

EXPLODED = 1e6
"""A weight as large as this has left all bounds of a training that goes well."""

NOT_FINITE = "not finite"


@dataclass
class Image:
    """One image of the step: its target and file, the range of its pixels, whether its normalised pixels are finite,
    its own losses, and its suspicious boxes as (index, box, what is wrong)."""

    target: Target
    path: str
    pixels: tuple[int, int]
    input_finite: bool
    losses: dict[str, float]
    boxes: list[tuple[int, list[float], str]]

    @property
    def name(self) -> str:
        """The image as results call it."""
        return str(written_id(self.target.image_id))


@dataclass
class Run:
    """What came out of a step: the losses of each clip, the first clip with something that is not finite (or the
    last), its images, the first module whose output was not finite (name, whether its input was),
    and the norm of the gradient, whole and of every parameter that has one."""

    losses: list[dict[str, float]] = field(default_factory=list)
    culprit: int = -1
    images: list[Image] = field(default_factory=list)
    broken: tuple[str, bool] | None = None
    norms: dict[str, float] = field(default_factory=dict)
    gradient_norm: float = math.nan

    @property
    def losses_finite(self) -> bool:
        return all(math.isfinite(value) for losses in self.losses for value in losses.values())

    @property
    def gradient_finite(self) -> bool:
        return math.isfinite(self.gradient_norm)

    @property
    def finite(self) -> bool:
        return self.losses_finite and self.gradient_finite


def bad_boxes(boxes: Tensor) -> Iterator[tuple[int, list[float], str]]:
    """(index, box, what is wrong with it) of boxes [N, 4] in the unit square that no target should hold."""
    for index, box in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = box
        if not all(map(math.isfinite, box)):
            yield index, box, NOT_FINITE
        elif x2 <= x1 or y2 <= y1:
            yield index, box, "no area"
        elif min(box) < -1e-4 or max(box) > 1 + 1e-4:
            yield index, box, "outside the image"


def spoilt_tensors(saved: dict) -> list[str]:
    """Names of the weights, statistics and optimizer states that were not finite before the step."""
    names = [name for name, tensor in saved["model"].items() if not tensor.isfinite().all()]
    for number, entries in saved["optimizer"]["state"].items():
        spoilt = [key for key, value in entries.items() if torch.is_tensor(value) and not value.isfinite().all()]
        names += [f"{key} of the optimizer for parameter {number}" for key in spoilt]
    return names


def finding(content: dict, run: Run, plain: Run | None) -> str:
    """The likely cause; `plain` is the same step in fp32 where the run used mixed precision."""
    saved, where = content["run"], "" if run.broken is None else run.broken[0]
    spoilt = spoilt_tensors(saved)
    name, largest = _largest_weight(saved["model"])
    bad = {image.name: boxes for image in run.images if (boxes := _not_finite(image))}
    if bad:
        return f"image {_listed(bad)} has NaN or infinity in its boxes: correct its annotation"
    if spoilt:
        return (
            f"the weights were already not finite before this step ({_listed(spoilt)}): an earlier step spoilt them; "
            "lower TRAIN.OPTIMIZER.LEARNING_RATE, or go on from a checkpoint that is finite"
        )
    if run.finite:
        return "the step is finite here, so its cause lies in what differs from the run: machine, or version of torch"
    blank = [image.name for image in run.images if not image.input_finite]
    if blank:
        return f"image {_listed(blank)} is not finite once it is normalised: see DATASET.PIXEL_MEANS and PIXEL_STDS"
    if plain is not None and plain.finite:
        place = f"in module {where}" if where else "in the backward pass"
        return f"{content['arithmetic']} overflows {place}: fp32 gives finite losses and gradients (TRAIN.AMP=none)"
    if largest >= EXPLODED:
        return (
            f"the weights have exploded (up to {largest:.2g}, in {name}) and module {where or 'in the backward pass'} "
            "overflows: lower TRAIN.OPTIMIZER.LEARNING_RATE, or set TRAIN.CLIP_NORM"
        )
    culprits = [image.name for image in run.images if not all(map(math.isfinite, image.losses.values()))]
    if where == "criterion" or not where and not run.losses_finite:
        return f"the network's output is finite, but the loss of image {_listed(culprits)} is not{_suspects(run)}"
    if where:
        return f"module {where} overflows, with finite weights{_suspects(run)}; lower TRAIN.OPTIMIZER.LEARNING_RATE"
    first = [name for name, norm in run.norms.items() if not math.isfinite(norm)]
    return f"the losses are finite, but the gradient overflows in the backward pass, first at {first[-1]}"


def report(content: dict, run: Run) -> str:
    """The table of what the step was given and what came out, in the run and now."""
    saved = content["run"]
    position, seed = saved["position"], saved["config"]["SEED"]
    spoilt = spoilt_tensors(saved)
    name, largest = _largest_weight(saved["model"])
    state = f"not finite: {_listed(spoilt)}" if spoilt else "all finite"
    lines = [
        f"step {position['step'] + 1}, epoch {position['epoch'] + 1}, batch {position['batch'] + 1}: learning rate "
        f"{content['learning_rate']:g}, seed {seed}, {content['arithmetic']}, torch {content['torch']}",
        f"before the step: {len(saved['model'])} weights and statistics, {state}; the largest weight is {largest:.3g}, "
        f"in {name}",
        *_compared(content, run),
        *_table([["image", "pixels", "boxes", *run.losses[run.culprit], "file"], *map(_row, run.images)]),
    ]
    for image in run.images:
        for index, box, wrong in image.boxes:
            corners = ", ".join(f"{corner:.4g}" for corner in box)
            lines.append(f"  {image.name}: box {index} [{corners}]: {wrong}")
    if run.broken is not None:
        given = "finite" if run.broken[1] else "not finite either"
        lines.append(f"first module whose output is not finite: {run.broken[0]} (its input is {given})")
    return "\n".join([*lines, _gradient(run)])


def _compared(content: dict, run: Run) -> list[str]:
    """Losses and gradient norm of the run beside those of now, and whether they are the same numbers."""
    rows, pairs = [["loss", "in the run", "now"]], []
    for number, now in enumerate(run.losses):
        then = content["losses"][number] if number < len(content["losses"]) else {}
        clip = f" of batch {number + 1}" if len(run.losses) > 1 else ""
        for name, value in now.items():
            rows.append([name + clip, f"{then[name]:.9g}" if name in then else "not reached", f"{value:.9g}"])
            pairs += [(then[name], value)] if name in then else []
    norm = content["gradient_norm"]
    pairs += [] if norm is None else [(norm, run.gradient_norm)]
    if not pairs:
        verdict = "the run stopped before it had computed anything"
    elif all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs):
        verdict = "what the run computed comes out the same, bit by bit"
    else:
        verdict = (
            f"what the run computed comes out DIFFERENT here (torch {content['torch']} then, {torch.__version__} now)"
        )
    return [*_table(rows), verdict]


def _gradient(run: Run) -> str:
    """The norm of the gradient, whole and of each part of the model, and where it is not finite."""
    parts = {}
    for name, norm in run.norms.items():
        part = name.partition(".")[0]
        parts[part] = math.hypot(parts.get(part, 0.0), norm)
    spoilt = [name for name, norm in run.norms.items() if not math.isfinite(norm)]
    where = f"; not finite in {len(spoilt)} of {len(run.norms)} parameters: {_listed(spoilt)}" if spoilt else ""
    by_part = ", ".join(f"{part} {norm:.4g}" for part, norm in parts.items())
    return f"gradient norm: {run.gradient_norm:.4g} ({by_part}){where}"


def _row(image: Image) -> list[str]:
    suspicious = f", {len(image.boxes)} suspicious" if image.boxes else ""
    losses = [f"{value:.4g}" for value in image.losses.values()]
    low, high = image.pixels
    given = f"{low}..{high}" + ("" if image.input_finite else " (normalised: not finite)")
    return [image.name, given, f"{len(image.target.boxes)}{suspicious}", *losses, image.path]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _largest_weight(state: dict) -> tuple[str, float]:
    """Name and size of the largest parameter, of those that are finite; running statistics may well be large."""
    sizes = {
        name: t.abs().max().item() for name, t in state.items() if t.is_floating_point() and "running_" not in name
    }
    return max(
        ((name, size) for name, size in sizes.items() if math.isfinite(size)), key=lambda e: e[1], default=("", 0.0)
    )


def _not_finite(image: Image) -> list:
    return [box for box in image.boxes if box[2] == NOT_FINITE]


def _suspects(run: Run) -> str:
    names = [image.name for image in run.images if image.boxes]
    return f"; look at the boxes of {_listed(names)}" if names else ""


def _listed(names, limit: int = 4) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")

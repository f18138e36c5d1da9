"""Tell how well the priors of a configuration cover the objects of its training sets, and propose better ones."""

import copy
import hashlib
import json
import logging
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..config.yaml_text import write_value
from ..dataset.dataset_factory import check_num_classes, create_records
from ..layers.prior_box import level_ratios
from ..modeling.complexity import source_fields
from ..modeling.model_builder import create_model
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.log import setup_logging
from .prior_layout import Layout, Objects, nearest_ious
from .prior_objects import draw_objects, plain_objects
from .prior_report import boxes_in_words, cell_boxes, coverage_rows, format_report, level_rows, summary
from .prior_search import Proposal, propose
from .reports import is_report, number, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.priors")

EPOCHS, MAX_IMAGES = 20, 20_000
"""Epochs of augmentation that are drawn, and images at most, unless --images says how many."""

MIN_OBJECTS = 20
"""Of fewer objects than this, or in a single scene, priors would learn the accidents."""

MAX_BOXES = 32  # per cell, with --boxes

TITLE = "# Priors proposed for a configuration"
MARK = "priors of"  # the key of a JSON file by which it is known to be of this tool


def read_layout(cfg) -> Layout:
    """The layout of the priors of the model that `cfg` describes; UserErrors as create_model raises them.

    No weights are made: the model is built on the meta device.
    """
    model, size = cfg.MODEL, tuple(cfg.MODEL.IMAGE_SIZE)
    with torch.device("meta"):
        detector = create_model(cfg)
    sources = source_fields(detector, size)
    layout = Layout(
        size,
        tuple(source.cells for source in sources),
        level_ratios(model.ASPECT_RATIOS, len(sources)),
        model.SIZES,
        model.STEPS[: len(sources)],
        model.CLIP,
        tuple(math.sqrt(math.prod(source.size) / math.prod(size)) for source in sources),
    )
    if layout.num_priors != len(detector.priors):
        raise RuntimeError(f"{layout.num_priors} priors in the layout, {len(detector.priors)} in the model")
    return layout


def fit_steps(layout: Layout) -> tuple[list, list[int]]:
    """(steps, levels that were changed): image size / map size where the outermost centres lie outside the image or
    leave more than a step of it without any; the others stay."""
    steps, changed = list(layout.steps), []
    for level, cells in enumerate(layout.map_sizes if steps else ()):
        sides = zip(steps[level], cells, layout.image_size, strict=True)
        if not all((n - 1) * step < side < (n + 1) * step for step, n, side in sides):
            steps[level] = layout.even_step(level)
            changed.append(level)
    return steps, changed


def read_counts(text: str | None, layout: Layout) -> list[int]:
    """Boxes per cell of each level as --boxes asks: one number for all or one for each; None leaves them."""
    if text is None:
        return layout.counts
    numbers = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    levels = len(layout.map_sizes)
    if len(numbers) not in (1, levels) or not 1 <= min(numbers) <= max(numbers) <= MAX_BOXES:
        each = f", or {levels} with commas, one for each level" if levels > 1 else ""
        raise UserError(
            f"--boxes {text}: expected boxes per cell, 1 to {MAX_BOXES}, as one number for all levels{each}"
        )
    return numbers if len(numbers) == levels else numbers * levels


def improve(cfg, layout: Layout, counts: list[int], plain: Objects, drawn: Objects) -> Proposal:
    """The priors that the tool proposes, with steps that fit the maps; Proposal.layout is None for none."""
    threshold, (steps, changed) = cfg.MATCHER.MATCHED_THRESHOLD, fit_steps(layout)
    for level in changed:
        rows, columns = layout.map_sizes[level]
        log.warning(
            "MODEL.STEPS: level %d: %s does not fit its map of %d x %d cells; %s does",
            level, list(layout.steps[level]), rows, columns, steps[level],
        )  # fmt: skip
    rest = ("steps", replace(layout, steps=steps)) if changed else ("given", None)
    if len(plain) < MIN_OBJECTS or len(plain.scenes.unique()) < 2:
        return Proposal(rest[1], "steps" if changed else "few", {})
    found = propose(replace(layout, steps=steps), counts, Objects.concat([drawn, plain]), threshold, cfg.SEED)
    if found.layout is None:
        return Proposal(rest[1], rest[0], found.scores)
    proposed = copy.deepcopy(cfg)
    proposed.MODEL.update(_as_keys(found.layout))
    read_layout(proposed)  # what --boxes asks for may not suit the head
    if counts == layout.counts:
        before, after = ((nearest_ious(drawn.boxes, x).amax(1) >= threshold).sum() for x in (layout, found.layout))
        if after < before:
            return Proposal(rest[1], rest[0], found.scores)
    return found


def _as_keys(layout: Layout) -> dict[str, list]:
    """The keys of cfg.MODEL that a layout decides."""
    return {"SIZES": layout.sizes, "STEPS": layout.steps, "ASPECT_RATIOS": layout.ratios}


def write_patch(path: Path, cfg, args, layout: Layout, summary: list[str]) -> None:
    """A file for load_config: the configuration of --cfg with the priors of `layout` and a folder of its own.

    Keys of the model that the command line changes are kept.
    """
    changed = dict.fromkeys(word.partition("=")[0].strip().removeprefix("MODEL.") for word in args.overrides)
    values = {name: cfg.MODEL[name] for name in changed if name in cfg.MODEL} | _as_keys(layout)
    del values["ASPECT_RATIOS"]
    base = _path_from(Path(os.path.expanduser(args.cfg)), path.parent)
    lines = [*(f"# {line}" for line in summary), f"_BASE_: {write_value(base)}", "MODEL:"]
    lines += [f"  {name}: {write_value(value)}" for name, value in values.items()]
    lines.append("  ASPECT_RATIOS:")
    for level, (ratios, boxes) in enumerate(zip(layout.ratios, cell_boxes(layout), strict=True)):
        lines.append(f"  - {write_value(ratios)}  # level {level}, width x height: {boxes_in_words(boxes)}")
    lines.append(f"EXP_DIR: {write_value(cfg.EXP_DIR.rstrip('/') + '_priors')}")
    body = "\n".join(lines) + "\n"
    _write(path, f"{TITLE} {_digest(body)}\n{body}")


def check_targets(args, patch: Path) -> None:
    """UserError for a file that would be overwritten and is not as this tool wrote it."""
    given = Path(os.path.expanduser(args.cfg))
    if args.json and Path(args.json).resolve() == patch.resolve():
        raise UserError(f"--json {args.json}: is the file of the proposal; give another name")
    for option, path in (("--out", patch), ("--json", Path(args.json) if args.json else None)):
        if path is None or not path.exists():
            continue
        if path.samefile(given):
            raise UserError(f"{option} {path}: is the file of --cfg, which would be overwritten")
        if not (_is_patch(path) if option == "--out" else is_report(path, MARK)):
            raise UserError(
                f"{option} {path}: is there already and not as this tool wrote it, or changed since; give another name"
            )


def _path_from(target: Path, folder: Path) -> str:
    """The path of a file as seen from a folder; absolute where the two share nothing but the root."""
    target, folder = target.resolve(), folder.resolve()
    shared = os.path.commonpath([target, folder]) if target.drive == folder.drive else folder.anchor
    return str(target) if shared == folder.anchor else Path(os.path.relpath(target, folder)).as_posix()


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _is_patch(path: Path) -> bool:
    """Whether write_patch made the file and nobody changed it."""
    try:
        first, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return first == f"{TITLE} {_digest(body)}"


def _write(path: Path, text: str) -> None:
    """Write a whole file or none; its folder is made."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("priors"),
        description="Tell how well the priors of a configuration cover the objects of its training sets, before and "
        "after augmentation, and propose SIZES and ASPECT_RATIOS that cover more with as many priors, as a file that "
        "builds on the given one. No image is decoded and no weight is made.",
        epilog="example: %(prog)s --cfg x.yml --json priors.json DATASET.DATASET_DIR=./data/BCCD",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument("--out", metavar="FILE", help="file of the proposal (EXP_DIR/priors/NAME_priors.yml)")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to this file")
    parser.add_argument(
        "--boxes",
        metavar="N",
        help="boxes per cell of the proposal: one number, or N,N,... for each level (default: as they are)",
    )
    parser.add_argument(
        "--images",
        type=number,
        metavar="N",
        help=f"images of the augmentation that are drawn (default: those of {EPOCHS} epochs, at most {MAX_IMAGES})",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def examine(args) -> str:
    """What the tool has to say about the configuration that its arguments name; writes the files as well."""
    cfg = load_config(args.cfg, args.overrides)
    patch = Path(args.out or Path(cfg.EXP_DIR) / "priors" / f"{Path(args.cfg).stem}_priors.yml")
    check_targets(args, patch)
    records = create_records(cfg, "train")
    if not len(records.labels):
        raise UserError(f"{records.name}: the training sets hold no object to fit priors to")
    check_num_classes(cfg, records.class_names)
    layout = read_layout(cfg)
    counts = read_counts(args.boxes, layout)
    num_images = args.images or min(EPOCHS * len(records), MAX_IMAGES)
    plain, (drawn, lost) = plain_objects(records), draw_objects(cfg, records, num_images)
    found = improve(cfg, layout, counts, plain, drawn)

    layouts = {"given": layout} | ({} if found.layout is None else {"proposed": found.layout})
    threshold = cfg.MATCHER.MATCHED_THRESHOLD
    figures = {
        MARK: args.cfg,
        "model": f"{cfg.MODEL.SSDS} on {cfg.MODEL.NETS}",
        "image_size": list(layout.image_size),
        "data": records.name,
        "images": len(records),
        "videos": len(records.videos) if records.is_video else 0,
        "objects": len(plain),
        "augmented_images": num_images,
        "augmented_objects": len(drawn),
        "iou_threshold": threshold,
        "priors": {name: each.num_priors for name, each in layouts.items()},
        "levels": {name: level_rows(each, drawn, threshold) for name, each in layouts.items()},
        "coverage": coverage_rows(layouts, plain, drawn, lost, records.class_names, threshold),
        "proposal": None,
    }
    text = f"Priors of {args.cfg}: {format_report(figures)}"
    if cfg.TRAIN.IMAGE_SIZES:
        text += "\n\nAll figures are for MODEL.IMAGE_SIZE; TRAIN.IMAGE_SIZES is not looked at."
    if found.layout is None:
        unit = "video" if records.is_video else "image"
        text += "\n\nNo proposal: " + {
            "few": f"it takes {MIN_OBJECTS} objects, in more than one {unit}, to fit priors to.",
            "given": "nothing that was tried covers the objects better than these priors do.",
        }[found.kind]  # fmt: skip
    else:
        write_patch(patch, cfg, args, found.layout, summary(figures))
        keys = {"file": str(patch), "kind": found.kind, "held_out_scores": found.scores, **_as_keys(found.layout)}
        figures["proposal"] = keys
        only = "\n\nOnly MODEL.STEPS changes: of the rest nothing better was found." if found.kind == "steps" else ""
        text += f"{only}\n\n{patch} holds the proposal: python train.py --cfg {patch}"
    if args.json:
        _write(Path(args.json), json.dumps(figures, indent=1) + "\n")
    return text


def main(argv=None) -> int:
    """Entry point: print the report; returns 0, or 2 after one line about a mistake in the input."""

    def body() -> int:
        setup_logging()
        print(examine(create_parser().parse_intermixed_args(argv)))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())

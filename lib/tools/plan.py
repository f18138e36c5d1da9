"""Show what a configuration would build: layers, levels, priors, cost, memory, learning rate, and what does not fit."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from ..commands import run_command
from ..config import CommandLineParser, load_config, update_derived
from ..modeling.model_builder import create_model
from ..solver.optim import LearningRate, freeze_outside_scope
from ..utils.errors import UserError
from ..utils.log import setup_logging
from .plan_facts import Plan, collect_facts
from .plan_findings import find_problems
from .plan_text import format_plan
from .reports import is_report, number, program, warnings_collected

ASSUMED_CLASSES = 21  # those of Pascal VOC
MARK = "plan of"  # the key of a JSON file by which it is known to be a plan
PICTURE = "learning_rate.png"


def make_plan(cfg, config: str = "", images: int | None = None, videos: int | None = None):
    """(plan, model, learning rate) of a configuration; the training set has so many images, frames of so many videos,
    None if not known.

    What the builders warn about is among the findings.  UserError where no model can be built.
    """
    classes_assumed = cfg.MODEL.NUM_CLASSES is None
    if classes_assumed:
        cfg.MODEL.NUM_CLASSES = ASSUMED_CLASSES
        update_derived(cfg)
    with warnings_collected() as warnings:
        model = create_model(cfg)
    with warnings_collected():  # a word of the scope without parameters, as published files have some, does no harm
        freeze_outside_scope(model, cfg.TRAIN.TRAINABLE_SCOPE)
        plan, rule = collect_facts(cfg, model, config, classes_assumed, images, videos)
    plan.findings = [*map(_with_advice, warnings), *find_problems(cfg, plan, model)]
    return plan, model, rule


def _with_advice(warning: str) -> str:
    return f"{warning}; give every list an entry for each level" if "unequal length" in warning else warning


def draw_rate(rule: LearningRate, epochs: int, title: str):
    """The learning rate over the epochs as a matplotlib figure."""
    from matplotlib.figure import Figure

    total = rule.lengths.total(epochs)
    steps = sorted({*range(0, total, max(1, total // 2000)), *range(min(total, rule.ramp + 2)), total - 1})
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="learning rate", title=title, xlim=(0, epochs))
    axes.plot([rule.lengths.epochs_at(step) for step in steps], [rule.at(step) for step in steps])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save_picture(rule: LearningRate, plan: Plan, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: this folder cannot be made ({error.strerror})") from None
    path = folder / PICTURE
    draw_rate(rule, plan.rate.epochs, f"{plan.ssds} on {plan.nets}: learning rate").savefig(path)
    return path


def _check_json_target(path: Path) -> None:
    """UserError for a file that is there and no plan."""
    if path.exists() and not is_report(path, MARK):
        raise UserError(f"--json {path}: is there already and is no plan; give another name")


def _save_json(plan: Plan, path: Path) -> None:
    facts = asdict(plan)
    facts = {MARK: facts.pop("config"), **facts}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written ({error.strerror})") from None


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("plan"),
        description="Show what a configuration would build: the layers of the base, the levels and their priors, "
        "parameters and multiply-adds, memory, the epochs and their learning rate, and what does not fit together. No "
        "data is read. The exit status is 0 where the model can be built, with findings or without, else 2.",
        epilog="example: %(prog)s --cfg x.yml MODEL.NETS=mobilenet_v2 'MODEL.FEATURE_LAYER=[[13,17,S],[96,320,256]]'",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument(
        "--images", type=number, metavar="N", help="images of the training set, frames of all its videos"
    )
    parser.add_argument(
        "--videos", type=number, metavar="N", help="videos of the training set, for the epochs on clips"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the learning rate's picture (EXP_DIR/plan)")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def main(argv=None) -> int:
    """Entry point: print the plan; returns 0, or 2 after one line about a configuration that cannot be built."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        if args.json:
            _check_json_target(Path(args.json))
        with warnings_collected() as warnings:
            cfg = load_config(args.cfg, args.overrides)
        plan, model, rule = make_plan(cfg, args.cfg, args.images, args.videos)
        plan.findings = [*warnings, *plan.findings]
        picture = _save_picture(rule, plan, Path(args.out or Path(cfg.EXP_DIR) / "plan"))
        if args.json:
            _save_json(plan, Path(args.json))
        print(format_plan(plan, model.backbone, str(picture)))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())

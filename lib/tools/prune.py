"""Prune a trained detector: remove the filters of the smallest norm, so that the network becomes smaller and faster."""

import argparse
import copy
import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple

from ..commands import run_command
from ..config import CommandLineParser, load_config, update_derived
from ..modeling.complexity import count_macs
from ..modeling.model_builder import create_model
from ..modeling.pruned import shrink_to
from ..modeling.ssds import SSD
from ..solver import checkpoint as ckpt
from ..solver.run import checkpoints_to_test, run_content
from ..solver.solver import Solver
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.log import setup_logging
from .network_scores import NetworkTest
from .prune_groups import find_groups, kept_layers
from .prune_report import filters_by_layer, format_layers, format_report, measure, write_json
from .prune_select import choose_by_macs, choose_by_ratio, group_norms, kept_channels, remove_channels
from .reports import number, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.prune")

CHECKPOINT, REPORT, TABLE, LAYERS, FINETUNED = "pruned.pth", "pruned.json", "pruned.md", "layers.csv", "finetuned"
USUAL_RATIO = 0.3
GENTLER = 4
"""By how much less than the recipe's the learning rate of fine-tuning is: its weights are near a good place already."""
RATE = "TRAIN.OPTIMIZER.LEARNING_RATE"


class Wish(NamedTuple):
    """What is to go: by `norm` ("l1", "l2") within `scope` ("layer", "global"), the share `ratio` of the filters, or as
    many as leave the share `macs` of the multiply-adds; layers keep a multiple of `multiple`."""

    norm: str = "l1"
    scope: str = "layer"
    ratio: float | None = None
    macs: float | None = None
    multiple: int = 8


def prune_model(model: SSD, fresh: SSD, wish: Wish) -> None:
    """Make `fresh`, which the configuration of `model` builds, into `model` without the filters that `wish` names, and
    put into its `pruned` how many filters and multiply-adds there were and are.  `model` stays as it is."""
    groups = find_groups(model)
    norms = group_norms(groups, model, wish.norm)
    if wish.macs is None:
        removed = choose_by_ratio(norms, wish.ratio, wish.scope, wish.multiple)
    else:
        removed = choose_by_macs(groups, norms, model, wish.macs, wish.scope, wish.multiple)
    state = remove_channels(model, kept_channels(groups, removed, dict(model.named_modules())))
    shrink_to(fresh, {name: tuple(tensor.shape) for name, tensor in state.items()}, "the pruned network")
    fresh.load_state_dict(state)
    layers = filters_by_layer(model, fresh)
    fresh.pruned = {
        "filters": [sum(before for _, before, _ in layers), sum(after for *_, after in layers)],
        "multiply_adds": [sum(count_macs(m, m.image_size).values()) for m in (model, fresh)],
    }


def prune_checkpoint(test: NetworkTest, wish: Wish, folder: Path) -> None:
    """Write what `wish` leaves of the detector under test to CHECKPOINT and LAYERS in `folder`.

    A new run can start from it (RESUME_CHECKPOINT), and test, demo and ObjectDetector take it, all under the
    configuration of the whole network.  It holds the weights that a test sees, averaged where the run averages them.
    """
    cfg, model = test.cfg, test.solver.model.cpu()
    for name in kept_layers(model):
        log.info("%s keeps all of its filters", name)
    fresh = create_model(cfg)
    prune_model(model, fresh, wish)
    content = ckpt.read_checkpoint(test.checkpoint)
    # A detector with memory is told by its epoch whether its weights have learnt to remember.
    start = {"epoch": ckpt.epoch_of(test.checkpoint), "batch": 0, "step": 0}
    position = content.get("position", start) if ckpt.is_run_checkpoint(content) else start
    facts = fresh.pruned | _facts(wish, test.checkpoint)
    content = run_content(cfg, test.solver.class_names, model=fresh.state_dict(), position=position, pruned=facts)
    ckpt.save_atomically(content, folder / CHECKPOINT)
    write_whole(folder / LAYERS, format_layers(filters_by_layer(model, fresh)))


def fine_tune(cfg, target: Path, epochs: int, keeps_rate: bool) -> Path:
    """Train the pruned network for so many epochs and return its last checkpoint; the learning rate is the recipe's by
    GENTLER unless `keeps_rate`."""
    cfg = copy.deepcopy(cfg)
    cfg.EXP_DIR = cfg.LOG_DIR = str(target.parent / FINETUNED)
    cfg.RESUME_CHECKPOINT, cfg.PHASE = str(target), ["train"]
    cfg.TRAIN.MAX_EPOCHS, cfg.TRAIN.RESUME, cfg.TRAIN.RESUME_SCOPE = epochs, "auto", ""
    if not keeps_rate:
        cfg.TRAIN.OPTIMIZER.LEARNING_RATE /= GENTLER
    Solver(update_derived(cfg)).run()
    return ckpt.last_checkpoint(cfg.EXP_DIR)


def write_report(test: NetworkTest, folder: Path, finetuned: Path | None = None) -> str:
    """Measure the original, what is left of it in `folder`, and the checkpoint of a training that went on from that;
    write the table, the text of which is returned, and its figures."""
    checkpoints = {"original": test.checkpoint, "pruned": folder / CHECKPOINT}
    checkpoints |= {"fine-tuned": finetuned} if finetuned is not None else {}
    networks = measure(test, checkpoints)
    facts = networks[1].detector.model.pruned
    text = format_report(networks, test, facts)
    write_whole(folder / TABLE, text + "\n")
    write_json(networks, test, facts, folder / REPORT)
    return f"{text}\n\nwritten: {folder / CHECKPOINT}, {folder / TABLE}, {folder / REPORT}, {folder / LAYERS}"


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("prune"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Remove the filters of the smallest norm from a trained detector (Li et al., arXiv 1608.08710),\n"
        "test it before and after, and fine-tune it if asked. The checkpoint that is pruned stays as it is; the new\n"
        f"one, {CHECKPOINT}, goes where any other does, with the same configuration file.",
        epilog="examples:\n"
        "  %(prog)s --cfg x.yml --macs 0.6 --finetune 30        keep 60 %% of the multiply-adds, then train on\n"
        "  %(prog)s --cfg x.yml --ratio 0.3 --out p30           remove 30 %% of the filters of every layer\n"
        "  train.py --cfg x.yml RESUME_CHECKPOINT=p30/pruned.pth EXP_DIR=run_p30 TRAIN.MAX_EPOCHS=30\n"
        "  %(prog)s --cfg x.yml --out p30 --compare run_p30     the table again, with that training in it",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="what to prune (default: what the test phase takes, of several the last)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the result (default: EXP_DIR/pruned)")
    parser.add_argument(
        "--norm", choices=("l1", "l2"), default="l1", help="norm of the weights of a filter (default: l1)"
    )
    parser.add_argument(
        "--scope", choices=("layer", "global"), default="layer",
        help="rank filters within their layer, so that all lose the same share, or in the whole network, relative to "
        "the mean of their layer (default: layer)",
    )  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--ratio", type=share, metavar="R", help=f"share of the filters to remove (default: {USUAL_RATIO})"
    )
    size.add_argument("--macs", type=share, metavar="M", help="share of the multiply-adds to keep")
    parser.add_argument(
        "--multiple", type=number, default=8, metavar="N",
        help="layers keep a multiple of N filters, since processors work on so many at once: 16 gains more speed, 1 "
        "takes the share to the letter (default: 8)",
    )  # fmt: skip
    parser.add_argument(
        "--finetune", type=number, metavar="EPOCHS",
        help=f"train the result so long, at a {GENTLER}th of the recipe's learning rate unless {RATE} is given",
    )  # fmt: skip
    parser.add_argument(
        "--compare", metavar="RUN", help="prune nothing, but add the training in the folder RUN to the table in --out"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def share(text: str) -> float:
    """The number between 0 and 1 that an option gives; argparse calls it by the name of this function."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: above 0 and below 1")
    return value


def run(args: argparse.Namespace) -> str:
    """What the command line asks for; the text of the report.  Fine-tuning that was stopped goes on."""
    cfg = load_config(args.cfg, args.overrides)
    folder = Path(os.path.expanduser(args.out or Path(cfg.EXP_DIR) / "pruned"))
    earlier = _earlier_facts(folder)
    if args.compare is not None:
        return _compare(cfg, folder, earlier, args)
    cfg.TEST.CHECKPOINT = str(args.checkpoint or checkpoints_to_test(cfg)[-1][1])
    ratio = USUAL_RATIO if args.ratio is None and args.macs is None else args.ratio
    wish = Wish(args.norm, args.scope, ratio, args.macs, args.multiple)
    facts = _facts(wish, cfg.TEST.CHECKPOINT)
    goes_on = args.finetune is not None and (folder / FINETUNED).exists() and facts.items() <= earlier.items()
    if not goes_on:
        _check_folder(folder, earlier)
    test = NetworkTest(copy.deepcopy(cfg))
    if not goes_on:
        prune_checkpoint(test, wish, folder)
        text = write_report(test, folder)
        if args.finetune is None:
            return f"{text}\n\n{_next_step(args, folder)}"
        log.info("%s", text)
    keeps_rate = any(word.startswith(f"{RATE}=") for word in args.overrides)
    return write_report(test, folder, fine_tune(cfg, folder / CHECKPOINT, args.finetune, keeps_rate))


def _facts(wish: Wish, path) -> dict:
    """What the entry "pruned" of a checkpoint says of what was asked for."""
    return {key: value for key, value in wish._asdict().items() if value is not None} | {
        "from": str(Path(path).resolve())
    }


def _earlier_facts(folder: Path) -> dict:
    """The entry "pruned" of what an earlier pruning has left in a folder; empty without one."""
    path = folder / CHECKPOINT
    return ckpt.read_checkpoint(path).get("pruned", {}) if path.is_file() else {}


def _compare(cfg, folder: Path, earlier: dict, args: argparse.Namespace) -> str:
    """The report of an earlier pruning with a training in it."""
    given = [name for name in ("checkpoint", "ratio", "macs", "finetune") if getattr(args, name) is not None]
    if given:
        raise UserError(f"--compare: nothing is pruned or trained with it, so leave --{given[0]} out")
    if not earlier:
        raise UserError(f"--compare: {folder} holds no {CHECKPOINT}; give the folder of an earlier pruning as --out")
    last = ckpt.last_checkpoint(Path(os.path.expanduser(args.compare)))
    if last is None:
        raise UserError(f"--compare {args.compare}: holds no checkpoint; give the EXP_DIR of a training")
    if ckpt.read_checkpoint(last).get("pruned") != earlier:
        raise UserError(f"--compare {args.compare}: {last.name} is not of a run that began with {folder / CHECKPOINT}")
    cfg.TEST.CHECKPOINT = earlier["from"]
    return write_report(NetworkTest(cfg), folder, last)


def _check_folder(folder: Path, earlier: dict) -> None:
    """UserError for a folder in which something would be lost."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; give a folder")
    if (folder / FINETUNED).exists():
        raise UserError(
            f"--out {folder}: holds the training of an earlier pruning; give another folder, or --compare "
            f"{folder / FINETUNED} for its table"
        )
    if folder.is_dir() and any(folder.iterdir()) and not earlier:
        raise UserError(f"--out {folder}: holds other files; give a new folder, or one of an earlier pruning")


def _next_step(args: argparse.Namespace, folder: Path) -> str:
    words = "".join(f" {word}" for word in args.overrides if not word.startswith(("EXP_DIR=", "PHASE=")))
    return (
        f"to win back what was lost: train.py --cfg {args.cfg} --phase train{words} "
        f"RESUME_CHECKPOINT={folder / CHECKPOINT} EXP_DIR={folder / FINETUNED}, with fewer TRAIN.MAX_EPOCHS and a "
        f"smaller {RATE} than the recipe's; then this tool with --out {folder} --compare {folder / FINETUNED}"
    )


def main(argv=None) -> int:
    """Entry point: print the report; returns 0, or 2 after one line about a mistake in the input."""

    def body() -> int:
        setup_logging()
        print(run(create_parser().parse_intermixed_args(argv)))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())

"""The command line that all scripts share: --cfg FILE, --phase, --resume, --print-config and KEY=VALUE words."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from easydict import EasyDict

from ..utils.errors import UserError, nearest
from .describe import describe_schema
from .effective import dump_config
from .loader import load_config

CONFIG_FOLDER = Path("experiments/cfgs")

EPILOG = """\
examples:
  --cfg experiments/cfgs/x.yml                              run the phases of the file
  --cfg experiments/cfgs/x.yml --phase test                 only score the trained model
  --cfg x.yml TRAIN.BATCH_SIZE=16 DATASET.CLASSES=cat,dog   change keys for this run
  --cfg x.yml 'MODEL.IMAGE_SIZE=[300, 500]' --print-config  show what would be run

--help-config lists every key with its default and its meaning.
"""


class CommandLineParser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, a UserError, instead of the usage and an exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"command line: {message}; --help shows the options")


class _HelpConfig(argparse.Action):
    """Prints the keys of the schema and exits, like --help."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None):
        sys.stdout.write(describe_schema())
        parser.exit(0)


def add_config_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the shared options to `parser`, and examples to the end of its help; returns it."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{parser.epilog}\n\n{EPILOG}" if parser.epilog else EPILOG
    group = parser.add_argument_group("configuration")
    group.add_argument("--cfg", metavar="FILE", help="YAML file of the run, such as those in experiments/cfgs")
    group.add_argument("--phase", metavar="PHASES", help="train, eval, test, visualize, or a comma list of them")
    group.add_argument("--resume", metavar="PATH", help="continue from this checkpoint (TRAIN.RESUME)")
    group.add_argument("--print-config", action="store_true", help="print the effective configuration and exit")
    group.add_argument("--help-config", action=_HelpConfig, help="list every key of the configuration and exit")
    group.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="key to change, such as TRAIN.BATCH_SIZE=16")
    return parser


def parse_config_arguments(
    parser: argparse.ArgumentParser, argv: list[str] | None = None, required: bool = True
) -> tuple[argparse.Namespace, EasyDict]:
    """The arguments of `parser`, to which add_config_arguments was applied, and the configuration they ask for.

    `argv` None is the command line.  Without `required`, a missing --cfg means the defaults.  Exits 0 after
    --print-config and --help-config; raises UserError for an unknown option and for mistakes in the configuration.
    """
    args, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        option = unknown[0].partition("=")[0]
        hint = f"keys have no dashes: {option.lstrip('-')}=VALUE" if "." in option else _nearest_option(parser, option)
        raise UserError(f"command line: {option}: unknown option; {hint}")
    for word in args.overrides:
        if "=" not in word and word.endswith((".yml", ".yaml")):
            raise UserError(f"command line: '{word}' is a file; give it as --cfg {word}")
        if "=" not in word and Path(word).exists():
            raise UserError(f"command line: '{word}': a path that no option takes; for several files give their folder")
    if args.cfg is None and required:
        raise UserError(f"command line: --cfg FILE is missing{_example_files()}")
    if args.cfg and not Path(args.cfg).exists() and (CONFIG_FOLDER / Path(args.cfg).name).is_file():
        raise UserError(f"{args.cfg}: no such file; did you mean '{CONFIG_FOLDER / Path(args.cfg).name}'?")
    overrides = list(args.overrides)
    overrides += [f"PHASE={args.phase}"] if args.phase is not None else []
    overrides += [f"TRAIN.RESUME={args.resume}"] if args.resume is not None else []
    cfg = load_config(args.cfg, overrides)
    if args.print_config:
        changed = "".join(f" {word}" for word in overrides)
        sys.stdout.write(f"# Effective configuration of {args.cfg or 'the defaults'}{changed}\n{dump_config(cfg)}")
        parser.exit(0)
    return args, cfg


def _nearest_option(parser: argparse.ArgumentParser, option: str) -> str:
    names = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    return nearest(f"--{option.lstrip('-')}", names)


def _example_files() -> str:
    folders = [CONFIG_FOLDER, Path(__file__).resolve().parents[2] / CONFIG_FOLDER]
    for folder in folders:
        names = sorted(folder.glob("*.yml"))
        if names:
            more = ", ".join(path.name for path in names[1:4])
            return f", for example --cfg {names[0]}" + (f" (also there: {more})" if more else "")
    return ", for example --cfg experiments/cfgs/x.yml"

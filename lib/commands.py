"""The commands train and demo, as the scripts of a checkout and the console commands of an installation run them."""

import os
import re
import sys
from collections.abc import Callable

import cv2
import torch

from .config.arguments import CommandLineParser, add_config_arguments, parse_config_arguments
from .demo_command import run_demo
from .solver.replay import replay
from .solver.solver import Solver
from .solver.train_state import Stopped
from .utils.address import hide_password
from .utils.errors import UserError
from .utils.log import setup_logging
from .utils.video import quiet_video_libraries

REPLAY_HELP = "run the step that EXP_DIR/replay/step_N.pth holds again, say why it was not finite, and exit"


def train(argv: list[str] | None = None) -> int:
    """Run the phases of a configuration; returns the exit status."""

    def body() -> int:
        setup_logging()
        replayed = _replay_file(argv)
        if replayed is not None:
            replay(replayed)
            return 0
        parser = CommandLineParser(prog="train.py", description="Train, evaluate, test or visualize a detector.")
        parser.add_argument("--replay", metavar="FILE", help=REPLAY_HELP)
        _, cfg = parse_config_arguments(add_config_arguments(parser), argv)
        Solver(cfg).run()
        return 0

    return run_command(body)


def demo(argv: list[str] | None = None) -> int:
    """Draw a detector's findings on images or videos, or time it; returns the exit status."""

    def body() -> int:
        setup_logging()
        quiet_video_libraries()
        return run_demo(argv)

    return run_command(body)


def run_command(body: Callable[[], int]) -> int:
    """Run a command so that whatever a user can cause ends in one line on stderr: 2 for mistakes of the input, 1 for
    a failed run, 130 or 143 for a stop by signal."""
    # OpenCV would add a warning of its own to the line about an image that it cannot read.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return body()
    except UserError as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        message = shortage(error)
        if not message:
            raise
        return _fail(message, 1)
    except Stopped as stop:
        return _fail(str(stop), stop.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no second error at exit
        return 141
    except OSError as error:  # a full disk, a folder that became unwritable
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)


def shortage(error: Exception) -> str:
    """What to say of an error that comes from too small a machine; '' for an error of the program."""
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        found = re.search(r"ried to allocate ([\d.]+ \w+)", text)
        wanted = f" (tried to allocate {found[1]})" if found else ""
        return f"out of memory{wanted}; a smaller TRAIN.BATCH_SIZE, TEST.BATCH_SIZE or MODEL.IMAGE_SIZE needs less"
    if text.startswith("DataLoader worker"):
        return f"{text.splitlines()[0].strip()} Fewer DATASET.NUM_WORKERS need less memory; 0 loads in the main process"
    return ""


def _fail(message: str, status: int) -> int:
    message = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in hide_password(message))
    sys.stdout.flush()
    sys.stderr.write(f"error: {message}\n" if status < 128 else f"{message}\n")
    return status


def _replay_file(argv: list[str] | None) -> str | None:
    """The file of --replay, which stands alone because the file holds the configuration; None without the option."""
    parser = CommandLineParser(prog="train.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--replay", metavar="FILE", help=REPLAY_HELP)
    args, others = parser.parse_known_args(argv)
    if args.replay is not None and others:
        raise UserError(f"command line: --replay FILE stands alone, the file holds its configuration; not {others[0]}")
    return args.replay

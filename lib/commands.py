"""The commands train and demo, as the scripts of a checkout and the console commands of an installation run them."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

import cv2

from .config.arguments import CommandLineParser, add_config_arguments, parse_config_arguments
from .demo_command import run_demo
from .solver.replay import replay
from .solver.solver import Solver
from .solver.train_state import Stopped
from .utils.address import hide_password
from .utils.device import select_device
from .utils.distributed import EndedElsewhere, is_loss_of_others, joined, launched_rank, num_launched, rank, world_size
from .utils.errors import UserError, one_line
from .utils.log import setup_logging
from .utils.shortage import lacks_memory
from .utils.signals import Terminated, raising_terminated
from .utils.video import quiet_video_libraries

logger = logging.getLogger(__name__)

COLLECTIVE_SECONDS = 3600
"""How long one process waits for the others, which may be scoring a large data set."""
HEARD_SECONDS = 10
"""How long one that fails waits before it says so: if the main one has the same to say, torchrun ends it before."""

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
        with joined(select_device(cfg.DEVICE), COLLECTIVE_SECONDS):
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
        # One of several may wait for others in a call that no exception can leave.
        with raising_terminated() if num_launched() == 1 else nullcontext():
            return body()
    except UserError as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except EndedElsewhere as end:
        return end.exit_status
    except (MemoryError, RuntimeError, cv2.error) as error:
        message = shortage(error)
        if is_loss_of_others(error):
            message = f"process {rank()} of {world_size()} stops, since another one has ended"
        if not message:
            raise
        return _fail(message, 1)
    except Stopped as stop:
        return _fail(str(stop), stop.exit_status)
    except Terminated:
        return _fail("stopped by SIGTERM", 143)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no second error at exit
        return 141
    except OSError as error:  # a full disk, a folder that became unwritable
        return _fail(shortage(error) or f"{error.filename or 'the system'}: {error.strerror or error}", 1)


def shortage(error: Exception) -> str:
    """What to say of an error that comes from too small a machine; '' for an error of the program."""
    if not lacks_memory(error):
        return ""
    found = re.search(r"(?:ried|nable) to allocate ([\d.]+ \w+)", str(error))
    wanted = f" (tried to allocate {found[1]})" if found else ""
    return (
        f"out of memory{wanted}; halve TRAIN.BATCH_SIZE and double TRAIN.ACCUMULATE, or lower TEST.BATCH_SIZE or "
        "MODEL.IMAGE_SIZE"
    )


def _fail(message: str, status: int) -> int:
    if launched_rank():
        time.sleep(HEARD_SECONDS)
        message = f"process {launched_rank()}: {message}"
    message = one_line(hide_password(message))
    logger.debug("ended with status %d: %s", status, message)
    with suppress(OSError):  # they may go to the disk that is full
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

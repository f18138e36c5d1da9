"""Score a results file against the ground truth of a data set, without a model."""

import logging
import sys

import torch

from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..dataset.dataset_factory import create_records
from ..evaluation import Protocols, load_results, written_id
from ..solver.protocols import create_protocols
from ..structures import Detections
from ..utils.errors import UserError
from ..utils.log import setup_logging
from .reports import program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.score")

NO_DETECTIONS = Detections(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64))


def read_detections(records, path, set_name: str = "test") -> dict[int, Detections]:
    """The detections of the results file `path` by the number of their image in `records` (DetectionRecords), in the
    order of the file; class names are those of the records.

    An image is named as the test phase does or, of COCO's data sets, by its number.  Images without entries are left
    out, and how many they are is logged.  UserError for a file with an image that the records do not hold, or whose
    classes are unknown to them.
    """
    index_of = {}
    for index in range(len(records)):
        image_id = written_id(records.image_id(index))
        if index_of.setdefault(image_id, index) != index:
            raise UserError(f"two images of the {set_name} sets are named {image_id!r}: results cannot tell them apart")
    found = load_results(path, tuple(records.class_names), records.category_ids)
    if records.image_numbers is not None and not any(image_id in index_of for image_id in found):
        index_of = {number: index for index, number in enumerate(records.image_numbers.tolist())}
    for image_id in found:
        if image_id not in index_of:
            example = f", the first is {next(iter(index_of))!r}" if index_of else ""
            raise UserError(
                f"{path}: image {image_id!r} is not in the {set_name} sets ({len(index_of)} images{example}); "
                "--sets chooses eval, test or train"
            )
    if len(found) < len(index_of):
        log.warning("%s: %d of %d images have no detections in it", path, len(index_of) - len(found), len(index_of))
    return {index_of[image_id]: detections for image_id, detections in found.items()}


def score_results(protocols: Protocols, records, path, set_name: str = "test") -> Protocols:
    """The protocols, fed with the results file `path` over all images of `records` (DetectionRecords); UserErrors as in
    `read_detections`.  Images without entries count as images without detections."""
    found = read_detections(records, path, set_name)
    # Images in the order of the file, because equal scores rank in the order in which they come.
    for index in (*found, *(index for index in range(len(records)) if index not in found)):
        protocols.update([found.get(index, NO_DETECTIONS)], [records.target(index)])
    return protocols


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("score"),
        description="Score a results file (JSON as written by the test phase, COCO's results format) against the "
        "ground truth of the data set of a configuration, by the protocols of the test phase. No model is built.",
        epilog="example: %(prog)s --cfg x.yml --detections results.json DATASET.DATASET_DIR=./data/BCCD",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file that names the data set")
    parser.add_argument("--detections", required=True, metavar="FILE", help="results file to score")
    parser.add_argument(
        "--sets",
        choices=("eval", "test", "train"),
        default="test",
        help="score against the images of DATASET.EVAL_SETS, TEST_SETS or TRAIN_SETS (default: test)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def main(argv=None) -> int:
    """Entry point: print the tables of the test phase; returns 0, or 2 after one line about a mistake in the input."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        cfg = load_config(args.cfg, args.overrides)
        records = create_records(cfg, args.sets)
        protocols = score_results(create_protocols(cfg, records), records, args.detections, args.sets)
        print(protocols.tables(protocols.compute()))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())

"""Make an int8 ONNX file of a trained detector, and keep it only if it finds nearly what the fp32 file finds."""

import json
import logging
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..dataset.dataset_factory import create_records
from ..dataset.transforms import EvalTransform
from ..solver.protocols import create_protocols
from ..solver.run import checkpoints_to_test
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.log import setup_logging
from . import runner
from .export import RUNNER, Exported, export_model
from .export_gate import Refused, open_records
from .export_source import Source, load_source
from .export_tail import append_postprocess
from .onnx_metadata import load_model, read_metadata, require, write_metadata
from .onnx_session import OnnxDetector, read_batches, score_onnx
from .quantize_calibration import frame_feeds, image_feeds
from .quantize_graph import METHODS, num_int8_layers, quantize_graph
from .quantize_report import (
    BATCHES,
    Quantized,
    Side,
    batches_of,
    facts,
    format_markdown,
    format_report,
    measure_latency,
)
from .reports import number, program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.quantize")

LIMIT = 1.0
IMAGES = 100
PROVIDER = "CPUExecutionProvider"


def quantize(
    source: Source, out, images: int = IMAGES, method: str = "minmax", limit: float = LIMIT, threads: int | None = None,
    overwrite: bool = False,
) -> Quantized:  # fmt: skip
    """Write NAME_int8.onnx, NAME_int8_detect.onnx with decoding and NMS, the runner, and the report as .json and .md
    into the folder `out`; NAME is that of the checkpoints.

    Ranges are those that `images` images of the training set give by `method`, one of METHODS.  Where the file with NMS
    loses more than `limit` points of mAP on the test set against the fp32 file, both are called *.refused.onnx.
    UserError for files in the way, unless `overwrite`, for missing data, and for interleaved detectors; Refused where
    the fp32 file itself does not do what the detector does.
    """
    out, name = Path(out), f"{source.cfg.CHECKPOINTS_PREFIX}_int8"
    _check_kind(source)
    _check_folder(out, name, overwrite)
    threads = threads or torch.get_num_threads()
    test, train = open_records(source), _open_training_set(source)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".quantize_") as folder:
        before = export_model(source, Path(folder) / "fp32", None)
        after, about = _write_int8(source, before, train, images, method, Path(folder) / name)
        paths = {"fp32": before.detect[0], "int8": after.detect[0]}
        about |= {"provider": PROVIDER, "threads": threads, "test_images": len(test), "tested_on": test.name}
        result = _measure(source, paths, test, limit, about)
        ending = "onnx" if result.is_within else "refused.onnx"
        for path in (*after.raw, *after.detect):
            os.replace(path, out / f"{path.stem}.{ending}")
    result.int8.path = out / f"{after.detect[0].stem}.{ending}"
    shutil.copyfile(runner.__file__, out / RUNNER)
    write_whole(out / f"{name}.json", json.dumps(facts(result), indent=1, ensure_ascii=False) + "\n")
    write_whole(out / f"{name}.md", format_markdown(result))
    return result


def _check_kind(source: Source) -> None:
    if source.extractors:
        raise UserError(
            f"MODEL.SSDS: {source.cfg.MODEL.SSDS} is not quantised: it is exported as two files that share a memory, "
            "whose ranges would have to be found on videos through both of them in turn; the fp32 files work"
        )


def _check_folder(out: Path, name: str, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; give a folder")
    taken = sorted(path.name for path in out.glob(f"{name}*")) if out.is_dir() else []
    runner_there = out / RUNNER
    if runner_there.exists() and runner_there.read_bytes() != Path(runner.__file__).read_bytes():
        taken.append(RUNNER)
    if taken and not overwrite:
        raise UserError(f"--out {out}: holds {taken[0]} already; --overwrite replaces it, or give another folder")


def _open_training_set(source: Source):
    try:
        return create_records(source.cfg, "train", source.class_names)
    except UserError as error:
        raise UserError(f"calibrating needs images of the training set: {error}") from None


def _write_int8(source: Source, before: Exported, records, images: int, method: str, stem: Path):
    """(files in int8 as STEM.onnx and STEM_detect.onnx, what was done for the report) of the fp32 files `before`."""
    onnx = require("onnx")
    model, size, seed = load_model(before.raw[0]), source.cfg.MODEL.IMAGE_SIZE, source.cfg.SEED
    log.info("calibrating by %s on images of %s", method, records.name)
    choose = partial(frame_feeds, model) if source.model.is_recurrent else image_feeds
    feeds = choose(records, size, images, seed)
    raw = quantize_graph(model, feeds, method)
    in_int8, layers = num_int8_layers(raw)
    about = {
        "quantized": source.checkpoint.name,
        "method": method,
        "images": len(feeds),
        "calibrated_on": records.name,
        "seed": seed,
        "int8_layers": in_int8,
        "layers": layers,
    }
    paths = []
    for content, path in zip(
        (raw, append_postprocess(raw, source.rules)), (before.raw[0], before.detect[0]), strict=True
    ):
        write_metadata(content, read_metadata(load_model(path)) | {"int8": about})
        paths.append(stem.with_name(path.name.replace(before.raw[0].stem, stem.name)))
        onnx.save(content, str(paths[-1]))
    return Exported([paths[0]], [paths[1]], {}), about


def _measure(source: Source, paths: dict[str, Path], records, limit: float, about: dict) -> Quantized:
    """Accuracy and latency of the files with NMS, by "fp32" and "int8"."""
    protocols = create_protocols(source.cfg, records, whole=False)
    batch = next(read_batches(records, max(BATCHES), max(BATCHES)))
    pixels = batches_of([EvalTransform(source.cfg.MODEL.IMAGE_SIZE).resize(image) for image in batch.images])
    detectors = {name: OnnxDetector(path, about["threads"]) for name, path in paths.items()}
    latency = measure_latency(
        {name: {count: partial(it.run, these) for count, these in pixels.items()} for name, it in detectors.items()}
    )
    sides = {}
    for name, path in paths.items():
        log.info("scoring %s on %d images of %s", name, len(records), records.name)
        figures = score_onnx(path, source.cfg, records)
        if figures["mAP"] != figures["mAP"]:
            raise UserError(f"{records.name} holds no object that counts, so there is no mAP to compare")
        per_class = {label: figures[f"{protocols.main}/{label}"] for label in protocols.class_names}
        sides[name] = Side(path, path.stat().st_size / 1e6, figures["mAP"], per_class, latency[name])
    return Quantized(sides["fp32"], sides["int8"], limit, protocols.legend([protocols.main])["mAP"], about)


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("quantize"),
        description="Make an int8 ONNX file of a trained detector, with ranges found on images of the training set, "
        "and compare it with the fp32 file: size, latency, mAP on the test set. Where it loses too much the exit "
        "status is 1 and the file is called *.refused.onnx.",
        epilog="example: %(prog)s --cfg x.yml --images 200 --limit 0.5",
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights; otherwise those the test phase would take")
    parser.add_argument("--out", metavar="DIR", help="folder of the files (EXP_DIR/int8)")
    parser.add_argument(
        "--images", type=number, default=IMAGES, metavar="N",
        help="calibrate on N random images of the training set; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0],
        help="how the range of a map follows from its values; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="POINTS",
        help="points of mAP (hundredths) that may be lost; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=number, metavar="N", help="of the processor while latency is measured; default: as torch has"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier quantisation")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def main(argv=None) -> int:
    """Entry point: print the table; returns 0, 1 where a file is refused, or 2 after one line about a mistake."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package)
        cfg = load_config(args.cfg, args.overrides)
        source = load_source(cfg, args.checkpoint or checkpoints_to_test(cfg)[-1][1])
        out = Path(args.out or Path(cfg.EXP_DIR) / "int8")
        try:
            result = quantize(source, out, args.images, args.method, args.limit, args.threads, args.overwrite)
        except Refused as refusal:
            log.error("refused: %s", refusal)
            return 1
        print(format_report(result))
        print(f"written: {result.int8.path} and others in {out}")
        return 0 if result.is_within else 1

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())

"""Export a trained detector as ONNX files that are proven to find what it finds."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..api import find_checkpoint
from ..commands import run_command
from ..config import CommandLineParser, load_config
from ..config.effective import dump_config
from ..dataset.detection import DetectionRecords
from ..solver.run import checkpoints_to_test
from ..utils.errors import UserError
from ..utils.log import setup_logging
from . import runner
from .export_gate import Refused, gate, open_records
from .export_source import Source, load_source
from .export_tail import append_postprocess
from .export_trace import INPUT, OPSET, state_names, trace
from .onnx_metadata import FORMAT, require, write_metadata
from .reports import program

# Not __name__: that is __main__ when the tool is started with -m, outside the log of the package.
log = logging.getLogger(f"{__package__}.export")

FEW = 16
"""Images on which the detections of the raw file are compared, too, before those of the other on all."""
RUNNER = "detect.py"


class Exported(NamedTuple):
    """The files of an export, of an interleaved detector one of each kind for each extractor, and the figures of the
    comparison with torch."""

    raw: list[Path]
    detect: list[Path]
    figures: dict


def export_model(
    source: Source,
    out,
    records: DetectionRecords | None,
    images: int | None = None,
    dynamic_size: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write NAME.onnx, NAME_detect.onnx and the runner into the folder `out`, once they have passed the gate; NAME is
    that of the checkpoints, of an interleaved detector with _large or _small behind it.

    records and images are as in `gate`.  UserError where files are in the way, unless `overwrite`, and for what cannot
    be exported.  After a refusal (Refused) the files stay as NAME.onnx.refused.
    """
    out, stem = Path(out), source.cfg.CHECKPOINTS_PREFIX
    stems = [f"{stem}_{extractor}" for extractor in source.extractors] or [stem]
    raw, detect = ([f"{name}{kind}.onnx" for name in stems] for kind in ("", "_detect"))
    _refuse_to_overwrite(out, [*raw, *detect, RUNNER], overwrite)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export_") as folder:
        folder = Path(folder)
        for extractor, *names in zip(source.extractors or (None,), raw, detect, strict=True):
            _write_pair(source, extractor, dynamic_size, folder, *names)
        try:
            figures = gate(source, folder / raw[0], records, min(FEW, images or FEW))
            figures = {"raw": figures["raw"]} | gate(source, folder / detect[0], records, images)
        except Refused:
            for name in (*raw, *detect):
                os.replace(folder / name, out / f"{name}.refused")
            raise
        for name in (*raw, *detect):
            _add_score(folder / name, figures)
            os.replace(folder / name, out / name)
    shutil.copyfile(runner.__file__, out / RUNNER)
    return Exported([out / name for name in raw], [out / name for name in detect], figures)


def _refuse_to_overwrite(out: Path, names: list[str], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; give a folder")
    taken = [name for name in names if (out / name).exists()]
    if RUNNER in taken and (out / RUNNER).read_bytes() == Path(runner.__file__).read_bytes():
        taken.remove(RUNNER)
    if taken and not overwrite:
        raise UserError(f"--out {out}: holds {taken[0]} already; --overwrite replaces it, or give another folder")


def _write_pair(source: Source, extractor: str | None, dynamic_size: bool, folder: Path, raw: str, detect: str) -> None:
    """Trace one graph and write it without and with the tail."""
    onnx = require("onnx")
    graph = source.graph(extractor, dynamic_size)
    model = trace(graph, dynamic_size)
    names = {"raw": raw, "detect": detect}
    models = {"raw": model, "detect": append_postprocess(model, source.rules)}
    for kind, content in models.items():
        write_metadata(content, _facts(source, graph.state_shapes(), kind, dynamic_size))
        if extractor is not None:
            write_metadata(content, {"interleaved": _about_interleaved(source, extractor, names[kind])})
        onnx.save(content, str(folder / names[kind]))


def _facts(source: Source, state_shapes, kind: str, dynamic_size: bool) -> dict:
    """What a file says of itself; docs/export.md explains it."""
    cfg, packages = source.cfg, ("onnx", "onnxscript", "onnxruntime")
    before, after = state_names(len(state_shapes))
    return {
        "format": FORMAT,
        "kind": kind,
        "class_names": list(source.class_names),
        "input": {
            "name": INPUT, "type": "uint8", "layout": "batch, height, width, channel", "color_order": "BGR",
            "size": list(cfg.MODEL.IMAGE_SIZE), "resize": "bilinear (cv2.INTER_LINEAR)", "dynamic_size": dynamic_size,
        },
        "inside": {
            "color_order": cfg.DATASET.COLOR_ORDER,
            "means": list(cfg.DATASET.PIXEL_MEANS),
            "stds": list(cfg.DATASET.PIXEL_STDS),
        },
        "post_process": {**vars(source.rules), "variance": list(source.rules.variance)},
        "picture_threshold": cfg.TEST.PICTURE_THRESHOLD,
        "exif": cfg.DATASET.EXIF,
        "state": [
            {"input": name, "output": new, "type": "float32", "shape": list(shape), "first": 0.0}
            for name, new, shape in zip(before, after, state_shapes, strict=True)
        ],
        "checkpoint": source.checkpoint.name,
        "versions": {"ssds": _version("ssds"), "torch": torch.__version__, "opset": OPSET}
        | {name: _version(name) for name in packages},
        "config": dump_config(cfg),
    }  # fmt: skip


def _about_interleaved(source: Source, extractor: str, name: str) -> dict:
    """Which extractor a file has, when it runs, and the files of the others."""
    policy = source.model.backbone.policy
    others = {other: name.replace(f"_{extractor}", f"_{other}") for other in source.extractors if other != extractor}
    kind = "fixed" if policy.kind == "async" else policy.kind
    return {
        "extractor": extractor, "others": others, "policy": kind, "interval": policy.interval,
        "threshold": policy.threshold,
    }  # fmt: skip


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _add_score(path: Path, figures: dict) -> None:
    """Put what the gate has measured into the metadata of a file."""
    onnx = require("onnx")
    model = onnx.load(str(path))
    known = {key: value for key, value in figures.items() if not isinstance(value, float) or np.isfinite(value)}
    write_metadata(model, {"measured": known})
    onnx.save(model, str(path))


def create_parser() -> CommandLineParser:
    """The command line of this tool."""
    parser = CommandLineParser(
        prog=program("export"),
        description="Write a trained detector as ONNX files, without and with decoding and NMS, and a runner that "
        "needs no torch. Files are kept only if onnxruntime finds in the test set what torch finds.",
        epilog="example: %(prog)s --cfg x.yml, or %(prog)s --checkpoint experiments/models/x for the folder of a run; "
        "docs/export.md says what is in the files",
    )
    parser.add_argument("--cfg", metavar="FILE", help="YAML file of the run; not needed where --checkpoint tells it")
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="weights, or the folder of a run; otherwise those the test phase would take",
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the files (EXP_DIR/export)")
    parser.add_argument(
        "--images",
        type=count,
        metavar="N",
        help="compare on the first N test images only; 0: on noise, without a data set",
    )
    parser.add_argument("--dynamic-size", action="store_true", help="let the files take images of any size")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier export")
    parser.add_argument("--check", metavar="FILE", help="only compare this ONNX file with the detector; writes nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys to change")
    return parser


def count(text: str) -> int:
    """The number that --images gives; argparse calls it by the name of this function."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: 0 and more")
    return value


def _find_source(args) -> Source:
    """The detector that the command line names."""
    if args.cfg is None and args.checkpoint is None:
        raise UserError("command line: --cfg FILE or --checkpoint PATH is missing")
    cfg = None if args.cfg is None else load_config(args.cfg, args.overrides)
    if args.checkpoint is None:
        return load_source(cfg, checkpoints_to_test(cfg)[-1][1])
    given = Path(os.path.expanduser(args.checkpoint))
    cfg, checkpoint = find_checkpoint(given, cfg)
    if given.is_dir():  # wherever it was trained
        cfg.EXP_DIR = str(given)
    if args.cfg is None and args.overrides:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.yml"
            path.write_text(dump_config(cfg), encoding="utf-8")
            cfg = load_config(path, args.overrides)
    return load_source(cfg, checkpoint)


def _report(figures: dict, what: str) -> None:
    """Say how near the file comes to torch."""
    limits = figures["limits"]
    if "raw" in figures:
        errors = ", ".join(f"{name} {error:.1e}" for name, error in figures["raw"].items())
        log.info("raw outputs: largest difference in parts of the largest value: %s (limit %g)", errors, limits["raw"])
    log.info(
        "detections: %d on %d images; corners differ by up to %.4f pixels of the input (limit %g), scores by %.1e "
        "(limit %g); %d at a threshold are found by one side alone", figures["detections"], figures["images"],
        figures["box"], limits["box"], figures["score"], limits["score"], figures["borderline"],
    )  # fmt: skip
    if "mAP" in figures:
        log.info("mAP %.4f, torch %.4f (limit %g; %s)", figures["mAP"], figures["mAP_torch"], limits["map"],
                 figures["metric"])  # fmt: skip
    log.info("%s", what)


def main(argv=None) -> int:
    """Entry point; returns 0, 1 where a file is refused, or 2 after one line about a mistake in the input."""

    def body() -> int:
        setup_logging()
        args = create_parser().parse_intermixed_args(argv)
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package)
        source = _find_source(args)
        records = None if args.images == 0 else open_records(source)
        try:
            if args.check:
                _report(gate(source, args.check, records, args.images), f"{args.check}: finds what torch finds")
                return 0
            out = Path(args.out or Path(source.cfg.EXP_DIR) / "export")
            done = export_model(source, out, records, args.images, args.dynamic_size, args.overwrite)
        except Refused as refusal:
            log.error("refused: %s", refusal)
            return 1
        sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in [*done.raw, *done.detect])
        _report(done.figures, f"written to {out}: {sizes}, {RUNNER}")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())

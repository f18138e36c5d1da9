"""The gate: an ONNX file passes only if onnxruntime finds what torch finds."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ..dataset.dataset_factory import create_records
from ..dataset.detection import DetectionRecords
from ..solver.protocols import create_protocols
from ..structures import Predictions
from ..utils.errors import UserError
from .export_source import Source
from .onnx_session import OnnxDetector, ReadBatch, read_batches
from .runner import State
from .same_detections import Limits, SameDetections

BATCHES = (1, 3)
STEPS = 4
"""Frames of the clips on which the states of recurrent detectors are compared."""
SEED = 0


class Refused(Exception):
    """An ONNX file does not do what the detector does: which file, and the first difference."""


def open_records(source: Source) -> DetectionRecords:
    """The test set of the source's configuration, with its classes."""
    records = create_records(source.cfg, "test", source.class_names)
    if source.class_names and tuple(records.class_names) != source.class_names:
        raise UserError(
            f"{records.name} has the classes {', '.join(records.class_names[:5])}, {source.checkpoint} "
            f"{', '.join(source.class_names[:5])}"
        )
    return records


def gate(
    source: Source, path, records: DetectionRecords | None, images: int | None = None, limits: Limits | None = None
) -> dict:
    """Compare an exported file with torch; raises Refused at the first difference beyond `limits`.

    path: a raw or a detect file, of an interleaved detector either of its two.  records: the images, None for random
    ones alone; images: how many of them, None for all.  Metadata must be the source's; raw outputs and states must
    agree on clips at several batch sizes (raw files), detections on every image, and mAP over them.  Returns the
    figures: "raw" by output, "images", "detections", "borderline", "box", "score", "mAP", "mAP_torch".
    """
    limits, path = limits or Limits(), Path(path)
    detector = OnnxDetector(path)
    _check_metadata(source, detector, path)
    figures = {"limits": asdict(limits)}
    if detector.kind == "raw":
        figures["raw"] = _compare_raw(source, detector, _samples(source, records), limits, path)
    if records is None:
        return figures | _compare_detections(source, detector, _noise(source), limits, path)
    for size in _other_sizes(detector):
        few = ((batch, None) for batch in islice(read_batches(records, max(BATCHES)), 1))
        _compare_detections(source, detector, few, limits, path, size)
    return figures | _compare_set(source, detector, records, images, limits, path)


def _check_metadata(source: Source, detector: OnnxDetector, path: Path) -> None:
    facts, model = detector.facts, source.cfg.MODEL
    expected = {
        "class_names": list(source.class_names),
        "post_process": {**vars(source.rules), "variance": list(source.rules.variance)},
    }
    for key, value in expected.items():
        if facts.get(key) != value:
            raise Refused(f"{path}: its metadata says {key} {facts.get(key)}, the detector has {value}")
    if facts["input"]["size"] != list(model.IMAGE_SIZE):
        raise Refused(f"{path}: its images are {facts['input']['size']}, the detector's {list(model.IMAGE_SIZE)}")
    if detector.is_recurrent != source.model.is_recurrent:
        raise Refused(f"{path}: one of the file and the detector has a memory, the other has none")


def _other_sizes(detector: OnnxDetector) -> list[tuple[int, int]]:
    """Sizes beside its own that a file of any size is tried with: larger, odd, of another shape."""
    if not detector.facts["input"]["dynamic_size"]:
        return []
    height, width = detector.facts["input"]["size"]
    return [(height * 3 // 2 + 1, width * 3 // 2 + 3), (height + 32, width)]


def _noise(source: Source) -> Iterator[tuple[ReadBatch, None]]:
    height, width = source.cfg.MODEL.IMAGE_SIZE
    rng = np.random.default_rng(SEED)
    for count in BATCHES:
        for begins in (True, False):
            images = list(rng.integers(0, 256, (count, height + 9, width + 5, 3), dtype=np.uint8))
            yield ReadBatch(list(range(count)), images, begins), None


def _samples(source: Source, records: DetectionRecords | None) -> np.ndarray:
    """uint8 [N, H, W, 3], BGR: images of the size of the network for a clip of the largest batch, real ones where there
    are any, and noise."""
    height, width = source.cfg.MODEL.IMAGE_SIZE
    rng, count = np.random.default_rng(SEED), max(BATCHES) * STEPS
    noise = list(rng.integers(0, 256, (count // 3, height, width, 3), dtype=np.uint8))
    batches = [] if records is None else read_batches(records, count - len(noise))
    real = [cv2.resize(image, (width, height)) for batch in batches for image in batch.images]
    pictures = [*real, *noise]
    return np.stack([pictures[i % len(pictures)] for i in range(count)])


def _compare_raw(source: Source, detector: OnnxDetector, samples: np.ndarray, limits: Limits, path: Path) -> dict:
    """The largest differences of raw outputs and states on clips, in parts of the largest value; by output."""
    errors: dict[str, float] = {}
    for size in [None, *_other_sizes(detector)]:
        sized = samples if size is None else np.stack([cv2.resize(image, size[::-1]) for image in samples])
        for count in BATCHES:
            steps = STEPS if detector.is_recurrent else 1
            theirs = ours = None
            for step, pixels in enumerate(np.split(sized[: count * steps], steps)):
                extractor = source.extractors[(step + 1) // 2 % len(source.extractors)] if source.extractors else None
                outputs, theirs = detector.run(pixels, _seen_by(theirs, extractor))
                predictions = source.run(pixels, source.state_as_seen_by(extractor, ours, count))
                ours = predictions.state
                found = dict(zip(("loc", "conf", "priors"), predictions[:3], strict=True))
                names = [name for name in outputs if name not in found]
                found |= dict(zip(names, source.flat_state(ours), strict=True))
                for name, value in found.items():
                    error = _difference(outputs[name], value.numpy())
                    errors[name] = max(errors.get(name, 0.0), error)
                    _check(error, limits.priors if name == "priors" else limits.raw, f"{path}: {name}", "from torch's")
    return errors


def _seen_by(state: State | None, extractor: str | None) -> State | None:
    """The state after which the next frame is one for this extractor."""
    if state is None or extractor is None:
        return state
    return state._replace(age=int(extractor == "small"), drift=0.0)


def _difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        return float("inf")
    return float(np.abs(theirs - ours).max() / max(np.abs(ours).max(), 1.0)) if ours.size else 0.0


def _compare_set(source: Source, detector: OnnxDetector, records, images, limits: Limits, path: Path) -> dict:
    """Detections on every image and mAP of the whole set."""
    sides = [create_protocols(source.cfg, records, whole=False) for _ in range(2)]
    batches = _scored(read_batches(records, images), records, sides)
    figures = _compare_detections(source, detector, batches, limits, path)
    expected, found = (side.compute()["mAP"] for side in sides)
    about = sides[0].legend([sides[0].main])["mAP"]
    if not np.isnan(expected):
        _check(abs(found - expected), limits.map, f"{path}: mAP {found:.4f}", f"from torch's {expected:.4f} ({about})")
    return figures | {"mAP": found, "mAP_torch": expected, "metric": about}


def _scored(batches, records, sides):
    """(batch, function that takes the detections of both) for each batch."""
    for batch in batches:
        targets = [records.target(index) for index in batch.indices]
        yield (
            batch,
            lambda *found, targets=targets: [
                side.update(those, targets) for side, those in zip(sides, found, strict=True)
            ],
        )


def _compare_detections(source: Source, detector: OnnxDetector, batches, limits: Limits, path: Path, size=None) -> dict:
    """Detections of both on the images of (batch, taker) pairs; `size` other than the network's own is (height,
    width)."""
    same = SameDetections(source.rules, size or source.cfg.MODEL.IMAGE_SIZE, limits)
    count, ours, theirs = 0, None, None
    for batch, take in batches:
        found, predictions = source.detect(batch.images, None if batch.begins else ours, size)
        others, theirs = detector.detect(batch.images, None if batch.begins else theirs, size)
        ours = predictions.state
        for i, image in enumerate(batch.images):
            raw = Predictions(predictions.loc[i], predictions.conf[i], predictions.priors)
            same.add(f"image {batch.indices[i]}", image.shape[:2], found[i], others[i], raw)
        if same.total.faults:
            raise Refused(f"{path}: {same.total.faults[0]}")
        count += len(batch.images)
        if take is not None:
            take(found, others)
    total = same.total
    if total.borderline > max(1, limits.borderline * total.detections):
        raise Refused(
            f"{path}: {total.borderline} detections of {total.detections} are found by one side alone, more than "
            f"thresholds explain ({limits.borderline:.0%})"
        )
    return {"images": count} | {name: getattr(total, name) for name in ("detections", "borderline", "box", "score")}


def _check(error: float, limit: float, what: str, of_what: str) -> None:
    if not error <= limit:
        raise Refused(f"{what} differs by {error:.3g} {of_what}, more than {limit:g}")

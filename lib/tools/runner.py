"""Runs an exported detector: python detect.py PATH ... on images, folders of images, and videos.

It needs Python 3.10, numpy, opencv-python and onnxruntime, and the NAME_detect.onnx beside it (both parts of an
interleaved detector), whose metadata says all the rest.  From Python:

>>> detector = Detector("NAME_detect.onnx")
>>> (found,) = detector.predict([cv2.imread("street.jpg")], threshold=0.5)
>>> print(found.names, found.scores, found.boxes)  # x1, y1, x2, y2 in pixels
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
OUTPUTS = {"detect": {"boxes", "scores", "labels", "counts"}, "raw": {"loc", "conf", "priors"}}
"""What each kind of file must have; and what its metadata must say."""
FACTS = {"class_names", "input", "post_process", "picture_threshold", "exif", "state"}


class Mistake(Exception):
    """Something wrong with what was given, in one line."""


class Found(NamedTuple):
    """Detections of an image, best first: boxes float32 [K, 4] as x1, y1, x2, y2 in its pixels, scores float32 [K],
    labels int64 [K] from 1, and the names of their classes."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]


class State(NamedTuple):
    """What a recurrent detector knows after a frame: its memories by name of the input, and for interleaved ones the
    frames since the large extractor ran (0: never) and the drift of the memory."""

    memories: dict
    age: int = 0
    drift: float = 0.0


class Detector:
    """An exported detector.  model: a file NAME_detect.onnx, of an interleaved detector either of the two; threads: of
    the processor, None for as many as onnxruntime likes; providers: those of onnxruntime, None for the processor."""

    def __init__(self, model, threads: int | None = None, providers: list[str] | None = None):
        try:
            import onnxruntime
        except ImportError:
            raise Mistake("onnxruntime is missing; pip install onnxruntime") from None
        self._runtime, self._options = onnxruntime, (threads, providers or ["CPUExecutionProvider"])
        first = self._open(Path(model))
        self.facts = {key: _parse(text) for key, text in first.get_modelmeta().custom_metadata_map.items()}
        self.kind = self.facts.get("kind")
        if self.kind not in OUTPUTS or FACTS - set(self.facts):
            raise Mistake(f"{model}: does not say what it is; give a NAME_detect.onnx as the export wrote it")
        missing = OUTPUTS[self.kind] - {output.name for output in first.get_outputs()}
        if missing:
            raise Mistake(f"{model}: has no output {' or '.join(sorted(missing))}")
        self.class_names = self.facts["class_names"]
        self.size = tuple(self.facts["input"]["size"])
        """(height, width) to which images are resized."""
        self.turn = self.facts["exif"] == "apply"
        """Whether photographs are turned as their EXIF data says."""
        self._states = self.facts["state"]
        self._interleaved = self.facts.get("interleaved")
        self._sessions = {self._interleaved["extractor"] if self._interleaved else "all": first}
        for name, file in (self._interleaved or {}).get("others", {}).items():
            self._sessions[name] = self._open(Path(model).with_name(file))

    @property
    def is_recurrent(self) -> bool:
        """Whether it remembers the frames of a video."""
        return bool(self._states)

    def resize_to(self, size) -> None:
        """Let images be resized to another (height, width) from now on, where the file was exported for that."""
        if not self.facts["input"]["dynamic_size"]:
            raise Mistake("this file has one size, {} x {}; export with --dynamic-size for others".format(*self.size))
        self.size = tuple(size)

    def read(self, path) -> np.ndarray:
        """An image file as uint8 BGR [H, W, 3]."""
        flags = cv2.IMREAD_COLOR if self.turn else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
        except (OSError, cv2.error):
            image = None
        if image is None:
            raise Mistake(f"{path}: cannot be read as an image")
        return image

    def predict(self, images, threshold: float = 0.0) -> list[Found]:
        """Detections of images uint8 BGR [H, W, 3], each by itself, with scores of at least `threshold`."""
        return self.step(images, None, threshold)[0] if len(images) else []

    def step(self, images, state: State | None, threshold: float = 0.0) -> tuple[list[Found], State | None]:
        """Detections of the next frame of each of several videos, and the state after it; a state of None begins.  The
        frames of an interleaved detector are seen by one extractor, which the first video chooses."""
        if self.kind != "detect":
            raise Mistake("the raw network gives no detections; NAME_detect.onnx does")
        pixels = np.stack([cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_LINEAR) for image in images])
        outputs, state = self.run(pixels, state)
        return [self._found(outputs, i, image.shape, threshold) for i, image in enumerate(images)], state

    def run(self, pixels: np.ndarray, state: State | None = None) -> tuple[dict, State | None]:
        """(outputs of the file by name, state after it) of images uint8 BGR [B, height, width, 3] of the right size."""
        state = self._begin(len(pixels)) if state is None else state
        extractor = self._choose(state)
        session = self._sessions[extractor]
        names = [output.name for output in session.get_outputs()]
        try:
            outputs = dict(zip(names, session.run(None, {"images": pixels, **state.memories}), strict=True))
        except Exception as error:
            raise Mistake(f"onnxruntime cannot run the file: {str(error).splitlines()[0]}") from None
        if not self.is_recurrent:
            return outputs, None
        memories = {entry["input"]: outputs[entry["output"]] for entry in self._states}
        age = 1 if extractor == "large" else state.age + (state.age > 0)
        drift = float(outputs["drift"][0]) if "drift" in outputs else 0.0
        return outputs, State(memories, age, drift)

    def _open(self, path: Path):
        if not path.is_file():
            raise Mistake(f"{path}: no such file")
        threads, providers = self._options
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the processor to others
        if threads:
            options.intra_op_num_threads = threads
        try:
            return self._runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise Mistake(f"{path}: onnxruntime cannot open it: {str(error).splitlines()[0]}") from None

    def _begin(self, count: int) -> State:
        return State({entry["input"]: np.zeros((count, *entry["shape"]), np.float32) for entry in self._states})

    def _choose(self, state: State) -> str:
        """The extractor for the next frame."""
        if len(self._sessions) == 1:
            return next(iter(self._sessions))
        rule = self._interleaved
        due = state.age == 0 or state.age > rule["interval"]
        due = due or (rule["policy"] == "adaptive" and state.drift > rule["threshold"])
        return "large" if due else "small"

    def _found(self, outputs: dict, index: int, shape, threshold: float) -> Found:
        height, width = shape[:2]
        count = int(outputs["counts"][index])
        boxes, scores, labels = (outputs[name][index][:count] for name in ("boxes", "scores", "labels"))
        limit = np.float32([width, height, width, height])
        boxes = np.clip(boxes * limit, 0, limit)
        kept = scores >= threshold
        names = self.class_names
        texts = [names[label - 1] if label <= len(names) else str(label) for label in labels[kept].tolist()]
        return Found(boxes[kept], scores[kept], labels[kept], texts)


def to_entries(found: Found, image_id: str) -> list[dict]:
    """Detections as entries of a results file: COCO's form, bbox as x, y, width, height."""
    boxes = np.round(found.boxes.astype(np.float64), 3)
    boxes[:, 2:] = np.round(boxes[:, 2:] - boxes[:, :2], 3)
    return [
        {
            "image_id": image_id,
            "category_id": label,
            "category_name": name,
            "bbox": box,
            "score": float(str(score)),
        }
        for box, score, label, name in zip(
            boxes.tolist(), found.scores, found.labels.tolist(), found.names, strict=True
        )
    ]


def draw(image: np.ndarray, found: Found) -> np.ndarray:
    """A copy of an image with the detections in it."""
    image, scale = image.copy(), max(image.shape[:2]) / 1000
    thick = max(1, round(2 * scale))
    for box, score, label, name in zip(found.boxes, found.scores, found.labels.tolist(), found.names, strict=True):
        hue = np.uint8([[[int(label) * 67 % 180, 130, 255]]])
        color = tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        left, top, right, bottom = (round(float(value)) for value in box)
        cv2.rectangle(image, (left, top), (right, bottom), color, thick)
        caption, size = f"{name} {score:.2f}", max(0.4, 0.6 * scale)
        (width, height), below = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        base = max(top - below, height)
        cv2.rectangle(image, (left, base - height), (left + width, base + below), color, -1)
        cv2.putText(image, caption, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), thick, cv2.LINE_AA)
    return image


def find_sources(paths) -> tuple[list[Path], list[Path]]:
    """(images, videos) that the paths of files and folders name."""
    images, videos = [], []
    for path in map(Path, paths):
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        if not path.exists():
            raise Mistake(f"{path}: no such file or folder")
        new_images = [file for file in inside if file.suffix.lower() in IMAGES]
        new_videos = [file for file in inside if file.suffix.lower() in VIDEOS]
        if not new_images and not new_videos:
            raise Mistake(f"{path}: holds neither images nor videos")
        images, videos = images + new_images, videos + new_videos
    return images, videos


def run_images(detector: Detector, paths: list[Path], threshold: float, out: Path | None) -> list[dict]:
    """The entries of images; pictures go to `out`, unless it is None."""
    entries = []
    for path in paths:
        try:
            image = detector.read(path)
        except Mistake as mistake:
            print(f"skipped: {mistake}", file=sys.stderr)
            continue
        (found,) = detector.predict([image], threshold)
        entries += to_entries(found, path.name)
        if out is not None:
            cv2.imencode(".jpg", draw(image, found))[1].tofile(str(out / f"{path.stem}.jpg"))
    return entries


def run_video(detector: Detector, path: Path, threshold: float, out: Path | None) -> list[dict]:
    """The entries of the frames of a video; the drawn video goes to `out`, unless it is None."""
    capture, entries, state, writer, number = cv2.VideoCapture(str(path)), [], None, None, 0
    while True:
        there, frame = capture.read()
        if not there:
            break
        (found,), state = detector.step([frame], state, threshold)
        entries += to_entries(found, f"{path.stem}/{number:06d}")
        number += 1
        if out is not None:
            if writer is None:
                rate, size = capture.get(cv2.CAP_PROP_FPS) or 25.0, frame.shape[1::-1]
                writer = cv2.VideoWriter(str(out / f"{path.stem}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
            writer.write(draw(frame, found))
    capture.release()
    if writer is not None:
        writer.release()
    if not number:
        raise Mistake(f"{path}: no frame of it can be read")
    return entries


def find_model(given: str | None) -> Path:
    """The model file: the one given, else the one beside this script."""
    if given:
        return Path(given)
    found = sorted(Path(__file__).resolve().parent.glob("*_detect.onnx"))
    if not found or (len(found) > 1 and not found[0].name.endswith("_large_detect.onnx")):
        names = ", ".join(path.name for path in found) or "none"
        raise Mistake(f"--model FILE: is needed where there is not one *_detect.onnx beside this script ({names})")
    return found[0]


def main(argv=None) -> int:
    """Detect, write detections.json and draw; 2 after one line about a mistake."""
    parser = argparse.ArgumentParser(description="Runs an exported detector on images, folders of them, and videos.")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, folders of images and videos, videos")
    parser.add_argument("--model", metavar="FILE", help="NAME_detect.onnx; by default the one beside this script")
    parser.add_argument("--threshold", type=float, metavar="SCORE", help="smallest score that counts")
    parser.add_argument("--out", metavar="DIR", help="folder of detections.json and the drawn pictures")
    parser.add_argument("--no-pictures", action="store_true", help="with --out: only detections.json")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the network's input")
    parser.add_argument("--threads", type=int, help="threads of the processor")
    args = parser.parse_args(argv)
    try:
        images, videos = find_sources(args.paths)
        detector = Detector(find_model(args.model), args.threads)
        if args.size:
            detector.resize_to(args.size)
        threshold = detector.facts["picture_threshold"] if args.threshold is None else args.threshold
        out = Path(args.out) if args.out else None
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            if out.resolve() in {path.resolve().parent for path in images + videos}:
                raise Mistake(f"--out {out}: holds the sources, which would be overwritten; name another folder")
        pictures = None if args.no_pictures else out
        entries = run_images(detector, images, threshold, pictures)
        for path in videos:
            entries += run_video(detector, path, threshold, pictures)
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n"
    if out is None:
        print(text, end="")
        return 0
    (out / "detections.json").write_text(text, encoding="utf-8")
    print(f"{len(entries)} detections with scores of at least {threshold:g} in {out / 'detections.json'}")
    return 0


def _parse(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())

"""The log of a run: TensorBoard event files through tensorboardX, the same scalars as lines of JSON, and plots.

Events are written with tensorboardX's synchronous writer, not with its SummaryWriter: that one loses errors in a
thread, waits for ever on a full queue once the thread has died, and turns the spaces and brackets of tags into '_'.
"""

import json
import logging
import math
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from ..utils.distributed import is_main
from .figures import render_figure

logger = logging.getLogger(__name__)

JSON_LOG = "log.jsonl"
FLUSH_SECONDS = 10.0
NUM_THRESHOLDS = 127  # more do not fit the plugin's data
HPARAMS_SUFFIX = ".hparams"
LARGEST_IMAGE = 1600  # pixels of the longer side; TensorBoard shows less
JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]

HPARAMS = {
    "MODEL.NETS": "NETS",
    "MODEL.SSDS": "SSDS",
    "MODEL.IMAGE_SIZE": "IMAGE_SIZE",
    "DATASET.DATASET": "DATASET",
    "MODEL.PRETRAINED": "PRETRAINED",
    "DATASET.PROB": "EXPAND_PROB",
    "DATASET.CROP_PROB": "CROP_PROB",
    "DATASET.CROP_OVERLAP": "CROP_OVERLAP",
    "DATASET.ROTATION": "ROTATION",
    "DATASET.MOSAIC": "MOSAIC",
    "DATASET.MIXUP": "MIXUP",
    "DATASET.SAMPLING": "SAMPLING",
    "TRAIN.MAX_EPOCHS": "EPOCHS",
    "TRAIN.BATCH_SIZE": "BATCH_SIZE",
    "TRAIN.OPTIMIZER.OPTIMIZER": "OPTIMIZER",
    "TRAIN.OPTIMIZER.LEARNING_RATE": "LEARNING_RATE",
    "TRAIN.OPTIMIZER.WEIGHT_DECAY": "WEIGHT_DECAY",
    "TRAIN.LR_SCHEDULER.SCHEDULER": "SCHEDULER",
    "TRAIN.AMP": "AMP",
    "TRAIN.EMA_DECAY": "EMA_DECAY",
    "MATCHER.MATCHED_THRESHOLD": "MATCHED_THRESHOLD",
    "SEED": "SEED",
}
"""The keys of the configuration that the HParams page shows, and the headings of their columns."""


class RunWriter:
    """Writes what happens in a run to TensorBoard files in `log_dir` and to log.jsonl in `exp_dir` (default: log_dir).

    Nothing is created before the first entry.  A run resumed after step `purge_step` hides what an earlier process
    wrote later than it.  Of several processes only the main one writes.  A file that cannot be written is
    warned about once and does not stop the run; TensorBoard then goes on in a new file as soon as it can.
    """

    def __init__(self, log_dir, exp_dir=None, purge_step: int | None = None):
        self.log_dir = Path(log_dir)
        self.json_path = Path(log_dir if exp_dir is None else exp_dir) / JSON_LOG
        self._events: EventsWriter | None = None
        self._json = None
        self._hide_events_after = self._hide_lines_after = None
        if purge_step is not None:
            self.hide_after(purge_step)
        self._flushed = 0.0
        self._warned = False
        self._silent = not is_main()

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def hide_after(self, step: int) -> None:
        """Hide what has been written so far, by whatever process, for steps after this one.

        The steps of all tags are compared with this number, whatever they count.
        """
        self._hide_events_after = self._hide_lines_after = int(step)

    def scalars(self, values: dict[str, float], step: int, descriptions: dict[str, str] | None = None) -> None:
        """Numbers by tag; also one line {"time", "step", tag: value, ...} of log.jsonl, null for what is not finite.

        The descriptions (Markdown) by tag, of some or all of them, stand behind the (i) of their cards.
        """
        about = {_utf8(tag): _metadata("scalars", text) for tag, text in (descriptions or {}).items()}
        values = {_utf8(tag): float(value) for tag, value in values.items()}
        self._add([Summary.Value(tag=tag, simple_value=v, metadata=about.get(tag)) for tag, v in values.items()], step)
        line = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
        self._add_line({"time": round(time.time(), 3), "step": int(step)} | line)

    def image(self, tag: str, image, step: int, description: str = "", photograph: bool = False) -> None:
        """A picture, uint8 BGR [H, W, 3], scaled down to LARGEST_IMAGE; the description (Markdown) stands behind the
        (i) of its card.  photograph: written as JPEG, a sixth of the bytes, since every evaluation adds some."""
        scale = LARGEST_IMAGE / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        encoded = cv2.imencode(".jpg", image, JPEG_QUALITY) if photograph else cv2.imencode(".png", image)
        content = encoded[1].tobytes()
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._add([Summary.Value(tag=_utf8(tag), image=picture, metadata=_metadata("images", description))], step)

    def figure(self, tag: str, figure, step: int, description: str = "") -> None:
        """A matplotlib figure as a picture, drawn without a screen; the figure is closed."""
        self.image(tag, render_figure(figure), step, description)

    def pr_curves(self, curves: dict[str, tuple], step: int, tag: str = "pr_curve", description: str = "") -> None:
        """Curves for the PR page as <tag>/<class>: class -> (precision [K], recall [K], scores [K]), best score
        first, one point for each detection; a class without detections has recall 0 everywhere.  The description
        (Markdown) stands behind the (i) of their cards."""
        values = []
        for name, curve in curves.items():
            value = summary.pr_curve_raw("", *pr_table(*curve), num_thresholds=NUM_THRESHOLDS).value[0]
            value.tag = _utf8(f"{tag}/{name}")
            value.metadata.summary_description = description
            values.append(value)
        self._add(values, step)

    def graph(self, graph) -> None:
        """The graph of the run's model, a GraphDef; of several TensorBoard shows the last."""
        with self._harmless("_events"):
            if self._events is None:
                self._events = self._open_events()
            self._events.write_event(Event(wall_time=time.time(), graph_def=graph.SerializeToString()))

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """A text in Markdown."""
        value = summary.text("", _utf8(text)).value[0]
        value.tag = _utf8(tag)
        self._add([value], step)

    def hparams(self, config: dict, metrics: dict[str, float]) -> None:
        """The row of this run on the HParams page: a column for each key of HPARAMS and each metric.

        config is the configuration, nested or with dotted keys, or has the headings as keys; its other keys are left
        out.  The row has a file of its own, which takes the place of an earlier one: TensorBoard keeps the first
        hyperparameters that it finds in a run, so a second call would otherwise show the old ones.
        """
        values = _hparams_values(hparam_values(config), {k: float(v) for k, v in metrics.items() if math.isfinite(v)})
        with self._harmless("_events"):
            earlier = list(self.log_dir.glob(f"events.out.tfevents.*{HPARAMS_SUFFIX}"))
            self._close_events()  # readers move on to a newer file of a run and do not look at an older one again
            self._events = self._open_events(HPARAMS_SUFFIX)
            self._events.write_event(Event(wall_time=time.time(), step=0, summary=Summary(value=values)))
            self._close_events()
            for path in earlier:
                path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Bring everything so far to the disk."""
        with self._harmless("_events"):
            if self._events is not None:
                self._events.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left and close the files; a later entry opens new ones."""
        with self._harmless("_events"):
            self._close_events()
        with self._harmless("_json"):
            if self._json is not None:
                self._json.close()
                self._json = None

    def _add(self, values: list, step: int) -> None:
        if self._silent:
            return
        with self._harmless("_events"):
            if self._events is None:
                self._events = self._open_events()
            if self._hide_events_after is not None:
                self._mark_restart(self._hide_events_after + 1)
                self._hide_events_after = None
            self._events.write_event(Event(wall_time=time.time(), step=int(step), summary=Summary(value=values)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def _open_events(self, suffix: str = "") -> EventsWriter:
        # The nanoseconds keep two files of one second apart, and their names in the order of time.
        self.log_dir.mkdir(parents=True, exist_ok=True)
        return EventsWriter(str(self.log_dir / "events"), f".{time.time_ns()}{suffix}")

    def _mark_restart(self, first_hidden: int) -> None:
        """Hide the events of `first_hidden` and later steps; TensorBoard obeys every mark of a run but the first."""
        for _ in range(2):
            start = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(wall_time=time.time(), step=first_hidden, session_log=start))

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _add_line(self, record: dict) -> None:
        if self._silent:
            return
        with self._harmless("_json"):
            if self._json is None:
                self._json = _open_log(self.json_path)
            if self._hide_lines_after is not None:
                resumed = {"time": record["time"], "step": self._hide_lines_after, "resumed": True}
                self._json.write(json.dumps(resumed) + "\n")
                self._hide_lines_after = None
            self._json.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._json.flush()

    @contextmanager
    def _harmless(self, file: str):
        """Turns an error of the disk into one warning, and lets the next entry open a new file: a record may have been
        cut off, behind which no reader would look."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                logger.warning("%s: the log cannot be written (%s); the run goes on without", self.log_dir, error)
            self._warned = True
            broken = getattr(self, file)
            setattr(self, file, None)
            if broken is not None:
                with suppress(OSError):
                    broken.close()


def read_log(path) -> list[dict]:
    """The entries of a log.jsonl; without those that a crash cut off, and those that a resumed run wrote anew."""
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            logger.warning("%s: line %d is cut off and left out", path, number)
            continue
        if record.get("resumed"):
            records = [earlier for earlier in records if earlier["step"] <= record["step"]]
        else:
            records.append(record)
    return records


def pr_table(precision, recall, scores) -> tuple[np.ndarray, ...]:
    """True positives, false positives, true negatives, false negatives, precision, recall, each [NUM_THRESHOLDS], of
    the detections whose score is at least 0, ..., 1 in even steps: what TensorBoard's PR page is drawn from.

    precision, recall and scores [K], best score first, one point for each detection.  The page leaves out thresholds
    without any detection, where precision has no meaning; there are no true negatives in detection.
    """
    precision, recall, scores = (np.asarray(part, np.float64) for part in (precision, recall, scores))
    thresholds = np.linspace(0, 1, NUM_THRESHOLDS)
    # Scores descend; those equal to the threshold count.
    kept = np.searchsorted(-scores, -thresholds, side="right")
    last = np.maximum(kept - 1, 0)
    some = kept > 0
    at_precision = np.where(some, precision[last], 0) if len(scores) else np.zeros(NUM_THRESHOLDS)
    at_recall = np.where(some, recall[last], 0) if len(scores) else np.zeros(NUM_THRESHOLDS)
    true_positives = np.rint(at_precision * kept)
    found = len(scores) > 0 and recall[-1] > 0
    num_objects = np.rint(precision[-1] * len(scores) / recall[-1]) if found else 0
    false_negatives = np.maximum(num_objects - true_positives, 0)
    return true_positives, kept - true_positives, np.zeros(NUM_THRESHOLDS), false_negatives, at_precision, at_recall


def hparam_values(config: dict) -> dict[str, str | float | bool]:
    """The columns of the HParams page, by heading: numbers and switches as they are, all else as short text."""
    headings = HPARAMS | {heading: heading for heading in HPARAMS.values()}
    return {headings[key]: _plain(value) for key, value in _flatten(config).items() if key in headings}


def _flatten(config: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _plain(value):
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value)) if all(isinstance(part, (int, float)) for part in value) else json.dumps(value)
    return "none" if value is None else float(value)


def _hparams_values(settings: dict, metrics: dict[str, float]) -> list:
    """The summary values of an HParams row; the tags of its metrics are apart from those of any curve."""
    tags = {f"hparams/{name}": value for name, value in metrics.items()}
    values = [part.value[0] for part in summary.hparams(settings, tags)]
    plugin_data = values[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    for info, name in zip(content.experiment.metric_infos, metrics, strict=True):
        info.display_name = name
    plugin_data.content = content.SerializeToString()
    return values + [Summary.Value(tag=tag, simple_value=value) for tag, value in tags.items()]


def _utf8(text: str) -> str:
    """The text without the surrogates that stand for odd bytes of file names: no log could hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _metadata(plugin: str, description: str) -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin), summary_description=description)


def _open_log(path: Path):
    """The log opened for appending; a line that a crash cut off is ended, so that it spoils no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
    return open(path, "a", encoding="utf-8")

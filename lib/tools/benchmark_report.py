"""The figures of a benchmark as a CSV file, a table and a plot."""

import csv
import io
from pathlib import Path

from ..solver.figures import plot_color, plot_fonts, plot_text
from ..timing import Figures
from .benchmark_untrained import CANDIDATES
from .plan_table import table_lines, wrap

COLUMNS = {
    "name": "what tells it apart from the others",
    "status": "ok or failed",
    "reason": "why it failed",
    "config": "file of the configuration",
    "ssds": "MODEL.SSDS",
    "nets": "MODEL.NETS",
    "height": "rows of the image that the network sees",
    "width": "columns of it",
    "num_classes": "with the background",
    "classes_are": "given in the file, known by the name of the data set, assumed, or those of the weights",
    "weights": "trained or untrained",
    "candidates": "of untrained weights: scores of an image above score_threshold, mean; the background was given such "
    "an advantage",
    "checkpoint": "file of the weights",
    "mAP": "of these weights, as the test phase found it",
    "mAP_rule": "what that is",
    "batch": "images in a run",
    "recurrent": "whether runs are the frames of a video, with state",
    "threads": "of torch on the CPU",
    "device": "its name",
    "precision": "of the convolutions",
    "compile": "mode of torch.compile that was in use",
    "compile_s": "seconds that compiling took, in no other figure",
    "images": "what the runs saw, decoded, in memory",
    "decode_ms": "to read and decode one of the files, median, in no other figure",
    "rounds": "rounds of runs, those of different rows in turn",
    "runs": "runs in all rounds",
    "preprocess_ms": "resize, to a tensor, to the device: mean of the median round, of a run like all that follow",
    "backbone_ms": "scaling of the colours and base, the same",
    "neck_head_ms": "neck and head, the same",
    "postprocess_ms": "decoding, NMS and back to the CPU, the same",
    "network_ms": "network only: backbone_ms + neck_head_ms",
    "end_to_end_ms": "from image arrays in memory to boxes: the sum of the four parts",
    "preprocess_p50_ms": "half of the runs took less",
    "preprocess_p95_ms": "95 % of the runs took less",
    "network_p50_ms": "the same of the network only",
    "network_p95_ms": "",
    "postprocess_p50_ms": "the same of the post-processing",
    "postprocess_p95_ms": "",
    "end_to_end_p50_ms": "the same of the whole",
    "end_to_end_p95_ms": "",
    "network_images_per_s": "1000 batch / network_ms",
    "end_to_end_images_per_s": "1000 batch / end_to_end_ms",
    "detections": "in an image, mean",
    "score_threshold": "POST_PROCESS.SCORE_THRESHOLD of these",
    "nms_iou": "POST_PROCESS.IOU_THRESHOLD of these",
    "max_per_class": "POST_PROCESS.MAX_DETECTIONS of these",
    "parameters": "learnt numbers",
    "macs": "multiply-adds of convolutions and matrix products for one image",
    "macs_are": "of every image, or the mean over frames of two extractors that take turns",
    "memory_mb": "peak in millions of bytes",
    "memory_is": "of what that is the peak",
    "torch": "version",
    "cuda": "version that torch was built with",
    "opencv": "version",
    "python": "version",
}
"""The columns of the CSV file and what they hold; times are of a run, in milliseconds."""

LONGEST_REASON = 160
MARKERS = "osD^vP*X"


def timed_columns(figures: Figures) -> dict:
    """The columns that Figures fill."""
    row = {"runs": figures.runs}
    row |= {f"{part}_ms": value for part, value in figures.parts.items()}
    for stage, spread in figures.spreads.items():
        row |= {f"{stage}_ms": spread.mean, f"{stage}_p50_ms": spread.p50, f"{stage}_p95_ms": spread.p95}
    return row | {f"{stage}_images_per_s": figures.rate(stage) for stage in ("network", "end_to_end")}


def format_csv(rows: list[dict]) -> str:
    """The content of the CSV file; what a row does not have stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None or value != value else value for name, value in row.items()})
    return text.getvalue()


def is_benchmark(path: Path) -> bool:
    """Whether a file is a CSV file of this tool, which may be written over."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().startswith("name,status,reason,config,")
    except (OSError, ValueError):
        return False


def format_table(rows: list[dict]) -> str:
    """The main figures, what failed, and what the figures are, for the terminal."""
    done = [row for row in rows if row["status"] == "ok"]
    lines = _main_table(done) if done else []
    failed = [row for row in rows if row["status"] != "ok"]
    if failed:
        lines += ["", f"{len(failed)} of {len(rows)} failed:"]
        lines += [f"  {_title(row)}: {row['reason'][:LONGEST_REASON]}" for row in failed]
    for note in _notes(done) if done else []:
        lines += ["", *wrap(note)]
    return "\n".join(lines)


def _title(row: dict) -> str:
    words = [f"batch {row['batch']}"] if row.get("batch") else []
    words += [f"{row['threads']} threads"] if row.get("threads") else []
    return ", ".join([row["name"], *words])


def _main_table(rows: list[dict]) -> list[str]:
    """A row each; what is the same in all of them has no column."""
    varied = [key for key in ("compile", "precision", "threads") if len({row[key] for row in rows}) > 1]
    columns = {
        "": ("l", lambda row: row["name"]),
        "weights": ("l", lambda row: row["weights"]),
        "mAP": ("r", lambda row: "-" if row["mAP"] is None else f"{row['mAP']:.3f}"),
        **{key: ("r", lambda row, key=key: str(row[key])) for key in varied},
        "batch": ("r", lambda row: str(row["batch"])),
        "pre": ("r", _time("preprocess_ms")),
        "base": ("r", _time("backbone_ms")),
        "neck+head": ("r", _time("neck_head_ms")),
        "NMS": ("r", _time("postprocess_ms")),
        "network": ("r", _time("network_p50_ms")),
        "end to end": ("r", _time("end_to_end_p50_ms")),
        "p95": ("r", _time("end_to_end_p95_ms")),
        "network/s": ("r", lambda row: f"{row['network_images_per_s']:.1f}"),
        "end to end/s": ("r", lambda row: f"{row['end_to_end_images_per_s']:.1f}"),
        "M param": ("r", lambda row: f"{row['parameters'] / 1e6:.2f}"),
        "G MACs": ("r", lambda row: f"{row['macs'] / 1e9:.2f}"),
        "MB": ("r", lambda row: "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"),
        "compile s": ("r", lambda row: "-" if row["compile_s"] is None else f"{row['compile_s']:.0f}"),
    }
    cells = [tuple(show(row) for _, show in columns.values()) for row in rows]
    shown = [i for i, title in enumerate(columns) if title in ("", "batch") or {row[i] for row in cells} != {"-"}]
    cells = [tuple(row[i] for i in shown) for row in [tuple(columns), *cells]]
    return table_lines(cells, "".join(side for i, (side, _) in enumerate(columns.values()) if i in shown))


def _time(key: str):
    return lambda row: "-" if row[key] != row[key] else f"{row[key]:.2f}"


def _notes(rows: list[dict]) -> list[str]:
    """What must be known to read the table."""
    first = rows[0]
    cuda = f", CUDA {first['cuda']}" if first["cuda"] else ""
    notes = [
        f"{_circumstances(rows)}; torch {first['torch']}{cuda}, OpenCV {first['opencv']}, Python {first['python']}.",
        "Milliseconds of a run of `batch` images: pre (resize, to a tensor, to the device), base, neck+head and NMS "
        "(with decoding) are means of the round of median speed and add up to the whole; network (only) and end to end "
        "(from image arrays in memory to boxes) are medians of all runs, p95 is that of end to end. network/s and end "
        f"to end/s are images a second. {first['rounds']} rounds, the rows of a group in turn; {first['images']}.",
        "Files are decoded apart from this" + _decoding(first) + ", and so is compiling. MB is the "
        + " or the ".join(dict.fromkeys(row["memory_is"] for row in rows)) + ".",
        "NMS: " + "; ".join(dict.fromkeys(
            f"scores above {row['score_threshold']:g}, IoU {row['nms_iou']:g}, at most {row['max_per_class']} a class"
            for row in rows)) + ".",
    ]  # fmt: skip
    untrained = [row["candidates"] for row in rows if row["weights"] == "untrained"]
    if untrained:
        counts = f"{min(untrained)}" if min(untrained) == max(untrained) else f"{min(untrained)} to {max(untrained)}"
        notes.append(
            f"Untrained weights: the background was given such an advantage that {counts} scores of an image are above "
            f"the threshold (of trained weights, on images full of objects, it is about {CANDIDATES}), so that NMS has "
            "as much to do as usual."
        )
    rules = list(dict.fromkeys(row["mAP_rule"] for row in rows if row["mAP"] is not None))
    if rules:
        notes.append(f"mAP, from the tests of the runs: {'; '.join(rules)}.")
    if any(row["recurrent"] for row in rows):
        names = ", ".join(dict.fromkeys(row["name"] for row in rows if row["recurrent"]))
        notes.append(f"Frame by frame with state, of two extractors each in its turn: {names}.")
    return notes


def _circumstances(rows: list[dict]) -> str:
    """The devices, and what runs on them how."""
    ways = " and ".join(dict.fromkeys(f"{row['precision']}, compile {row['compile']}" for row in rows))
    return " and ".join(dict.fromkeys(row["device"] for row in rows)) + f"; {ways}"


def _decoding(row: dict) -> str:
    return f" ({row['decode_ms']:.2f} ms an image)" if row["decode_ms"] is not None else ""


def draw_plot(rows: list[dict]):
    """mAP over the latency of one image end to end as a matplotlib figure; None where no row has an mAP.

    A point is the median of the runs, a line goes to their 95th percentile.  Rows of the smallest batch are drawn.
    """
    from matplotlib.figure import Figure

    known = [row for row in rows if row["status"] == "ok" and row["mAP"] is not None]
    if not known:
        return None
    smallest = min(row["batch"] for row in known)
    known = [row for row in known if row["batch"] == smallest]
    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    rules = list(dict.fromkeys(row["mAP_rule"] for row in known))
    axes = figure.add_subplot(
        ylabel="mAP",
        xlabel=f"milliseconds end to end for {smallest} image{'s' * (smallest > 1)} in memory: median, with a line to "
        "the 95th percentile",
    )
    axes.set_title("\n".join([*rules, _circumstances(known)]), loc="left", fontsize=10)
    for label, row in enumerate(sorted(known, key=lambda row: -row["mAP"]), 1):
        middle, high = row["end_to_end_p50_ms"], row["end_to_end_p95_ms"]
        ways = [str(row[key]) for key in ("precision", "compile", "threads") if len({r[key] for r in known}) > 1]
        name = plot_text(", ".join([row["name"], *ways]), label)
        text, color = f"{name}: {row['mAP']:.3f}, {middle:.1f} ms", plot_color(label)
        axes.plot([middle, high], [row["mAP"]] * 2, color=color, linewidth=1, alpha=0.6)
        axes.plot(middle, row["mAP"], MARKERS[(label - 1) % len(MARKERS)], color=color, markersize=9, label=text)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, prop={"family": plot_fonts(), "size": 9})
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

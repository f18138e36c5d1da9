"""The figures of several epochs of a run side by side, as the test phase scores them with TEST.TEST_SCOPE."""

import logging
import math
from pathlib import Path

from ..utils.draw import class_color

logger = logging.getLogger(__name__)

PLOT = "map_over_epochs.png"
COLORS = (5, 6, 3, 7, 1)
"""Numbers of the classes whose colours the lines have."""


def tell_course(tested: list[tuple[int, dict]], exp_dir, writer) -> None:
    """Show what was scored, (epoch, figures as of `Scorer.score_and_keep`) each: a table in the log, PLOT in `exp_dir`,
    and the plot and the figures over epochs in TensorBoard, under "Test by epoch"."""
    tested = sorted(tested, key=lambda entry: entry[0])
    keys = [key for key in tested[0][1] if key == "mAP" or key.startswith("mAP_")]
    for epoch, figures in tested:
        writer.scalars({f"Test by epoch/{key}": figures[key] for key in keys}, epoch)
    figure = course_figure(tested, keys)
    figure.savefig(Path(exp_dir) / PLOT)
    writer.figure("Test plots/mAP over epochs", figure, tested[-1][0])
    known = [(figures["mAP"], epoch) for epoch, figures in tested if not math.isnan(figures["mAP"])]
    best = f", best in epoch {max(known)[1]} (to choose it by them would be to train on them)" if known else ""
    widths = [max(len(key), 6) for key in keys]
    lines = ["epoch  " + "  ".join(key.rjust(width) for key, width in zip(keys, widths, strict=True))]
    for epoch, figures in tested:
        cells = (f"{figures[key]:{width}.3f}" for key, width in zip(keys, widths, strict=True))
        lines.append(f"{epoch:5d}  {'  '.join(cells)}")
    logger.info("mAP of the test images over epochs%s; plot: %s\n%s", best, Path(exp_dir) / PLOT, "\n".join(lines))


def course_figure(tested: list[tuple[int, dict]], keys):
    """A line over the epochs for each of the figures named by `keys`, as a matplotlib figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="average precision", title="mAP of the test images")
    epochs = [epoch for epoch, _ in tested]
    for number, key in enumerate(keys):
        blue, green, red = (value / 255 for value in class_color(COLORS[number % len(COLORS)]))
        values = [figures[key] for _, figures in tested]
        axes.plot(epochs, values, "o-", color=(red, green, blue), linewidth=2.5 if key == "mAP" else 1.2, label=key)
        if math.isfinite(values[-1]):
            axes.annotate(f"{values[-1]:.3f}", (epochs[-1], values[-1]), (6, 0), textcoords="offset points", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

"""A comparison in words and as tables of plain text."""

import math

from ..config.yaml_text import write_value
from .compare_runs import changed_keys
from .compare_sides import FIGURES, Comparison, Pair, Side
from .compare_statistics import FEW_UNITS, RESAMPLES, Interval
from .plan_table import table_lines, wrap

SPEEDS = {"fps_network": "network", "fps_end_to_end": "end to end", "streaming_fps": "streaming"}
"""Figures of a test that are images per second, and their headings."""

LONGEST_VALUE = 34


def verdict(pair: Pair, key: str) -> str:
    """What can be told of two sides, in one sentence."""
    first, second = pair.first, pair.second
    better, other = (second, first) if pair.sign >= 0 else (first, second)
    figures = f"{FIGURES[key]} {points(pair.overall.value)} points"
    interval = f"95 % interval {span(pair.overall)} by images"
    if pair.seeds is not None:
        seeds = f"{len(first.runs)} and {len(second.runs)}"
        interval += f", {span(pair.seeds)} between seeds ({seeds} runs)"
    words = f"{_named(better)} is better than {_named(other)}"
    if not pair.sign:
        words = f"No difference between {_named(first)} and {_named(second)} can be told"
    return f"{words}: {figures} ({second.letter} - {first.letter}), {interval}."


def notes(comparison: Comparison) -> list[str]:
    """What must be known to read the intervals."""
    units, videos = comparison.unit, comparison.unit == "videos"
    lines = [
        f"Intervals are by images: {RESAMPLES} times the {comparison.num_units} test {units} are drawn with "
        f"replacement{' (all frames of a video together)' if videos else ''}, the same ones for all runs, and 95 % of "
        f"the differences lie within. They tell what other {units} of the same kind might have changed, not what "
        "another seed of the training would have."
    ]
    if comparison.only_seeds:
        lines.append("These runs differ by their seed alone: what lies between them is noise of the training.")
    elif any(pair.seeds is None for pair in comparison.pairs):
        lines.append(
            "How far two seeds of one configuration are apart is unknown here: train each with two seeds or more and "
            "give all the runs, and the means are compared with the noise between seeds beside them."
        )
    if len(comparison.runs[0].class_names) > 1:
        lines.append(
            "The interval of a class holds for it alone: of 20 classes that are alike, one is outside by chance."
        )
    if comparison.num_units < FEW_UNITS:
        lines.append(
            f"{comparison.num_units} {units} are few: the intervals are rough, and too narrow rather than too wide."
        )
    main, post = comparison.runs[0].results, comparison.runs[0].config["POST_PROCESS"]
    lines.append(
        f"Detections with scores above {post['SCORE_THRESHOLD']:g} count for AP, at most {post['MAX_DETECTIONS']} of a "
        "class and image."
    )
    if comparison.key == "voc_area" and main.get("voc_area") != main["mAP"]:
        lines.append(
            "The mAP of the test phase takes too long to be computed for every resample: the interval is that of the "
            "area under the curve at IoU 0.5."
        )
    return lines


def format_comparison(comparison: Comparison) -> str:
    """Everything that the terminal shows."""
    parts = [[_title(comparison)], _side_lines(comparison)]
    for pair in comparison.pairs:
        parts += [_changed_lines(pair), _class_lines(pair, comparison.key), wrap(verdict(pair, comparison.key))]
        parts.append(wrap(changes_in_words(pair, comparison.runs[0].threshold)))
    parts.append([line for note in notes(comparison) for line in wrap(note)])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def changes_in_words(pair: Pair, threshold: float) -> str:
    """In how many images the errors became fewer and more."""
    a, b, before, after = pair.first.letter, pair.second.letter, pair.first.errors(), pair.second.errors()
    fewer, more = after < before, after > before
    return (
        f"Wrong detections and missed objects (score from {threshold:g}, IoU 0.5): {before.sum():g} in {a}, "
        f"{after.sum():g} in {b}. Of {len(before)} images {fewer.sum()} have fewer in {b}, and "
        f"{(fewer & (after == 0)).sum()} became free of them; {more.sum()} have more, of which "
        f"{(more & (before == 0)).sum()} were free of them."
    )


def side_rows(comparison: Comparison) -> tuple[list[str], list[list]]:
    """(headings, a row of figures for each side): the mean of several seeds with its standard deviation."""
    speeds = {key: text for key, text in SPEEDS.items() if any(key in run.results for run in comparison.runs)}
    several = any(len(side.runs) > 1 for side in comparison.sides)
    headings = ["", "run", "mAP at IoU 0.5", "95 %", *(["spread of seeds"] if several else [])]
    headings += [f"{text} img/s" for text in speeds.values()] + ["parameters"]
    rows = []
    for side in comparison.sides:
        row = [side.letter, side.name, f"{side.score:.3f}", span_of_figure(side.interval())]
        row += [_spread(side)] if several else []
        row += [_mean_of(side, key, "{:.1f}") for key in speeds] + [_mean_of(side, "parameters", "{:,.0f}")]
        rows.append(row)
    return headings, rows


def points(value: float) -> str:
    """A difference of average precision in points, hundredths of it."""
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def span(interval: Interval) -> str:
    """The ends of the interval of a difference, in points."""
    return f"{points(interval.low)} to {points(interval.high)}"


def span_of_figure(interval: Interval) -> str:
    """The ends of the interval of a figure."""
    return "-" if math.isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}"


def class_rows(pair: Pair) -> list[list]:
    """[class, objects, first, second, Interval of the difference, what it means] for every class."""
    counts = pair.first.runs[0].metric.counts()
    words = {1: f"{pair.second.letter} better", -1: f"{pair.first.letter} better", 0: ""}
    return [
        [name, counts[name]["objects"], pair.first.per_class[name], pair.second.per_class[name], each, words[each.sign]]
        for name, each in pair.per_class.items()
    ]


def _title(comparison: Comparison) -> str:
    records, count = comparison.runs[0].records, len(comparison.runs)
    return (
        f"{count} run{'s' * (count > 1)} on {len(records)} images, {len(records.labels)} objects of "
        f"{len(records.class_names)} classes of {records.name}; {FIGURES[comparison.key]}"
    )


def _side_lines(comparison: Comparison) -> list[str]:
    headings, rows = side_rows(comparison)
    return table_lines([tuple(headings), *map(tuple, rows)], "ll" + "r" * (len(headings) - 2))


def _changed_lines(pair: Pair) -> list[str]:
    changed, without_effect = changed_keys(pair.first.runs[0], pair.second.runs[0])
    rows = [(key, _shortened(write_value(a)), _shortened(write_value(b))) for key, a, b in changed]
    lines = table_lines([("configuration", pair.first.letter, pair.second.letter), *rows], "lll") if rows else []
    if not rows:
        lines = [f"{pair.first.letter} and {pair.second.letter} have the same configuration."]
    return lines + (
        wrap(f"Also different, without effect on it: {', '.join(without_effect)}") if without_effect else []
    )


def _class_lines(pair: Pair, key: str) -> list[str]:
    a, b = pair.first.letter, pair.second.letter
    rows = [("AP", "objects", a, b, f"{b} - {a}", "95 % interval", "")]
    for name, objects, first, second, each, words in class_rows(pair):
        known = [f"{value:.3f}" if not math.isnan(value) else "-" for value in (first, second)]
        interval = "-" if math.isnan(each.low) else span(each)
        rows.append((_shortened(name), str(objects), *known, points(each.value), interval, words))
    total = f"{pair.first.score:.3f}", f"{pair.second.score:.3f}", points(pair.overall.value), span(pair.overall)
    rows.append(("all classes", str(sum(row[1] for row in class_rows(pair))), *total, ""))
    return table_lines(rows, "lrrrrrl")


def _named(side: Side) -> str:
    return f"{side.letter} ({side.name})"


def _spread(side: Side) -> str:
    if len(side.runs) < 2:
        return "-"
    mean = side.score
    deviation = math.sqrt(sum((score - mean) ** 2 for score in side.scores) / (len(side.scores) - 1))
    return f"{deviation:.3f} ({min(side.scores):.3f} to {max(side.scores):.3f})"


def _mean_of(side: Side, key: str, text: str) -> str:
    known = [run.results[key] for run in side.runs if isinstance(run.results.get(key), int | float)]
    return text.format(sum(known) / len(known)) if known else "-"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."

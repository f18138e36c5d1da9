"""What pruning has cost and gained: the network before, after and fine-tuned, tested on the same images and timed in
turn."""

import csv
import io
import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from torch import nn

from ..modeling.complexity import count_macs
from ..modeling.ssds import SSD
from ..predictor import ObjectDetector
from ..timing import Figures, run_for, summarize, timed, warm_up
from ..utils.files import write_whole
from .network_scores import NetworkScores, NetworkTest, figure_or_null

ROUNDS, SECONDS, LEAST = 5, 1.0, 5
TIMED_IMAGES = 8
HEADINGS = ("", "parameters", "MACs", "images/s network", "images/s end to end", "mAP", "points")


@dataclass
class Network:
    """A checkpoint of the table: what it is, its detector, what it scores, and how long it takes for an image."""

    title: str
    path: Path
    detector: ObjectDetector
    scores: NetworkScores
    figures: Figures | None = None

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.detector.model.parameters())

    @property
    def macs(self) -> int:
        return sum(count_macs(self.detector.model, self.detector.model.image_size).values())


def measure(test: NetworkTest, checkpoints: dict[str, Path]) -> list[Network]:
    """Test the checkpoints, by what each is called, on the images of `test`, and time them one image at a time, in
    ROUNDS rounds of which each has all of them in turn, so that what else the machine does meets all alike."""
    networks = []
    for title, path in checkpoints.items():
        detector = ObjectDetector(test.cfg, path)
        scores = test.score(detector.network_for(len(test.records)), title)
        networks.append(Network(title, Path(path), detector, scores))
    images = [test.records.read(index) for index in range(min(TIMED_IMAGES, len(test.records)))]
    laps = {network.title: [] for network in networks}
    for network in networks:
        warm_up(network.detector, images[:1], 1)
    for _ in range(ROUNDS):
        for network in networks:
            with timed(network.detector) as lap:
                run_for(network.detector, ([image] for image in cycle(images)), SECONDS, LEAST)
            laps[network.title].append(lap)
    for network in networks:
        network.figures = summarize(laps[network.title], 1, float("nan"))
    return networks


def filters_by_layer(before: SSD, after: SSD) -> list[tuple[str, int, int]]:
    """(layer, filters before, filters after) of every convolution, in the order of the network."""
    pairs = zip(before.named_modules(), after.modules(), strict=True)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return [(name, old.out_channels, new.out_channels) for (name, old), new in pairs if isinstance(old, kinds)]


def format_layers(layers: list[tuple[str, int, int]]) -> str:
    """The filters of each layer as the content of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("layer", "filters before", "filters after", "removed", "share removed"))
    for name, old, new in layers:
        writer.writerow((name, old, new, old - new, f"{(old - new) / old:.3f}"))
    return text.getvalue()


def format_report(networks: list[Network], test: NetworkTest, facts: dict) -> str:
    """The table in Markdown, and what its figures are."""
    rows = [HEADINGS, tuple("-" * len(heading) for heading in HEADINGS)]
    rows += [_row(network, networks[0]) for network in networks]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                          for column, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in rows
    ]  # fmt: skip
    lines[1] = "|" + "|".join("-" * (width + 2) if not column else "-" * (width + 1) + ":"
                              for column, width in enumerate(widths)) + "|"  # fmt: skip
    post, network = test.cfg.POST_PROCESS, networks[0].detector.network_for(1)
    height, width = test.cfg.MODEL.IMAGE_SIZE
    notes = [
        f"{describe_wish(facts)}; {facts['filters'][0]} filters before, {facts['filters'][1]} after.",
        f"mAP: {test.legend}; {len(test.records)} images of {test.records.name}, scores above "
        f"{post.SCORE_THRESHOLD:g}, NMS at IoU {post.IOU_THRESHOLD:g}, at most {post.MAX_DETECTIONS} detections of a "
        "class and image. points: hundredths of mAP above the original.",
        f"MACs: multiply-adds of convolutions for an image of {height}x{width}.",
        f"images/s: one image at a time, decoded, in memory; median of {ROUNDS} rounds in turn; {network.describe()}.",
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {note}" for note in notes)


def describe_wish(facts: dict) -> str:
    """What was asked of the pruning, in words."""
    ratio, macs = facts.get("ratio"), facts.get("macs")
    size = f"{100 * ratio:g} % of the filters" if macs is None else f"filters down to {100 * macs:g} % of the MACs"
    where = (
        "in each layer" if facts["scope"] == "layer" else "in the whole network, relative to the mean of their layer"
    )
    multiple = f"; layers keep a multiple of {facts['multiple']}" if facts["multiple"] > 1 else ""
    return f"Removed: {size}, those of the smallest {facts['norm']} norm {where}{multiple}"


def _row(network: Network, first: Network) -> tuple[str, ...]:
    def share(value: int, whole: int) -> str:
        return "" if network is first else f" ({100 * value / whole:.1f} %)"

    rates = (f"{network.figures.rate(stage):.1f}" for stage in ("network", "end_to_end"))
    return (
        network.title,
        f"{network.parameters / 1e6:.3f} M{share(network.parameters, first.parameters)}",
        f"{network.macs / 1e6:.1f} M{share(network.macs, first.macs)}",
        *rates,
        f"{network.scores.mean_ap:.4f}",
        "" if network is first else f"{network.scores.points_above(first.scores):+.2f}",
    )


def write_json(networks: list[Network], test: NetworkTest, facts: dict, path: Path) -> None:
    """The same figures for other programs."""
    content = {
        "pruned": facts,
        "metric": test.legend,
        "images": len(test.records),
        "networks": [
            {
                "name": network.title,
                "checkpoint": str(network.path),
                "parameters": network.parameters,
                "macs": network.macs,
                "images_per_second_network": network.figures.rate("network"),
                "images_per_second_end_to_end": network.figures.rate("end_to_end"),
                "mAP": network.scores.mean_ap,
                "per_class": {name: figure_or_null(value) for name, value in network.scores.per_class.items()},
            }
            for network in networks
        ],
    }
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

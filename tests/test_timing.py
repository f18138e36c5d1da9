"""The timing of a detector: what its figures are made of, and what is run to get them."""

import numpy as np
import pytest

from lib.config import load_config
from lib.predictor import ObjectDetector
from lib.timing import PARTS, backbone_share, format_figures, run_for, summarize, timed, warm_up
from lib.tools.benchmark_untrained import write_untrained
from tests.detectors import write_detector

INTERLEAVED = [
    "MODEL.SSDS=lstm_ssd_interleaved", "MODEL.NETS=slim_mobilenet_v2_035", "MODEL.IMAGE_SIZE=[96,96]",
    "MODEL.FEATURE_LAYER=[[17,S,S],[112,32,32]]", "MODEL.RNN.CELL_CHANNELS=[16]", "MODEL.RNN.IN_USE=True",
    "MODEL.RNN.INTERVAL=2", "MODEL.NUM_CLASSES=4", "MODEL.PRECISION=fp32", "MODEL.COMPILE=none",
    "DATASET.DATASET=custom", "DEVICE=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    cfg, checkpoint = write_detector(tmp_path_factory.mktemp("timing"))
    return ObjectDetector(load_config(cfg, ["MODEL.COMPILE=none"]), checkpoint)


def laps(*runs) -> dict:
    return dict(zip(("preprocess", "network", "postprocess"), map(list, zip(*runs, strict=True)), strict=True))


def picture(height=30, width=40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_means_are_those_of_the_median_round_and_add_up():
    fast, usual, slow = (laps((0.001, 0.002 * k, 0.003), (0.001, 0.004 * k, 0.003)) for k in (1, 2, 9))
    figures = summarize([slow, fast, usual], batch=2, backbone_share=0.75)
    assert figures.spreads["network"].mean == pytest.approx(6) and figures.runs == 6
    assert figures.parts == pytest.approx({"preprocess": 1, "backbone": 4.5, "neck_head": 1.5, "postprocess": 3})
    assert sum(figures.parts.values()) == pytest.approx(figures.spreads["end_to_end"].mean)
    assert figures.rate("network") == pytest.approx(2000 / 6) and figures.rate("end_to_end") == pytest.approx(200)


def test_percentiles_are_those_of_all_runs():
    rounds = [laps(*((0, k / 1000, 0) for k in range(start, 101, 2))) for start in (0, 1)]
    figures = summarize(rounds, batch=1, backbone_share=0.5)
    assert figures.spreads["network"].p50 == pytest.approx(50) and figures.spreads["network"].p95 == pytest.approx(95)


def test_the_table_of_a_detector_names_every_part_and_both_wholes():
    lines = format_figures(summarize([laps((0.001, 0.006, 0.003))], 1, 0.5)).splitlines()
    shares = {line[:18].strip(): float(line[27:34]) for line in lines[2:]}
    assert list(shares) == [*PARTS.values(), "network only", "end to end"]
    assert list(shares.values()) == [10, 30, 30, 30, 60, 100] and "100.0" in lines[-1].split()[-1]


def test_every_run_has_its_laps_and_the_timer_is_put_back(detector):
    before = detector.timer
    with timed(detector) as measured:
        run_for(detector, [[picture()] * 3] * 4, seconds=0, least=4)
    assert {name: len(values) for name, values in measured.items()} == dict.fromkeys(
        ("preprocess", "network", "postprocess"), 4
    )
    assert detector.timer is before and min(map(min, measured.values())) > 0


def test_the_backbone_has_a_part_of_the_network(detector):
    assert 0 < backbone_share(detector, [picture()] * 2) < 1


def test_without_compiling_there_is_no_time_of_it(detector):
    assert warm_up(detector, [picture()]) is None and detector.compile_choice == "none"


def test_two_extractors_have_their_usual_share_of_the_frames(tmp_path):
    cfg = load_config(None, INTERLEAVED)
    write_untrained(cfg, [picture()], tmp_path / "w.pth")
    both = ObjectDetector(cfg, tmp_path / "w.pth")
    seen = []
    for name in ("extract", "extract_small"):
        backbone = both.network_for(None).model.backbone
        run = getattr(backbone, name)
        setattr(backbone, name, lambda images, name=name, run=run: (seen.append(name), run(images))[1])
    run_for(both, iter([[picture()]] * 100), seconds=0, least=4)
    assert both.model.is_recurrent and seen == ["extract", "extract_small", "extract_small"] * 2
    assert 0 < backbone_share(both, [picture()]) < 1
    both.never_waits = True
    assert np.isnan(backbone_share(both, [picture()]))

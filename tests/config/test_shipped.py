"""Every configuration of the repository loads, builds the model that was published, and computes."""

import math
import re
from itertools import takewhile
from pathlib import Path

import pytest
import torch

from lib.config import load_config
from lib.layers.prior_box import build_priors
from lib.modeling.model_builder import create_model
from lib.solver.optim import LearningRate

from .figures import FIGURES, build_shapes, measure

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "cfgs"
NAMES = [
    path.relative_to(FOLDER).as_posix()
    for path in sorted(FOLDER.rglob("*.yml"))
    if "base" not in path.relative_to(FOLDER).parts
]
SMALL = 64


def load(name):
    cfg = load_config(FOLDER / name)
    cfg.MODEL.NUM_CLASSES = cfg.MODEL.NUM_CLASSES or 4
    return cfg


def pair_of(name):
    model = load(name).MODEL
    return model.SSDS, model.NETS


PAIRS = {pair_of(name): name for name in reversed(NAMES)}  # the first file of each


def check_output(model, cfg):
    """An image goes through, and every prior gets its row."""
    with torch.inference_mode():
        out = model.eval()(torch.rand(1, 3, *cfg.MODEL.IMAGE_SIZE))
    rows = (1, len(model.priors))
    assert tuple(out.loc.shape) == (*rows, 4) and tuple(out.conf.shape) == (*rows, cfg.MODEL.NUM_CLASSES)
    assert torch.isfinite(out.loc).all() and torch.isfinite(out.conf).all()


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_builds_without_a_warning(name, caplog):
    cfg, stem = load(name), Path(name).stem
    measured = measure(cfg)
    assert not caplog.records
    assert Path(cfg.EXP_DIR).name == stem or stem.endswith("_shapes")
    if stem in FIGURES:
        assert measured == FIGURES[stem]._replace(parameters=FIGURES[stem].parameters or measured.parameters)


def test_every_published_model_has_its_file():
    assert set(FIGURES) <= {Path(name).stem for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_command_in_its_first_lines_names_the_file(name):
    header = "".join(takewhile(lambda line: line.startswith("#"), (FOLDER / name).open()))
    assert re.search(rf"--cfg experiments/cfgs/{re.escape(name)}(\s|$)", header)


# Sums of cx, cy, w and h over all priors, each clamped to [0, 1].
SUMS = [
    ("ssd_vgg16_voc.yml", (5906.4000, 5906.4000, 1843.6255, 1843.6255)),
    ("ssd_lite_mobilenetv2_coco.yml", (1533.6400, 1533.6400, 695.3296, 695.3296)),
    ("rfb_darknet19_voc.yml", (1283.4000, 1283.4000, 619.4040, 619.4040)),
    ("fssd_darknet19_coco.yml", (5568.8800, 5568.8800, 1792.2885, 1792.2885)),
    ("yolo_v2_mobilenetv1_voc.yml", (422.5000, 422.5000, 338.0000, 338.0000)),
    ("yolo_v3_darknet53_coco.yml", (5323.5000, 5323.5000, 885.7290, 1041.3780)),
    ("small_objects/ssd_lite_mobilenetv1_coco_S1L0.yml", (5915.4000, 5915.4000, 1046.0203, 1046.0203)),
    ("small_objects/ssd_lite_dual_mobilenetv1_coco_S1L0_split.yml", (5608.2000, 5608.2000, 882.1135, 882.1135)),
    ("small_objects/ssd_dual_vgg16_coco_S1L2.yml", (21346.4400, 21346.4400, 3296.8523, 3296.8523)),
    ("papers/ssd_vgg16_voc_300.yml", (4443.1467, 4443.1467, 1510.1480, 1510.1480)),
]


@pytest.mark.parametrize(("name", "expected"), SUMS)
def test_priors_are_the_published_ones(name, expected):
    model, maps = load(name).MODEL, [(side, side) for side in FIGURES[Path(name).stem].maps]
    priors = build_priors(model.IMAGE_SIZE, maps, model.ASPECT_RATIOS, model.SIZES, model.STEPS, clip=True)
    assert priors.double().sum(0).tolist() == pytest.approx(expected, abs=2e-3)


# Images of an epoch, base rate, and the steps of 32 images after which the authors divide it by ten.
SCHEDULES = [
    ("ssd_vgg16_voc", 16551, 0.001, (80_000, 100_000)),
    ("ssd_vgg16_coco", 118_287, 0.001, (280_000, 360_000)),
    ("rfb_vgg16_voc", 16551, 0.004, (150 * 517, 200 * 517, 250 * 517)),
    ("rfb_vgg16_coco", 118_287, 0.004, (90 * 3696, 120 * 3696, 140 * 3696)),
]


@pytest.mark.parametrize("size", [300, 512])
@pytest.mark.parametrize(("stem", "images", "base", "falls"), SCHEDULES)
def test_rates_of_the_papers_fall_where_the_authors_let_them(stem, images, base, falls, size):
    """To half an epoch, the unit of LR_SCHEDULER.STEPS."""
    cfg, epoch = load(f"papers/{stem}_{size}.yml"), math.ceil(images / 32)
    rate = LearningRate(cfg, epoch)
    for drops, fall in enumerate(falls):
        assert rate.at(fall - epoch // 2) == pytest.approx(base * 0.1**drops)
        assert rate.at(fall + epoch // 2) == pytest.approx(base * 0.1 ** (drops + 1))


@pytest.mark.parametrize("pair", sorted(PAIRS), ids="-".join)
def test_every_pair_computes_on_a_small_image(pair):
    """The first four levels on 64x64, with weights that only keep the numbers small."""
    cfg = load(PAIRS[pair])
    cfg.MODEL.IMAGE_SIZE = [SMALL, SMALL]
    if cfg.MODEL.ASPECT_RATIOS is not None:
        cfg.MODEL.ASPECT_RATIOS = cfg.MODEL.ASPECT_RATIOS[:4]
    if cfg.MODEL.RNN.CELL_LEVELS is not None:
        cfg.MODEL.RNN.CELL_LEVELS = [level for level in cfg.MODEL.RNN.CELL_LEVELS if level < 4]
    model, _ = build_shapes(cfg)
    model.to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        tensor.fill_(1 / tensor[0].numel() if tensor.ndim > 1 else float(not name.endswith(("bias", "mean"))))
    check_output(model, cfg)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_computes_at_full_size(name):
    cfg = load(name)
    torch.manual_seed(0)
    check_output(create_model(cfg), cfg)

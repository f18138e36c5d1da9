import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lib.dataset.dataset_factory import create_records
from lib.dataset.detection import DetectionRecords
from lib.dataset.transforms import EvalTransform, TrainTransform, read_image
from lib.layers.normalize import Normalize
from lib.layers.postprocess import PostProcess
from lib.modeling.model_builder import create_model
from lib.modeling.ssds import SSDS
from lib.modeling.ssds.detector import source_map_sizes
from lib.solver import scene as scenes
from lib.solver import visualize
from lib.solver.inner_pictures import gradient_pictures, overlay, prior_of
from lib.solver.prior_pictures import (
    half_octaves,
    level_rows,
    match_figures,
    match_rows,
    match_statistics,
    prior_pictures,
)
from lib.solver.scene import LevelInfo, Scene, detector_levels, look_at
from lib.solver.solver import Solver
from lib.solver.visualize import augmentation_picture, find_image, run_visualize
from lib.solver.writer import RunWriter
from lib.structures import Predictions, Target
from lib.utils.errors import UserError

SIZE = (96, 128)
CLASSES = ("circle", "square", "triangle")


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch):
    monkeypatch.setattr(scenes, "PICTURE_SIDE", 200)
    monkeypatch.setattr(scenes, "TILE_SIDE", 100)
    monkeypatch.setattr(visualize, "match_figures", lambda statistics: {})  # plots take their time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on busy cores, threads that wait for each other take longer than all the work
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def records(tiny):
    return create_records(tiny(), "test")


@pytest.fixture
def cfg(tiny, tmp_path):
    return tiny("MODEL.IMAGE_SIZE=[96,128]", "MODEL.NUM_CLASSES=4", f"EXP_DIR={tmp_path}")


@pytest.fixture
def model(cfg):
    torch.manual_seed(0)
    return create_model(cfg)


def run(cfg, model, records, writer=None, **more):
    return run_visualize(cfg, model, records, Normalize([103.94, 116.78, 123.68], [58.0, 58.0, 58.0]), writer, **more)


def scene_of(records, index=0):
    image, target = read_image(records.image_path(index)), records.target(index)
    return look_at(image, target, EvalTransform(SIZE), Normalize([0, 0, 0], [255.0] * 3), torch.device("cpu"))


def test_pictures_of_every_kind_reach_the_folder_the_page_and_tensorboard(cfg, model, records, tmp_path, monkeypatch):
    monkeypatch.setattr(visualize, "match_figures", match_figures)
    with RunWriter(tmp_path / "log") as writer:
        *paths, page = run(cfg, model, records, writer, step=12)
    tags = EventAccumulator(str(tmp_path / "log")).Reload().Tags()["images"]
    assert len(tags) == len(paths) == len(set(paths))
    assert set(paths) == set((tmp_path / "visualize").glob("*.png"))
    assert page == tmp_path / "visualize" / "index.html"
    text = page.read_text()
    assert text.count("<img") == len(paths) - 2  # all but the two overviews
    for heading in ("Detections", "Gradients", "Prior boxes", "Matching", "Augmentation", "Features"):
        assert f">{heading}</h2>" in text
    for path in paths:
        assert cv2.imread(str(path)).std() > 5, f"{path} shows nothing"
    levels = [level.name for level in detector_levels(model.eval(), torch.zeros(1, 3, *SIZE))]
    for number, name in enumerate(levels, start=1):
        assert f"visualize/prior boxes/level {number} ({name})" in tags
        assert f"visualize/gradients/level {number} ({name})" in tags
    assert {f"visualize/features/base layer {tap} (6x8)" for tap in model.backbone.taps[:1]} <= set(tags)
    assert {
        "visualize/prior boxes/all levels", "visualize/augmentation/step by step", "visualize/features/level 1 (6x8)",
        "visualize/gradients/all levels", "visualize/gradients/strongest", "visualize/detections/of the image",
        "visualize/matching/by height", "visualize/matching/by width", "visualize/matching/by size",
        "visualize/matching/by aspect ratio",
    } <= set(tags)  # fmt: skip


@pytest.mark.parametrize("variant", SSDS.names())
def test_pictures_of_every_variant(tiny, records, tmp_path, variant):
    """Every level is shown, and the layers of the base by their names in FEATURE_LAYER."""
    torch.manual_seed(0)
    net = "mobilenet_v1_S1L0" if variant.endswith("_dual") else "mobilenet_v1_025"
    tower = ["MODEL.HEAD=tower"] if variant == "fpn" else []
    names = ["MODEL.IMAGE_SIZE=[96,128]", "MODEL.NUM_CLASSES=4", f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", *tower]
    cfg = tiny(*names)
    model = create_model(cfg)
    found = {path.stem for path in run(cfg, model, records)}
    maps = source_map_sizes(model.backbone, model.neck, SIZE)
    names = [f"level_{number}_{rows}x{columns}" for number, (rows, columns) in enumerate(maps, start=1)]
    large = {name for name, (rows, columns) in zip(names, maps, strict=True) if rows * columns >= 4}
    features = {name.removeprefix("features_") for name in found if name.startswith("features_")}
    assert {f"prior_boxes_{name}" for name in names} | {f"gradients_{name}" for name in names} <= found
    assert {name for name in features if name.startswith("level")} == large
    layers = {name.rpartition("_")[0] for name in features if not name.startswith("level")}
    assert {f"base_layer_{tap}" for tap in model.backbone.taps} <= layers
    assert ("end_of_the_coarse_path" in layers) == variant.endswith("_dual")


def test_a_place_inside_a_layer_is_named_as_it_is_given(tiny, records, tmp_path):
    layers = "MODEL.FEATURE_LAYER=[['11.2',13],[null,null]]"
    cfg = tiny("MODEL.IMAGE_SIZE=[96,128]", "MODEL.NUM_CLASSES=4", f"EXP_DIR={tmp_path}", layers)
    assert tmp_path / "visualize" / "features_base_layer_11_2_6x8.png" in run(cfg, create_model(cfg), records)


def test_a_model_is_only_looked_at(cfg, model, records):
    model.train()
    model.backbone.layers[0].eval()  # as where the norms of frozen parts are held
    next(model.head.parameters()).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with torch.no_grad():  # phases that do not train may well be inside of this
        run(cfg, model, records)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_folder_that_cannot_be_written_is_named(cfg, model, records, tmp_path):
    (tmp_path / "visualize").write_text("in the way")
    with pytest.raises(UserError, match="visualize.*cannot be written"):
        run(cfg, model.train(), records)
    assert model.training


def test_augmentation_follows_the_seed(records):
    image, target = read_image(records.image_path(0)), records.target(0)
    first, again, other = (augmentation_picture(image, target, TrainTransform(SIZE), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_colours_are_right_for_models_that_take_rgb(records):
    image, target = read_image(records.image_path(0)), records.target(0)
    bgr, rgb = (
        augmentation_picture(image, target, TrainTransform(SIZE, color_order=order, pixel_means=means))
        for order, means in (("BGR", (10, 20, 30)), ("RGB", (30, 20, 10)))
    )
    np.testing.assert_array_equal(bgr, rgb)


def test_the_image_is_chosen_by_name_file_or_number(records):
    named = records.image_id(3)
    assert find_image(records, named) == find_image(records, "3") == 3
    assert find_image(records, records.image_path(3)) == find_image(records, f"{named}.jpg") == 3
    assert find_image(records, "") == int(np.flatnonzero(np.diff(records.offsets))[0])


def test_an_image_that_is_not_there_is_named(cfg, model, records):
    cfg.VISUALIZE.IMAGE = "99"
    with pytest.raises(UserError, match=f"VISUALIZE.IMAGE: '99' is no image of .* 0 to {len(records) - 1}"):
        run(cfg, model, records)
    with pytest.raises(UserError, match=f"such as {records.image_id(2)}"):
        find_image(records, records.image_id(2) + "x")


def test_a_wrong_image_is_told_before_the_training(tiny, tmp_path):
    with pytest.raises(UserError, match="VISUALIZE.IMAGE: 'nobody' is no image"):
        Solver(tiny("PHASE=train,visualize", "VISUALIZE.IMAGE=nobody"))
    assert not list((tmp_path / "run").glob("*.pth"))


def test_the_gradients_of_a_chosen_detection_are_drawn(cfg, model, records, tmp_path):
    cfg.VISUALIZE.DETECTION = 3
    assert tmp_path / "visualize" / "gradients_detection_3.png" in run(cfg, model, records)
    cfg.VISUALIZE.DETECTION = 100_000
    with pytest.raises(UserError, match=r"VISUALIZE.DETECTION: 100000: the image has \d+ detections"):
        run(cfg, model, records)


@torch.no_grad()
def test_the_prior_of_a_detection_is_found(model):
    predictions = model.eval()(torch.randn(1, 3, *SIZE))
    loc = predictions.loc + torch.randn(predictions.loc.shape, generator=torch.Generator().manual_seed(1))
    predictions = predictions._replace(loc=loc, conf=3 * torch.randn(predictions.conf.shape))
    (found,) = PostProcess()(predictions)
    scores, boxes = predictions.conf[0].softmax(1), loc[0]
    for number in (0, 1, 7):
        prior = prior_of(predictions, found, number, (0.1, 0.2))
        assert torch.isclose(scores[prior, found.labels[number]], found.scores[number])
        x1, y1, x2, y2 = found.boxes[number]
        cx, cy, w, h = predictions.priors[prior]
        assert torch.isclose((x1 + x2) / 2, cx + boxes[prior, 0] * 0.1 * w, atol=1e-5)
        assert torch.isclose(y2 - y1, h * torch.exp(0.2 * boxes[prior, 3]), atol=1e-5)


def hand_made_match():
    """Four priors of 40 x 20 pixels side by side on the first level and one of 160 x 80 on the second, in an input of
    160 x 80; of the first image one object is the first prior, one half of the second and one crowd; of the second
    image one fits nothing well."""
    priors = [[0.125 + 0.25 * i, 0.5, 0.25, 0.25] for i in range(4)] + [[0.5, 0.5, 1.0, 1.0]]
    boxes = [[0, 0.375, 0.25, 0.625], [0.25, 0.375, 0.375, 0.625], [0, 0, 1, 1.0]]
    crowd = torch.tensor([False, False, True])
    first = Target(torch.tensor(boxes), torch.tensor([1, 2, 2]), crowd.clone(), crowd=crowd)
    second = Target(torch.tensor([[0.75, 0.375, 0.85, 0.625]]), torch.tensor([2]))
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    levels = [LevelInfo(1, 4, 1, 0), LevelInfo(1, 1, 1, 4)]
    return match_statistics([first, empty, second], torch.tensor(priors), levels, (80, 160), 0.5), levels


def test_matching_statistics_equal_those_by_hand():
    statistics, levels = hand_made_match()
    np.testing.assert_allclose(statistics.sides, [[40, 20], [20, 20], [16, 20]], rtol=1e-5)
    np.testing.assert_allclose(statistics.best_iou, [1, 0.5, 0.4], rtol=1e-5)
    np.testing.assert_array_equal(statistics.positives, [[1, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(statistics.covered, [True, True, False])
    np.testing.assert_allclose(statistics.measures["aspect ratio"], [2, 1, 0.8], rtol=1e-5)
    np.testing.assert_allclose(statistics.measures["size"], [800**0.5, 20, 320**0.5], rtol=1e-5)
    cat, dog, everything = match_rows(statistics, ("cat", "dog"))
    assert cat == ("cat", 1, ("100.0 %", 1.0), pytest.approx(1), 0, 0, 1, 1)
    assert dog == ("dog", 2, ("50.0 %", 0.5), pytest.approx(0.45), 1, 0, 1, 1)
    assert everything[:3] == ("all", 3, ("66.7 %", pytest.approx(2 / 3)))
    one, two = level_rows(statistics, levels)
    assert one == ("1 (1x4)", 4, ("100.0 %", 1), ("100.0 %", 1)) and two == ("2 (1x1)", 1, ("0.0 %", 0), ("0.0 %", 0))


def test_matching_figures_count_every_object_once():
    statistics, _ = hand_made_match()
    for figure in match_figures(statistics).values():
        bars, _ = figure.axes
        assert sum(bar.get_height() for bar in bars.patches) == 3
        assert sorted(text.get_text().split("of ")[1] for text in bars.texts) in (["1", "2"], ["3"], ["1", "1", "1"])


def test_bins_hold_all_values():
    np.testing.assert_allclose(half_octaves(np.array([16.0, 20, 31])), [16, 16 * 2**0.5, 32])
    np.testing.assert_allclose(half_octaves(np.array([16.0])), [16, 16 * 2**0.5])


def test_levels_cover_all_priors_in_order(model):
    levels = detector_levels(model.eval(), torch.zeros(1, 3, *SIZE))
    assert [level.priors.start for level in levels[1:]] == [level.priors.stop for level in levels[:-1]]
    assert levels[0].priors.start == 0 and levels[-1].priors.stop == len(model.priors)
    for level in levels:
        rows = model.priors[level.priors, 1].unique()
        assert len(rows) == level.rows


def test_priors_of_the_middle_cell_are_drawn_where_they_are():
    """One level of 1 x 1 cells with one prior on a flat image: its outline, and nothing else, in its colour."""
    from lib.utils.draw import class_color

    picture = np.full((400, 400, 3), 60, np.uint8)
    scene = Scene(picture, np.zeros((0, 4)), np.zeros(0), torch.zeros(1, 3, 100, 100))
    priors = torch.tensor([[0.5, 0.5, 0.5, 0.25]])
    titled = prior_pictures(scene, priors, [LevelInfo(1, 1, 1, 0)])
    picture = titled["level 1 (1x1)"]
    y, x = np.nonzero((picture == class_color(1)).all(axis=2))
    assert x.max() - x.min() == pytest.approx(200, abs=6)
    assert y.max() - y.min() >= 100 - 6  # and the caption


class Spotlight(nn.Module):
    """A detector whose first level looks at the left half of the image for class 2, the second at the right for 1."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("priors", torch.tensor([[0.25, 0.5, 0.3, 0.3], [0.75, 0.5, 0.3, 0.3]]))

    def forward(self, images, state=None):
        left, right = images[..., :64].mean((1, 2, 3)), images[..., 64:].mean((1, 2, 3))
        zero = torch.zeros_like(left)
        conf = torch.stack(
            [torch.stack([zero, zero, 5 + self.scale * left], 1), torch.stack([zero, right, zero], 1)], 1
        )
        return Predictions(torch.zeros(len(images), 2, 4), conf, self.priors, None)


def test_saliency_lies_where_the_score_comes_from():
    picture = np.full((192, 256, 3), 128, np.uint8)
    scene = Scene(picture, np.zeros((0, 4)), np.zeros(0), torch.zeros(1, 3, 96, 128))
    levels = [LevelInfo(1, 1, 1, 0), LevelInfo(1, 1, 1, 1)]
    pictures = gradient_pictures(Spotlight(), scene, levels, ("cat", "dog"))
    for title, bright in (("strongest", "left"), ("level 1 (1x1)", "left"), ("level 2 (1x1)", "right")):
        shown = pictures[title].max(axis=2)[60:].astype(float)
        middle = shown.shape[1] // 2
        left, right = shown[:, : middle - 20].mean(), shown[:, middle + 20 :].mean()
        assert (left > right + 50) if bright == "left" else (right > left + 50)


def test_the_overlay_is_bright_where_the_map_is_large():
    values = np.zeros((4, 4))
    values[1, 2] = 5.0
    shown = overlay(np.zeros((80, 80, 3), np.uint8), values)
    bright = shown.sum(axis=2) == shown.sum(axis=2).max()
    y, x = np.nonzero(bright)
    assert (x.min(), x.max(), y.min(), y.max()) == (40, 59, 20, 39)
    assert np.isfinite(overlay(np.zeros((8, 8, 3), np.uint8), np.full((1, 1), 3.0))).all()


def test_images_without_objects_and_tiny_images(cfg, model, tmp_path, monkeypatch):
    monkeypatch.setattr(visualize, "match_figures", match_figures)
    cv2.imwrite(str(tmp_path / "tiny.png"), np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    records = DetectionRecords.build(CLASSES, [str(tmp_path / "tiny.png")], ["tiny"], [(20, 30)], [], [], [], [0])
    cfg.DATASET.COLOR_ORDER = "RGB"
    paths = run(cfg, model, records)
    assert len(paths) > 5 and not [path for path in paths if "matching" in path.name]  # there is nothing to match

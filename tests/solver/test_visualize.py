import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lib.dataset.dataset_factory import create_records
from lib.dataset.transforms import EvalTransform, TrainTransform, read_image
from lib.modeling.model_builder import create_model
from lib.modeling.ssds import SSDS
from lib.modeling.ssds.detector import source_map_sizes
from lib.solver import visualize
from lib.solver.task import Normalize
from lib.solver.visualize import detector_levels, gradient_pictures, look_at, run_visualize
from lib.solver.writer import RunWriter
from lib.structures import Predictions, Target
from lib.utils.errors import UserError

SIZE = (96, 128)
CLASSES = ("circle", "square", "triangle")


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch):
    monkeypatch.setattr(visualize, "PICTURE_SIDE", 200)
    monkeypatch.setattr(visualize, "TILE_SIDE", 100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on busy cores, threads that wait for each other take longer than all the work
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def records(tiny):
    return create_records(tiny(), "test")


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return create_model(tiny("MODEL.IMAGE_SIZE=[96,128]", "MODEL.NUM_CLASSES=4"))


def run(model, records, writer, out, order="BGR", **more):
    transforms = TrainTransform(SIZE, color_order=order), EvalTransform(SIZE, order)
    normalize = Normalize([103.94, 116.78, 123.68], [58.0, 58.0, 58.0])
    return run_visualize(model, records, *transforms, normalize, CLASSES, writer, out, **more)


def scene_of(records, index=0):
    image, target = read_image(records.image_path(index)), records.target(index)
    return look_at(image, target, EvalTransform(SIZE), Normalize([0, 0, 0], [255.0] * 3), torch.device("cpu"))


def test_pictures_of_every_kind_reach_the_folder_and_tensorboard(model, records, tmp_path):
    with RunWriter(tmp_path / "log") as writer:
        paths = run(model, records, writer, tmp_path / "visualize", step=12)
    tags = EventAccumulator(str(tmp_path / "log")).Reload().Tags()["images"]
    assert len(tags) == len(paths) == len(set(paths))
    assert set(paths) == set((tmp_path / "visualize").glob("*.png"))
    for path in paths:
        assert cv2.imread(str(path)).std() > 5, f"{path} shows nothing"
    levels = [level.name for level in detector_levels(model.eval(), torch.zeros(1, 3, *SIZE))]
    for number, name in enumerate(levels, start=1):
        assert f"visualize/prior boxes/level {number} ({name})" in tags
        assert f"visualize/gradients/level {number} ({name})" in tags
    assert {f"visualize/features/base layer {tap} (6x8)" for tap in model.backbone.taps[:1]} <= set(tags)
    assert {
        "visualize/prior boxes/all levels", "visualize/augmentation/step by step", "visualize/features/level 1 (6x8)",
        "visualize/gradients/all levels", "visualize/gradients/strongest",
    } <= set(tags)  # fmt: skip


@pytest.mark.parametrize("variant", SSDS.names())
def test_pictures_of_every_variant(tiny, records, tmp_path, variant):
    """Every level is shown, and the layers of the base by their names in FEATURE_LAYER."""
    torch.manual_seed(0)
    net = "mobilenet_v1_S1L0" if variant.endswith("_dual") else "mobilenet_v1_025"
    tower = ["MODEL.HEAD=tower"] if variant == "fpn" else []
    model = create_model(
        tiny("MODEL.IMAGE_SIZE=[96,128]", "MODEL.NUM_CLASSES=4", f"MODEL.SSDS={variant}", f"MODEL.NETS={net}", *tower)
    )
    found = {path.stem for path in run(model, records, None, tmp_path)}
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
    model = create_model(tiny("MODEL.IMAGE_SIZE=[96,128]", "MODEL.NUM_CLASSES=4", layers))
    assert tmp_path / "features_base_layer_11_2_6x8.png" in run(model, records, None, tmp_path)


def test_a_model_is_only_looked_at(model, records, tmp_path):
    model.train()
    model.backbone.layers[0].eval()  # as where the norms of frozen parts are held
    next(model.head.parameters()).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    with torch.no_grad():  # phases that do not train may well be inside of this
        run(model, records, None, tmp_path)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_mode_comes_back_also_after_an_error(model, records, tmp_path):
    model.train()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        run(model, records, None, tmp_path / "file" / "out")
    assert model.training


def test_augmentation_follows_the_seed(records):
    image, target = read_image(records.image_path(0)), records.target(0)
    first, again, other = (
        visualize.augmentation_picture(image, target, TrainTransform(SIZE), seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_colours_are_right_for_models_that_take_rgb(records):
    image, target = read_image(records.image_path(0)), records.target(0)
    bgr, rgb = (
        visualize.augmentation_picture(image, target, TrainTransform(SIZE, color_order=order, pixel_means=means))
        for order, means in (("BGR", (10, 20, 30)), ("RGB", (30, 20, 10)))
    )
    np.testing.assert_array_equal(bgr, rgb)


def test_an_image_that_is_not_there_is_named(model, records, tmp_path):
    with pytest.raises(UserError, match=f"image 99 .* 0 to {len(records) - 1}"):
        run(model, records, None, tmp_path, image_index=99)


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
    scene = visualize.Scene(picture, np.zeros((0, 4)), np.zeros(0), torch.zeros(1, 3, 100, 100))
    priors = torch.tensor([[0.5, 0.5, 0.5, 0.25]])
    titled = visualize.prior_pictures(scene, priors, [visualize.LevelInfo(1, 1, 1, 0)])
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
    scene = visualize.Scene(picture, np.zeros((0, 4)), np.zeros(0), torch.zeros(1, 3, 96, 128))
    levels = [visualize.LevelInfo(1, 1, 1, 0), visualize.LevelInfo(1, 1, 1, 1)]
    pictures = gradient_pictures(Spotlight(), scene, levels, ("cat", "dog"))
    for title, bright in (("strongest", "left"), ("level 1 (1x1)", "left"), ("level 2 (1x1)", "right")):
        shown = pictures[title].max(axis=2)[60:].astype(float)
        middle = shown.shape[1] // 2
        left, right = shown[:, : middle - 20].mean(), shown[:, middle + 20 :].mean()
        assert (left > right + 50) if bright == "left" else (right > left + 50)


def test_the_overlay_is_bright_where_the_map_is_large():
    values = np.zeros((4, 4))
    values[1, 2] = 5.0
    shown = visualize._overlay(np.zeros((80, 80, 3), np.uint8), values)
    bright = shown.sum(axis=2) == shown.sum(axis=2).max()
    y, x = np.nonzero(bright)
    assert (x.min(), x.max(), y.min(), y.max()) == (40, 59, 20, 39)
    assert np.isfinite(visualize._overlay(np.zeros((8, 8, 3), np.uint8), np.full((1, 1), 3.0))).all()


def test_images_without_objects_and_tiny_images(model, tmp_path):
    cv2.imwrite(str(tmp_path / "tiny.png"), np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))

    class OneImage:
        def __len__(self):
            return 1

        def image_path(self, index):
            return str(tmp_path / "tiny.png")

        def read(self, index):
            return read_image(self.image_path(index))

        def target(self, index):
            return Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), size=(20, 30))

    assert run(model, OneImage(), None, tmp_path / "out", order="RGB")

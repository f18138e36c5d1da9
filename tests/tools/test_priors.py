"""The priors tool: how objects are counted as covered, the search, and the file that it proposes."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader, create_records
from lib.dataset.detection import DetectionRecords
from lib.dataset.shapes_video import VideoParameters, write_videos
from lib.layers.box import cxcywh_to_xyxy, pairwise_iou
from lib.modeling.model_builder import create_model
from lib.tools.prior_layout import Layout, Objects, count_matches, nearest_ious
from lib.tools.prior_objects import draw_objects, plain_objects
from lib.tools.prior_search import kmeans_iou, level_ranges, propose
from lib.tools.priors import fit_steps, main, read_layout
from tests.dataset.folders import write_voc

SSD300 = Layout(
    (300, 300),
    ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)),
    [[1, 2], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2], [1, 2]],
    [[s, s] for s in (30, 60, 111, 162, 213, 264, 315)],
    [[s, s] for s in (8, 16, 32, 64, 100, 300)],
    True,
)
WIDE = Layout((240, 320), ((30, 40), (4, 5)), [[[0.1, 0.2], [1.3, 0.4]], [1, 1.5]], [0.2, 0.9], [], False)


def random_boxes(number, seed=0) -> torch.Tensor:
    """Boxes of all shapes and sizes, some cut by the border."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.rand(number, 2, generator=generator)
    sides = (torch.rand(number, 2, generator=generator) * 4 - 4).exp()
    return cxcywh_to_xyxy(torch.cat([middle, sides], 1)).clamp(0, 1)


def square_objects(sizes, images=8, per_image=20, augmented=False, seed=0) -> Objects:
    """Squares of these sizes in turn, anywhere in the image."""
    generator = torch.Generator().manual_seed(seed)
    number = images * per_image
    side = torch.tensor(sizes)[torch.arange(number) % len(sizes)][:, None]
    corner = torch.rand(number, 2, generator=generator) * (1 - side)
    image = torch.arange(number) // per_image
    labels = torch.ones(number, dtype=torch.int64)
    return Objects(torch.cat([corner, corner + side], 1), labels, image, torch.full((number,), augmented))


# --- overlaps with priors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [SSD300, WIDE], ids=["ssd300", "wide"])
def test_nearest_cells_hold_the_best_prior(layout):
    boxes = random_boxes(300)
    for ious, priors in zip(nearest_ious(boxes, layout).split(layout.counts, 1), layout.priors(), strict=True):
        for column in range(priors.shape[2]):
            every = cxcywh_to_xyxy(priors[:, :, column].reshape(-1, 4))
            torch.testing.assert_close(ious[:, column], pairwise_iou(boxes, every).amax(1), atol=1e-5, rtol=0)


def test_matches_are_those_of_all_pairs():
    boxes = random_boxes(200)
    counts = count_matches(boxes, SSD300, nearest_ious(boxes, SSD300), 0.5)
    for (unmatched, matches), priors in zip(counts, SSD300.priors(), strict=True):
        reached = pairwise_iou(boxes, cxcywh_to_xyxy(priors.reshape(-1, 4))) >= 0.5
        assert unmatched == int((~reached.any(0)).sum())
        assert matches == pytest.approx(float(reached.sum()) / len(boxes))


# --- the search -------------------------------------------------------------------------------------------------------


def test_kmeans_recovers_planted_clusters():
    planted = torch.tensor([[0.05, 0.05], [0.1, 0.3], [0.4, 0.1], [0.6, 0.5]])
    shapes = planted.repeat(25, 1)[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(kmeans_iou(shapes, 4), planted)
    torch.testing.assert_close(kmeans_iou(shapes, 9), planted)  # there are no more to be found


def test_kmeans_finds_the_middle_of_noisy_clusters():
    planted = torch.tensor([[0.05, 0.08], [0.2, 0.2], [0.7, 0.4]])
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(2)) * 0.05
    shapes = planted.repeat(100, 1) * noise.exp()
    for seed in range(3):
        torch.testing.assert_close(kmeans_iou(shapes, 3, seed=seed), planted, rtol=0.02, atol=0)


def test_kmeans_heeds_weights_and_takes_nothing():
    shapes = torch.tensor([[0.1, 0.1], [0.2, 0.2]])
    torch.testing.assert_close(kmeans_iou(shapes, 1, torch.tensor([3.0, 1.0])), torch.tensor([[0.125, 0.125]]))
    assert kmeans_iou(shapes[:0], 3).shape == (0, 2)


def test_levels_of_ssd300_get_the_objects_that_its_authors_gave_them():
    ranges = level_ranges(SSD300, reach=3)
    assert ranges[0][0] == 0 and ranges[-1][1] == float("inf")
    assert [end for _, end in ranges[:-1]] == [start for start, _ in ranges[1:]]
    larger_squares = (42, 82, 134, 186, 237, 288)
    assert all(low < side / 300 < high for side, (low, high) in zip(larger_squares, ranges, strict=True))


def test_a_level_gets_no_object_beyond_its_receptive_field():
    seen = Layout(*[getattr(SSD300, name) for name in ("image_size", "map_sizes", "ratios", "sizes", "steps")], True,
                  fields=(0.12, 1, 2, 2, 2, 2))  # fmt: skip
    assert level_ranges(seen, reach=3)[0][1] == pytest.approx(0.08)
    assert level_ranges(seen, reach=3)[1][1] == level_ranges(SSD300, reach=3)[1][1]


def test_proposal_covers_more_with_as_many_priors():
    objects = Objects.concat([square_objects([0.05, 0.06]), square_objects([0.05, 0.065], augmented=True, seed=1)])
    before = nearest_ious(objects.boxes, SSD300).amax(1)
    found = propose(SSD300, SSD300.counts, objects, 0.5)
    after = nearest_ious(objects.boxes, found.layout).amax(1)
    assert found.layout.counts == SSD300.counts
    assert float((before >= 0.5).float().mean()) < 0.3
    assert float((after >= 0.5).float().mean()) > 0.9
    assert found.layout.steps == SSD300.steps
    assert propose(SSD300, SSD300.counts, objects, 0.5) == found


def test_good_priors_are_left_alone():
    objects = Objects.concat([square_objects([0.05, 0.06]), square_objects([0.05, 0.065], augmented=True, seed=1)])
    good = propose(SSD300, SSD300.counts, objects, 0.5).layout
    assert propose(good, good.counts, objects, 0.5).layout is None


def test_odd_counts_become_pairs():
    objects = Objects.concat([square_objects([0.1, 0.4]), square_objects([0.1, 0.3], augmented=True, seed=1)])
    found = propose(SSD300, [3, 1, 5, 2, 2, 1], objects, 0.5)
    assert found.kind == "pairs" and found.layout.counts == [3, 1, 5, 2, 2, 1]
    assert "ratios" not in found.scores


@pytest.mark.parametrize(
    ("map_size", "step", "fitting"),
    [
        ((30, 40), [8, 8], [8, 8]),
        ((8, 10), [32, 32], [32, 32]),  # 256 pixels for 240: the network's own stride
        ((8, 10), [64, 32], [30, 32]),
        ((8, 10), [32, 16], [30, 32]),
        ((7, 3), [34.5, 110.0], [34.5, 110.0]),
    ],
)
def test_only_steps_that_do_not_fit_the_map_are_changed(map_size, step, fitting):
    layout = Layout((240, 320), (map_size,), [[1]], [[9, 9], [9, 9]], [step], True)
    assert fit_steps(layout) == ([fitting], [0] if fitting != step else [])


# --- objects as training shows them -----------------------------------------------------------------------------------


TILES = "MODEL:\n  SSDS: ssd_lite\n  NETS: mobilenet_v1\n  IMAGE_SIZE: 64\n  FEATURE_LAYER: [[13], [1024]]\n" + (
    "  SIZES: [[32, 32], [32, 32]]\n  ASPECT_RATIOS: [[[1, 1]]]\n"
)
"""Four priors that are the quarters of the image."""

PLAIN = "  CROP_PROB: 0\n  PROB: 0\n"


@pytest.fixture
def write(tmp_path):
    """A data set and a file for it: write(objects by image, model, lines of DATASET) -> path of the file."""

    def write_both(objects, model=TILES, data=PLAIN, size=(64, 64)):
        folder = write_voc(tmp_path / "data", {"trainval": sorted(objects), "test": ["t"]}, objects, size=size)
        path = tmp_path / "x.yml"
        text = f"DATASET:\n  DATASET: custom\n  DATASET_DIR: {folder}\n  TRAIN_SETS: [trainval]\n{data}"
        path.write_text(f"{model}{text}EXP_DIR: {tmp_path / 'run'}\n")
        return path

    return write_both


def corners(x1, y1, x2, y2):
    """Edges in pixels as VOC writes them: from 1, the last pixel included."""
    return (x1 + 1, y1 + 1, x2 + 1, y2 + 1)


HAND_MADE = {
    "a": [("cat", corners(0, 0, 32, 32)), ("cat", corners(32, 32, 64, 48))],  # a quarter; half of one
    "b": [("dog", corners(0, 32, 16, 48)), ("cat", corners(0, 0, 64, 64))],  # a fourth of one; four of them
}


def figures_of(path, *options):
    report = path.parent / "report.json"
    assert main(["--cfg", str(path), "--json", str(report), *options]) == 0
    return json.loads(report.read_text())


def row_of(figures, name, size="all"):
    return next(row for row in figures["coverage"] if (row["class"], row["size"]) == (name, size))


def test_coverage_of_a_folder_is_what_a_hand_computes(write, capsys):
    figures = figures_of(write(HAND_MADE), "--images", "2")
    cat = {"covered": 2, "share": 0.6667, "forced": 1, "missed": 0, "mean_iou": round((1 + 1 / 2 + 1 / 4) / 3, 4)}
    dog = {"covered": 0, "share": 0.0, "forced": 1, "missed": 0, "mean_iou": 0.25}
    assert row_of(figures, "cat")["plain"] == {"objects": 3, "given": cat}
    assert row_of(figures, "dog")["plain"] == {"objects": 1, "given": dog}
    # All that the augmentation does is to mirror, and a mirror image of the quarters is the quarters.
    assert row_of(figures, "cat")["augmented"] == {"objects": 3, "given": cat, "lost": 0}
    assert row_of(figures, "cat", "32-64")["plain"]["given"]["covered"] == 1
    assert figures["priors"] == {"given": 4} and figures["proposal"] is None
    assert "it takes 20 objects" in capsys.readouterr().out


def test_small_objects_are_counted_as_lost(write):
    figures = figures_of(write(HAND_MADE, data=PLAIN + "  MIN_BOX_SIZE: 0.3\n"), "--images", "2")
    assert row_of(figures, "dog")["augmented"] == {"objects": 0, "lost": 1} | {
        "given": {"covered": 0, "share": None, "forced": 0, "missed": 0, "mean_iou": None}
    }
    assert row_of(figures, "cat")["augmented"]["lost"] == 1
    assert row_of(figures, "cat")["plain"]["objects"] == 3


def test_boxes_are_those_of_training(write):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 40, (24, 2))
    boxes = [corners(*start, *(start + size)) for start, size in zip(low, rng.integers(3, 24, (24, 2)), strict=True)]
    objects = {f"i{k}": [("cat", boxes[3 * k + j]) for j in range(3)] for k in range(8)}
    path = write(objects, data="  MOSAIC: 0.4\n  MIXUP: 0.4\n  ROTATION: 20\n  MIN_BOX_SIZE: 0.1\n  NUM_WORKERS: 0\n")
    cfg = load_config(path, ["TRAIN.BATCH_SIZE=4"])
    records = create_records(cfg, "train")
    drawn, lost = draw_objects(cfg, records, 16)
    batches = iter(create_loader(cfg, "train", records))
    seen = torch.cat([target.boxes for _ in range(2) for target in next(batches)[0].targets])
    assert torch.equal(drawn.boxes[: len(seen)], seen) and len(drawn) > len(seen) > 0
    assert len(lost) and float(lost.shapes().amin(1).max()) < 0.1


def test_large_sets_are_sampled_all_over(write):
    path = write({f"i{k}": [("cat", corners(0, 0, 32, 32))] for k in range(12)}, data=PLAIN + "  SHUFFLE: False\n")
    cfg = load_config(path, ["TRAIN.BATCH_SIZE=4"])
    records = create_records(cfg, "train")
    assert draw_objects(cfg, records, 4)[0].scenes.tolist() == [0, 3, 6, 9]
    assert len(draw_objects(cfg, records, 18)[0]) == 18
    assert len(plain_objects(records)) == 12


# --- videos -----------------------------------------------------------------------------------------------------------

RECURRENT = """
MODEL: {SSDS: lstm_ssd, NETS: mobilenet_v1_025, NUM_CLASSES: 7, IMAGE_SIZE: 64,
  FEATURE_LAYER: [[5, 11, S], [64, 128, 64]], SIZES: [0.3, 0.9],
  RNN: {IN_USE: True, BACKPROP_STEPS: 3, FRAMES_IN_VIDEO: 9, BATCH_SIZE: 2}}
TRAIN: {BATCH_SIZE: 4}
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A configuration of a recurrent detector for videos of 12 frames."""
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder / "data", VideoParameters(num_train=4, num_val=1, num_test=1, size=64, frames=12), 1)
    data = f"DATASET: {{DATASET: coco_vid, DATASET_DIR: {folder / 'data'}, TRAIN_SETS: [train], NUM_WORKERS: 0}}\n"
    path = folder / "x.yml"
    path.write_text(f"{RECURRENT}{data}EXP_DIR: {folder / 'run'}\n")
    return path


@pytest.mark.parametrize("stills", [0, 5])
def test_boxes_of_videos_are_those_of_the_first_epoch(videos, stills):
    """Clips, augmented alike, or stills of their own each; both augmentations leave the objects of their video."""
    cfg = load_config(videos, [f"MODEL.RNN.USE_LSTM_AFTER_EPOCH={stills}"])
    records = create_records(cfg, "train")
    drawn, _ = draw_objects(cfg, records, 36 if stills == 0 else 48)
    loader = iter(create_loader(cfg, "train", records, clips=stills == 0))
    targets = [target for _ in range(2) for batch in next(loader) for target in batch.targets]
    seen = torch.cat([target.boxes for target in targets])
    assert torch.equal(drawn.boxes[: len(seen)], seen)
    scenes = [target.image_id[0] for target in targets for _ in range(len(target.boxes))]
    assert drawn.scenes[: len(seen)].tolist() == [list(records.videos).index(video) for video in scenes]


def test_frames_of_a_video_are_one_scene(videos):
    """What was learnt from a frame is not to be checked on the next one."""
    records = create_records(load_config(videos), "train")
    plain = plain_objects(records)
    assert len(plain) == len(records.boxes) and len(plain.scenes.unique()) == 4


def test_command_proposes_priors_for_videos(videos, capsys):
    assert main(["--cfg", str(videos), "--images", "96", "SEED=3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "objects in 48 frames in 4 videos of" in shown and "priors/x_priors.yml holds the proposal" in shown
    patch = load_config(videos.parent / "run/priors/x_priors.yml")
    assert (
        patch.MODEL.SSDS == "lstm_ssd" and read_layout(patch).num_priors == read_layout(load_config(videos)).num_priors
    )


def test_one_video_is_no_sample(videos, tmp_path, capsys):
    write_videos(tmp_path / "one", VideoParameters(num_train=1, num_val=1, num_test=0, size=64, frames=40), 1)
    assert main(["--cfg", str(videos), "--images", "40", f"DATASET.DATASET_DIR={tmp_path / 'one'}"]) == 0
    assert "No proposal: it takes 20 objects, in more than one video" in capsys.readouterr().out


# --- the command ------------------------------------------------------------------------------------------------------

LITE = "MODEL:\n  SSDS: ssd_lite\n  NETS: mobilenet_v1\n  IMAGE_SIZE: [96, 128]\n"
LEVELS = "  FEATURE_LAYER: [[5, 11, 'S'], [256, 512, 256]]\n  STEPS: [[8, 8], [16, 16], [100, 100]]\n" + (
    "  SIZES: [[60, 60], [70, 70], [80, 80], [90, 90]]\n  ASPECT_RATIOS: [[1, 2], [1, 2], [1, 2]]\n"
)


def many(images=12, seed=0):
    """Cats of about 12 x 24 pixels and dogs of about 40 x 30 in images of 96 x 128."""
    rng = np.random.default_rng(seed)
    objects = {}
    for image in range(images):
        objects[f"i{image}"] = found = []
        for name, sides in (("cat", (12, 24)), ("cat", (12, 24)), ("dog", (40, 30))):
            width, height = np.rint(np.array(sides) * rng.normal(1, 0.1, 2).clip(0.7, 1.3)).astype(int)
            x, y = rng.integers(0, 128 - width), rng.integers(0, 96 - height)
            found.append((name, corners(x, y, x + width, y + height)))
    return objects


def covered(cfg, records) -> float:
    """The share of the objects that some prior of the model overlaps by a half, found by looking at all of them."""
    with torch.device("meta"):
        num_priors = len(create_model(cfg).priors)
    priors = torch.cat([level.reshape(-1, 4) for level in read_layout(cfg).priors()])
    assert len(priors) == num_priors
    boxes = torch.cat([records.target(index).boxes for index in range(len(records))])
    return float((pairwise_iou(boxes, cxcywh_to_xyxy(priors)).amax(1) >= 0.5).float().mean())


def test_proposal_loads_builds_and_covers_more(write, tmp_path, capsys):
    path = write(many(), LITE + LEVELS, "", size=(96, 128))
    assert main(["--cfg", str(path), "--images", "96", "MODEL.NUM_CLASSES=3"]) == 0
    patch = tmp_path / "run" / "priors" / "x_priors.yml"
    shown = capsys.readouterr()
    assert str(patch) in shown.out and "level 2: [100, 100] does not fit its map of 2 x 2 cells" in shown.err
    old, new = load_config(path, ["MODEL.NUM_CLASSES=3"]), load_config(patch)
    assert new.MODEL.NUM_CLASSES == 3
    assert new.MODEL.STEPS == [[8, 8], [16, 16], [48, 64]]
    assert Path(new.EXP_DIR) == tmp_path / "run_priors"
    records = create_records(new, "train")
    assert read_layout(new).num_priors == read_layout(old).num_priors
    assert covered(old, records) < 0.5 < 0.9 < covered(new, records)

    first = patch.read_bytes()
    assert main(["--cfg", str(path), "--images", "96", "MODEL.NUM_CLASSES=3"]) == 0  # its own file it writes anew
    assert patch.read_bytes() == first


def test_test_sets_are_not_looked_at(write):
    path = write(many(4), LITE + LEVELS, "", size=(96, 128))
    figures = figures_of(path, "--images", "4")
    assert figures["images"] == 4 and row_of(figures, "all")["plain"]["objects"] == 12  # the test image has a cat more


@pytest.mark.parametrize("given", ["mine", "edited", "folder"])
def test_files_of_others_are_not_overwritten(write, tmp_path, capsys, given):
    path = write(many(), LITE + LEVELS, "", size=(96, 128))
    patch = tmp_path / "p.yml"
    command = ["--cfg", str(path), "--out", str(patch), "--images", "12"]
    if given == "folder":
        patch.mkdir()
    elif given == "mine":
        patch.write_text("MODEL: {}\n")
    else:
        assert main(command) == 0
        patch.write_text(patch.read_text() + "SEED: 1\n")
    before = None if given == "folder" else patch.read_text()
    assert main(command) == 2
    assert "give another name" in capsys.readouterr().err
    assert before is None or patch.read_text() == before


def test_the_given_file_and_other_json_are_not_overwritten(write, tmp_path, capsys):
    path = write(many(2), LITE + LEVELS, "", size=(96, 128))
    other = tmp_path / "results.json"
    other.write_text("[]")
    for options in (["--out", str(path)], ["--json", str(other)], ["--json", str(path)]):
        assert main(["--cfg", str(path), *options]) == 2
    same = str(tmp_path / "same")
    assert main(["--cfg", str(path), "--out", same, "--json", same]) == 2
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error"] * 4
    assert other.read_text() == "[]" and path.read_text().startswith("MODEL:")


def test_boxes_per_cell_on_demand(write):
    path = write(many(), LITE + LEVELS, "", size=(96, 128))
    figures = figures_of(path, "--images", "24", "--boxes", "3,2,1")
    assert [len(level["boxes"]) for level in figures["levels"]["proposed"]] == [3, 2, 1]
    assert [len(ratios) for ratios in load_config(figures["proposal"]["file"]).MODEL.ASPECT_RATIOS] == [3, 2, 1]


@pytest.mark.parametrize("boxes", ["x", "0", "1,2", "", "-1", "4,4,4,4"])
def test_unfitting_words_for_boxes(write, capsys, boxes):
    path = write(many(2), LITE + LEVELS, "", size=(96, 128))
    assert main(["--cfg", str(path), f"--boxes={boxes}"]) == 2
    assert f"error: --boxes {boxes}: expected boxes per cell" in capsys.readouterr().err


def test_uneven_boxes_for_a_shared_head_are_refused(write, tmp_path, capsys):
    model = "MODEL:\n  SSDS: fpn\n  NETS: mobilenet_v1\n  IMAGE_SIZE: [96, 128]\n  HEAD: tower\n"
    path = write(many(), model, "", size=(96, 128))
    levels = len(read_layout(load_config(path, ["MODEL.NUM_CLASSES=3"])).map_sizes)
    boxes = ",".join(["2"] * (levels - 1) + ["3"])
    assert main(["--cfg", str(path), "--images", "12", "--boxes", boxes]) == 2
    assert "MODEL.HEAD: tower" in capsys.readouterr().err
    assert not (tmp_path / "run" / "priors").exists()


@pytest.mark.parametrize(
    "model",
    [
        LITE + "  ASPECT_RATIOS: [[2, 3], [2, 3]]\n",
        "MODEL:\n  SSDS: yolo_v2\n  NETS: mobilenet_v1\n  IMAGE_SIZE: [96, 128]\n",
        "MODEL:\n  SSDS: yolo_v3\n  NETS: mobilenet_v1\n  IMAGE_SIZE: [96, 128]\n"
        "  SIZES: [[96, 128], [96, 128], [96, 128]]\n"
        "  ASPECT_RATIOS: [[[0.8, 0.8], [0.9, 0.9]], [[0.4, 0.2]], [[0.02, 0.02]]]\n",
    ],
    ids=["without squares", "yolo_v2", "yolo_v3"],
)
def test_usual_levels_and_lists_of_pairs(write, model):
    """Variants whose levels are not in the file, whose finest level comes last, whose boxes are pairs."""
    path = write(many(), model, "", size=(96, 128))
    figures = figures_of(path, "--images", "48")
    assert figures["priors"]["proposed"] == figures["priors"]["given"]
    share = {name: row_of(figures, "all")["augmented"][name]["share"] for name in ("given", "proposed")}
    assert share["proposed"] > share["given"]
    patch = load_config(figures["proposal"]["file"], ["MODEL.NUM_CLASSES=3"])
    assert read_layout(patch).num_priors == figures["priors"]["given"]
    assert list(patch.MODEL.SIZES) == figures["proposal"]["SIZES"]


def test_one_object_of_one_class(write, capsys):
    path = write({"a": [("cat", corners(4, 4, 20, 20))]}, LITE + LEVELS, "", size=(96, 128))
    figures = figures_of(path, "--images", "5", "MODEL.STEPS=[]")
    assert {row["class"] for row in figures["coverage"]} == {"cat"}
    assert figures["augmented_objects"] == 5 and figures["proposal"] is None
    figures = figures_of(path, "--images", "5")  # a step that does not fit needs no objects to be seen
    assert figures["proposal"]["STEPS"] == [[8, 8], [16, 16], [48, 64]]
    assert figures["proposal"]["SIZES"] == [[60, 60], [70, 70], [80, 80], [90, 90]]
    assert "Only MODEL.STEPS changes" in capsys.readouterr().out


def test_no_object_at_all(write, capsys):
    path = write({"a": [], "b": []}, LITE + LEVELS, "  CLASSES: [cat]\n", size=(96, 128))
    assert main(["--cfg", str(path)]) == 2
    assert "hold no object to fit priors to" in capsys.readouterr().err


def test_everything_lost_to_the_size_filter(write):
    """An image that would lose every object is shown whole, so the objects remain, however small."""
    data = PLAIN + "  MIN_BOX_SIZE: 0.9\n"
    figures = figures_of(write(many(), LITE + LEVELS, data, size=(96, 128)), "--images", "12")
    assert figures["augmented_objects"] == 36 and row_of(figures, "all")["augmented"]["lost"] == 0


def test_objects_without_area_are_left_out(caplog):
    boxes = [[3, 3, 20, 20], [5, 5, 5, 20]]
    records = DetectionRecords.build(["cat"], ["a.jpg"], ["a"], [(64, 64)], boxes, [1, 1], [False] * 2, [2])
    cfg = load_config(None, ["DATASET.MIN_BOX_SIZE=0", "DATASET.PROB=0", "DATASET.CROP_PROB=0"])
    with caplog.at_level(logging.WARNING):
        assert len(draw_objects(cfg, records, 5)[0]) == 5 and len(plain_objects(records)) == 1
    assert "5 of 10 objects after augmentation have no area" in caplog.text


@pytest.mark.parametrize(
    "words",
    [["--cfg", "missing.yml"], [], ["--images", "0"], ["MODEL.SIZE=3"], ["DATASET.DATASET_DIR=/nonexistent"]],
    ids=" ".join,
)
def test_mistakes_are_told_in_one_line(write, capsys, words):
    path = write(many(2), LITE + LEVELS, "", size=(96, 128))
    command = words if "--cfg" in words or not words else ["--cfg", str(path), *words]
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1


def test_blood_cells_are_covered_better_than_by_priors_chosen_by_hand(shared, tmp_path):
    words = [f"DATASET.DATASET_DIR={shared / 'data' / 'BCCD'}", f"EXP_DIR={tmp_path}"]
    report = tmp_path / "report.json"
    cfg = "experiments/cfgs/ssd_lite_mobilenetv2_bccd.yml"
    assert main(["--cfg", cfg, "--json", str(report), "--images", "292", *words]) == 0
    figures = json.loads(report.read_text())
    assert figures["priors"] == {"given": 6400, "proposed": 6400}
    for name in ("Platelets", "RBC", "WBC"):
        for kind in ("plain", "augmented"):
            given, proposed = (row_of(figures, name)[kind][key] for key in ("given", "proposed"))
            assert proposed["share"] >= given["share"] and proposed["mean_iou"] > given["mean_iou"] + 0.02

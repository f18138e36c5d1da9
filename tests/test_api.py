"""The Python API: detectors of runs and files, called with images of any kind, from any thread."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import lib
from lib import Detections, UserError, load, predictor
from lib.config import load_config
from lib.config.effective import save_config
from lib.modeling.model_builder import create_model
from lib.solver.checkpoint import save_atomically
from lib.solver.run import run_content
from tests.detectors import write_detector
from tests.videos import grey_frame, write_video

ROOT = Path(__file__).parent.parent
NAMES = ["disc", "no", "off"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with checkpoints of two epochs; best.pth is the first."""
    folder = tmp_path_factory.mktemp("api")
    cfg = load_config(write_detector(folder)[0], ["MODEL.NUM_CLASSES=4", f"EXP_DIR={folder}"])
    for seed in (1, 2):
        torch.manual_seed(seed)
        position = {"epoch": seed, "batch": 0, "step": seed}
        content = run_content(cfg, NAMES, model=create_model(cfg).state_dict(), ema=None, position=position)
        save_atomically(content, folder / f"x_epoch_{seed}.pth")
        if seed == 1:
            save_atomically(content, folder / "best.pth")
    save_config(cfg, folder / "config.yml")
    return folder


@pytest.fixture(scope="module")
def detector(run):
    return load(run, device="cpu", threshold=0.3)


@pytest.fixture(scope="module")
def images():
    return [np.random.default_rng(i).integers(0, 255, (50 + 10 * i, 120, 3), dtype=np.uint8) for i in range(6)]


def same(one: Detections, two: Detections) -> bool:
    return len(one) and all(torch.equal(a, b) for a, b in zip(parts(one), parts(two), strict=True))


def parts(found: Detections) -> tuple:
    return found.boxes, found.scores, found.labels


def test_one_image_gives_its_detections_and_a_list_a_list(detector, images):
    found = detector(images[0])
    assert isinstance(found, Detections) and set(found.names) <= set(NAMES) and (found.scores >= 0.3).all()
    boxes = np.asarray(found.boxes)
    assert boxes.shape == (len(found), 4) and boxes.min() >= 0 and (boxes[:, 2:] <= [120, 50]).all()
    found.boxes += 1  # the caller's own
    for together, image in zip(detector(images), images, strict=True):
        torch.testing.assert_close(together.scores, detector(image).scores, atol=1e-5, rtol=0)
    assert detector([]) == [] and len(detector(iter(images))) == 6 and len(detector(images[:1])) == 1
    assert len(detector(np.stack(images[:1] * 2))) == 2


def test_a_run_is_the_checkpoint_that_the_test_would_score(run, detector, images, tmp_path):
    last, best = run / "x_epoch_2.pth", run / "best.pth"
    assert detector.checkpoint == last
    chosen = load(run, cfg=load_config(run / "config.yml", ["TEST.CHECKPOINT=best"]))
    assert chosen.checkpoint == best and same(chosen(images[0], 0.3), load(str(best))(images[0], 0.3))
    assert not same(chosen(images[0], 0.3), detector(images[0]))
    (tmp_path / last.name).write_bytes(last.read_bytes())
    alone = load(tmp_path, device="cpu")
    assert alone.checkpoint == tmp_path / last.name and same(alone(images[0], 0.3), detector(images[0]))


def test_weights_of_others_need_a_configuration(images, tmp_path):
    cfg, weights = write_detector(tmp_path)
    with pytest.raises(UserError, match="w.pth: holds weights without a configuration; give cfg="):
        load(weights)
    assert load(weights, cfg).class_names == tuple(NAMES)
    assert same(load(weights, cfg=str(cfg))(images[0], 0), load(weights, cfg=load_config(cfg))(images[0], 0))


def test_images_of_every_kind_are_the_same_image(detector, images, tmp_path):
    expected, rgb = detector(images[0]), np.ascontiguousarray(images[0][:, :, ::-1])
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    given = [
        tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(rgb), Image.open(tmp_path / "a.png"),
        Image.fromarray(rgb).convert("RGBA"), torch.from_numpy(rgb).permute(2, 0, 1), rgb[:, :, ::-1],
    ]  # fmt: skip
    assert all(same(detector(image), expected) for image in given)
    assert len({tuple(found.scores.tolist()) for found in detector(given)}) == 1
    grey = Image.fromarray(images[0][:, :, 0])
    assert same(detector(grey), detector(cv2.cvtColor(images[0][:, :, 0], cv2.COLOR_GRAY2BGR)))


def test_pillow_images_are_turned_as_their_files_are(run, images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(images[0]).save(tmp_path / "a.png", exif=exif)
    for policy, height in (("ignore", 50), ("apply", 120)):
        turning = predictor.ObjectDetector(
            load_config(run / "config.yml", [f"DATASET.EXIF={policy}"]), run / "best.pth"
        )
        shown = turning.read(Image.open(tmp_path / "a.png"))
        assert len(shown) == height and np.array_equal(shown, turning.read(tmp_path / "a.png"))


@pytest.mark.parametrize(
    "image",
    [7, None, [7], b"bytes", np.zeros((4, 4, 3)), torch.zeros(3, 4, 4), torch.zeros(4, 4, 3, dtype=torch.uint8)],
)
def test_what_is_no_image_is_refused(detector, image):
    with pytest.raises(UserError, match="an image must be a path or a BGR uint8 array"):
        detector(image)


def test_files_that_cannot_be_used_are_refused(detector, tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    for image, message in (
        (tmp_path / "a.jpg", "no image OpenCV can decode"),
        (tmp_path / "b.jpg", "No such file"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "mode I;16"),
    ):
        with pytest.raises(UserError, match=message):
            detector(image)


def test_classes_may_have_thresholds_of_their_own(run, detector, images):
    every = detector(images[0], 0)
    some = detector(images[0], {"disc": 1, "no": 0.0})
    usual = load_config(None).TEST.PICTURE_THRESHOLD
    limits = {"disc": 1, "no": 0, "off": usual}
    expected = [limits[name] <= score for name, score in zip(every.names, every.scores.tolist(), strict=True)]
    assert same(some, every.select(torch.tensor(expected))) and 0 < len(some) < len(every)
    assert same(load(run, device="cpu", threshold={"disc": 1, "no": 0.0})(images[0]), some)
    with pytest.raises(UserError, match="'dsc' is no class of this detector; did you mean 'disc'"):
        detector(images[0], {"dsc": 1})


def test_threads_get_what_one_thread_gets(run, images):
    detector = load(run, device="cpu", threshold=0.2, batch_size=4)  # nothing is built lazily before the threads begin
    calls = [images[i % 6] if i % 3 else images for i in range(24)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(detector, calls))
    for found, call in zip(together, calls, strict=True):
        alone = detector(call)
        assert all(map(same, found, alone)) if isinstance(alone, list) else same(found, alone)


def test_videos_in_threads(detector, tmp_path):
    paths = [write_video(tmp_path / f"{count}.mp4", num_frames=count) for count in (3, 5, 7)]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda path: list(detector.video(path)), paths))
    for pairs, path, count in zip(together, paths, (3, 5, 7), strict=True):
        assert len(pairs) == count
        for (frame, found), (again, alone) in zip(pairs, detector.video(path), strict=True):
            assert np.array_equal(frame, again) and same(found, alone)
    assert len(list(detector.video([grey_frame(9), Image.new("RGB", (40, 30))]))) == 2


def test_batches_end_early_where_images_are_large(detector, images, monkeypatch, tmp_path):
    sizes, inner = [], detector._detector
    predict = inner._predict_batch
    monkeypatch.setattr(inner, "_predict_batch", lambda batch, *rest: sizes.append(len(batch)) or predict(batch, *rest))
    monkeypatch.setattr(predictor, "MOST_PIXELS", 2 * 50 * 120)
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    detector([tmp_path / "a.png"] * 5)
    detector(images)
    detector(iter(images))
    assert sizes == [2, 2, 1, 6, 2, 2, 2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"precision": "fp13"}, "precision: 'fp13' is unknown; did you mean 'fp32'?"),
        ({"compile": "maximum"}, "compile: 'maximum' is unknown"),
        ({"batch_size": 0}, "batch_size: 0 is out of range; allowed: at least 1"),
        ({"device": "gpu"}, "DEVICE: 'gpu' is no torch device"),
        ({"threshold": 40}, "threshold: 40 is no score; allowed: 0 to 1"),
        ({"cfg": 3}, "cfg: expected a YAML file or what load_config returns, got int"),
    ],
)
def test_mistakes_in_options_are_told(run, options, message):
    with pytest.raises(UserError) as error:
        load(run, **options)
    assert message in str(error.value)


def test_paths_that_are_no_detector_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "is not the folder of a run"), ("none", "no such folder of a run or checkpoint")):
        with pytest.raises(UserError, match=message):
            load(tmp_path / name)


def test_a_detector_tells_what_it_is(run):
    detector = load(run, device="cpu", precision="bf16", threshold={"": 0.5, "no": 0.25}, batch_size=3)
    assert detector.class_names == tuple(NAMES) and detector.image_size == (64, 96)
    assert (detector.precision, detector.device.type, detector.batch_size) == ("bf16", "cpu", 3)
    for part in ("x_epoch_2.pth", "disc, no, off", "64 x 96", "bf16 on cpu", "threshold 0.5, no 0.25"):
        assert part in repr(detector)
    assert {"class_names", "image_size", "precision", "video"} <= set(dir(detector))


def test_the_package_by_its_installed_name(run, images, tmp_path):
    (tmp_path / "ssds").symlink_to(ROOT / "lib")
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    program = f"""
import sys, ssds
assert "torch" not in sys.modules and {{"load", "Detector", "Detections", "UserError"}} <= set(dir(ssds))
found = ssds.load({str(run)!r}, threshold=0.3)("a.png")
assert isinstance(found, ssds.Detections) and not any(name.split(".")[0] == "lib" for name in sys.modules)
print(len(found))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(load(run, device="cpu", threshold=0.3)(images[0]))


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = lib.laod
    assert (ROOT / "lib" / "py.typed").exists()

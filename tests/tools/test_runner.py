"""Exported detectors with memory; and the runner beside the files finds what the API finds, without torch and without
this package."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.dataset.shapes_folder import VideoParameters
from lib.dataset.shapes_video import write_videos
from lib.predictor import ObjectDetector
from lib.tools import runner
from lib.tools.export import export_model
from lib.tools.export_gate import Refused, gate, open_records
from lib.tools.onnx_metadata import load_model, read_metadata
from tests.videos import read_video

from .exporting import LSTM, damage, load

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ALONE = (
    "import runpy, sys; "
    "sys.modules.update({name: None for name in ('torch', 'torchvision', 'lib', 'ssds', 'onnx')}); "
    "sys.argv = ['detect.py', *sys.argv[1:]]; runpy.run_path('detect.py', run_name='__main__')"
)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """(source, records, what was exported) of a detector with memory, which finds things in stills, too."""
    folder = tmp_path_factory.mktemp("runner")
    videos = VideoParameters(num_train=1, num_val=1, num_test=2, size=64, frames=7, classes=2)
    write_videos(folder / "data", videos, 1)
    words = "DATASET.COLOR_ORDER=RGB", "POST_PROCESS.SCORE_THRESHOLD=0.05", f"DATASET.DATASET_DIR={folder / 'data'}"
    source = load(folder, *LSTM, *words)
    records = open_records(source)
    return source, records, export_model(source, folder / "out", records)


@pytest.fixture
def exported(recurrent):
    """(source, folder of the files)."""
    source, _, done = recurrent
    return source, done.raw[0].parent


def test_memories_are_inputs_and_outputs(recurrent):
    source, records, done = recurrent
    facts = read_metadata(load_model(done.detect[0]))
    assert [(entry["input"], entry["output"]) for entry in facts["state"]] == [
        ("state_h0", "next_h0"), ("state_c0", "next_c0"),
    ]  # fmt: skip
    session = ort.InferenceSession(str(done.raw[0]))
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64, 3), dtype=np.uint8)
    states, expected = {e["input"]: np.zeros((1, *e["shape"]), np.float32) for e in facts["state"]}, None
    for pixels in frames:
        values = session.run(None, {"images": pixels, **states})
        predictions = source.run(pixels, expected)
        expected = predictions.state
        np.testing.assert_allclose(values[1], predictions.conf.numpy(), atol=1e-4)
        states = {e["input"]: values[3 + i] for i, e in enumerate(facts["state"])}
    assert not np.allclose(source.run(frames[-1]).conf.numpy(), values[1], atol=1e-2)  # it does remember


def test_a_file_that_forgets_is_refused(recurrent, tmp_path):
    source, records, done = recurrent

    def forget(model):
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                if name == "state_c0":
                    node.input[place] = "forgotten"
        zero = onnx.helper.make_node("Sub", ["state_c0", "state_c0"], ["forgotten"])
        model.graph.node.insert(0, zero)

    for path in (done.raw[0], done.detect[0]):
        with pytest.raises(Refused):
            gate(source, damage(path, tmp_path, forget), records)


def run_alone(folder, *words) -> subprocess.CompletedProcess:
    """The runner in a process that can import neither torch nor the package."""
    command = [sys.executable, "-I", "-c", ALONE, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def pictures_in(folder) -> list:
    rng, paths = np.random.default_rng(0), []
    for number, shape in enumerate(((50, 70, 3), (64, 64, 3), (120, 90, 3))):
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), rng.integers(0, 256, shape, dtype=np.uint8))
    return paths


def noise_film(path):
    """A video of six frames, without plain areas, where all priors would score the same."""
    rng, film = np.random.default_rng(0), cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (120, 80))
    for _ in range(6):
        film.write(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8))
    film.release()
    return path


def assert_same(entries: list[dict], expected) -> None:
    """Entries of one image and Detections, to the decimals of the file; of two that score the same either may lead."""
    boxes = np.array([entry["bbox"] for entry in entries]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([entry["score"] for entry in entries])
    assert (np.diff(scores) <= 0).all() and len(scores) == len(expected)
    key = np.array([1, 7, 31, 67])
    ours, theirs = np.argsort(boxes @ key), np.argsort(expected.boxes.numpy() @ key)
    assert [entries[i]["category_name"] for i in ours] == [expected.names[i] for i in theirs]
    np.testing.assert_allclose(scores[ours], expected.scores.numpy()[theirs], atol=2e-5)
    np.testing.assert_allclose(boxes[ours], expected.boxes.numpy()[theirs], atol=0.01)


def test_runner_finds_what_the_api_finds(exported, tmp_path):
    source, folder = exported
    api, paths = ObjectDetector(source.cfg, source.checkpoint), pictures_in(tmp_path)
    video = noise_film(tmp_path / "film.mp4")
    done = run_alone(folder, tmp_path, "--threshold", "0.4", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "out/detections.json").read_text())
    found = api.predict([str(path) for path in paths], threshold=0.4)
    assert sum(map(len, found)) > 10
    for path, expected in zip(paths, found, strict=True):
        assert_same([entry for entry in entries if entry["image_id"] == path.name], expected)
    for number, (_, expected) in enumerate(api.predict_video(video, threshold=0.4)):
        assert_same([entry for entry in entries if entry["image_id"] == f"film/{number:06d}"], expected)
    assert len(read_video(tmp_path / "out/film.mp4")) == 6
    assert cv2.imread(str(tmp_path / "out/0.jpg")).shape == (50, 70, 3)


def test_runner_prints_without_a_folder(exported, tmp_path):
    _, folder = exported
    (path, *_) = pictures_in(tmp_path)
    done = run_alone(folder, path, "--threshold", "0.3")
    assert done.returncode == 0 and {entry["image_id"] for entry in json.loads(done.stdout)} == {"0.png"}


def test_mistakes_are_one_line(exported, tmp_path, capsys, monkeypatch):
    _, folder = exported
    model = ["--model", str(next(folder.glob("*_detect.onnx")))]
    raw = next(path for path in folder.glob("*.onnx") if "detect" not in path.name)
    (picture, *_) = pictures_in(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for words, message in (
        ([tmp_path / "nowhere", *model], "no such file or folder"),
        ([tmp_path / "empty", *model], "holds neither images nor videos"),
        ([picture, "--model", tmp_path / "x.onnx"], "no such file"),
        ([picture, "--model", raw], "raw network gives no detections"),
        ([picture, *model, "--size", "96", "96"], "--dynamic-size"),
        ([picture, *model, "--out", tmp_path], "holds the sources"),
        ([picture], "--model FILE"),
    ):
        assert runner.main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert runner.main([str(tmp_path / "broken.png"), *model]) == 0
    assert "skipped" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runner.main([str(picture), *model]) == 2
    assert "pip install onnxruntime" in capsys.readouterr().err


def test_the_file_delivered_is_the_module_tested(exported):
    _, folder = exported
    assert (folder / "detect.py").read_bytes() == Path(runner.__file__).read_bytes()


def test_a_single_state_is_carried_from_frame_to_frame(exported):
    source, folder = exported
    detector = runner.Detector(next(folder.glob("*_detect.onnx")))
    frame = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (first,), state = detector.step([frame], None)
    (second,), _ = detector.step([frame], state)
    (again,) = detector.predict([frame])
    assert np.array_equal(first.scores, again.scores) and not np.array_equal(first.scores, second.scores)
    with torch.no_grad():
        predictions = source.run(frame[None])
        after = source.run(frame[None], predictions.state)
    expected = source.rules(after)[0]
    np.testing.assert_allclose(np.sort(second.scores), np.sort(expected.scores.numpy()), atol=2e-5)

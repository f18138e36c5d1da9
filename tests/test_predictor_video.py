"""Videos through a detector: memory from frame to frame, one frame at a time, clean ends; and the demo of them."""

import json
import os
import signal
import threading

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from lib import demo_drawing, demo_timing
from lib.commands import demo
from lib.config import load_config
from lib.modeling.model_builder import create_model
from lib.predictor import ObjectDetector
from lib.timing import PARTS, WHOLES
from lib.utils import video
from lib.utils.errors import UserError
from tests.detectors import write_detector
from tests.videos import ScriptedCapture, grey_frame, read_video, write_video


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(configuration file, checkpoint) of a detector with random weights that finds something everywhere."""
    return write_detector(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def detector(trained):
    return ObjectDetector(load_config(trained[0]), trained[1])


@pytest.fixture
def run_demo(trained, tmp_path):
    """demo.py on a source, with out as the folder of what it makes; returns the exit status."""

    def run(source, *words) -> int:
        command = ["--cfg", str(trained[0]), "--checkpoint", str(trained[1]), "--threshold", "0.3"]
        return demo([*command, "--demo", str(source), "--out", str(tmp_path / "out"), *words])

    return run


class Counting(nn.Module):
    """A detector whose state is the number of frames it has seen since the last start."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.given = []

    def forward(self, images, state=None, first=None):
        self.given.append(None if state is None else int(state["count"][0]))
        count = torch.ones(len(images)) if state is None else state["count"] + 1
        return self.model(images)._replace(state={"count": count})


@pytest.fixture
def counting(detector, monkeypatch):
    network = detector.network_for(1)
    model = Counting(network.model)
    monkeypatch.setattr(network, "model", model)
    return model


def reading_threads() -> list:
    return [thread for thread in threading.enumerate() if thread.name.startswith("frames of")]


def test_every_frame_of_a_video_comes_with_what_is_in_it(detector, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    pairs = list(detector.predict_video(path, threshold=0.3))
    assert len(pairs) == 20
    for (frame, found), expected in zip(pairs, read_video(path), strict=True):
        assert np.array_equal(frame, expected)
        (alone,) = detector.predict([expected], threshold=0.3)
        assert torch.equal(found.boxes, alone.boxes) and torch.equal(found.scores, alone.scores)


def test_the_state_goes_from_frame_to_frame(detector, counting, tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=4)
    for _ in range(2):
        list(detector.predict_video(path))
    assert counting.given == [None, 1, 2, 3] * 2


def test_async_shows_every_frame_and_ends_its_threads(tmp_path):
    overrides = [
        "MODEL.SSDS=lstm_ssd_interleaved", "MODEL.NETS=slim_mobilenet_v2_035", "MODEL.IMAGE_SIZE=64",
        "MODEL.NUM_CLASSES=3", "MODEL.RNN.IN_USE=True", "DEVICE=cpu", "MODEL.RNN.POLICY=async",
    ]  # fmt: skip
    cfg = load_config(None, overrides)
    torch.save(create_model(cfg).state_dict(), tmp_path / "w.pth")
    detector = ObjectDetector(cfg, tmp_path / "w.pth")
    frames = [grey_frame(value) for value in range(0, 240, 20)]
    results = [found for _, found in detector.predict_video(frames)]
    assert len(results) == len(frames)
    first = ObjectDetector(load_config(None, [*overrides, "MODEL.RNN.POLICY=small"]), tmp_path / "w.pth")
    _, expected = next(first.predict_video(frames))  # nothing else can be ready for the first frame
    torch.testing.assert_close(results[0].scores, expected.scores)
    for stopped in (detector.predict_video(frames), detector.predict_video(frames)):
        next(stopped)
        stopped.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("large extractor")]


def test_frames_of_another_size_start_the_state_anew(detector, counting, caplog):
    sizes = [(96, 64), (96, 64), (64, 96), (64, 96), (96, 64)]
    list(detector.predict_video(grey_frame(9, size) for size in sizes))
    assert counting.given == [None, 1, None, 1, None]
    assert "frame 2 is 64x96 after 96x64" in caplog.text and "frame 4 is 96x64" in caplog.text


def test_a_model_without_memory_does_not_mind_the_size(detector, caplog):
    assert len(list(detector.predict_video([grey_frame(9, (96, 64)), grey_frame(9, (64, 96))]))) == 2
    assert not caplog.messages


def test_paths_arrays_and_generators_are_videos(detector, tmp_path):
    frames = [grey_frame(value) for value in (10, 200)]
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for path, frame in zip(paths, frames, strict=True):
        cv2.imwrite(str(path), frame)
    for source in (frames, np.stack(frames), paths, iter(frames), tmp_path, str(tmp_path)):
        given = [frame for frame, _ in detector.predict_video(source)]
        assert all(np.array_equal(a, b) for a, b in zip(given, frames, strict=True))
    with pytest.raises(UserError, match="must be a path or a BGR uint8 array"):
        list(detector.predict_video([*frames, np.zeros((4, 4))]))


def test_stopping_early_ends_the_thread(detector, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    pairs = detector.predict_video(path)
    next(pairs)
    assert reading_threads()
    pairs.close()
    assert not reading_threads()
    with pytest.raises(KeyboardInterrupt):
        for _ in detector.predict_video(path):
            raise KeyboardInterrupt
    pairs = detector.predict_video(path)
    next(pairs)
    with pytest.raises(RuntimeError):
        pairs.throw(RuntimeError)
    assert not reading_threads()


def test_demo_of_a_video(run_demo, tmp_path, capsys):
    path = write_video(tmp_path / "a.avi", codec="MJPG", fps=12.5)
    assert run_demo(path) == 0
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.mp4", "detections.json"]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "a.mp4"))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (12.5, 20)
    drawn, plain = read_video(tmp_path / "out" / "a.mp4"), read_video(path)
    assert len(drawn) == 20 and drawn[0].shape == plain[0].shape
    assert all(np.abs(a.astype(int) - b).max() > 100 for a, b in zip(drawn, plain, strict=True))
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {f"a/{number:06d}" for number in range(20)}
    assert all(row["score"] >= 0.3 for row in rows)
    out = capsys.readouterr().out
    assert "20 frames in" in out and "fps end to end" in out and "fps of the network alone" in out


def test_demo_of_a_folder_of_frames(run_demo, tmp_path):
    (tmp_path / "walk").mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / "walk" / f"{number}.png"), grey_frame(20 * number))
    assert run_demo(tmp_path / "walk", "-t", "video") == 0
    assert len(read_video(tmp_path / "out" / "walk.mp4")) == 12
    assert run_demo(tmp_path / "walk") == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 12


def interrupt_after(monkeypatch, count: int, number=signal.SIGINT):
    """Sends the process a signal while the frame `count` is drawn."""
    drawn = []

    def draw(*arguments):
        drawn.append(1)
        if len(drawn) == count:
            os.kill(os.getpid(), number)
        return original(*arguments)

    original = demo_drawing.draw_detections
    monkeypatch.setattr(demo_drawing, "draw_detections", draw)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_a_video_of_what_was_done(run_demo, tmp_path, monkeypatch, capsys, number):
    interrupt_after(monkeypatch, 7, number)
    assert run_demo(write_video(tmp_path / "a.mp4")) == 128 + number
    assert len(read_video(tmp_path / "out" / "a.mp4")) == 7
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {f"a/{number:06d}" for number in range(7)}
    error = capsys.readouterr().err
    assert f"stopped by {signal.Signals(number).name} after 7 of 20 frames" in error and "a.mp4 holds them" in error
    assert not reading_threads()


def test_a_failure_leaves_the_older_video(run_demo, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    assert run_demo(path) == 0
    before = {entry.name: entry.read_bytes() for entry in (tmp_path / "out").iterdir()}

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(demo_drawing, "draw_note", fail)
    assert run_demo(path) == 1
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "out").iterdir()} == before
    assert not reading_threads()


def test_demo_does_not_write_over_its_video(run_demo, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    before = write_video(tmp_path / "out" / "a.mp4").read_bytes()
    assert run_demo(tmp_path / "out" / "a.mp4") == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert [(entry.name, entry.read_bytes()) for entry in (tmp_path / "out").iterdir()] == [("a.mp4", before)]


def test_demo_of_a_camera_until_the_keyboard_stops_it(run_demo, tmp_path, monkeypatch, capsys):
    real, camera = cv2.VideoCapture, ScriptedCapture([True] * 100_000, seconds=0.001)
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda source: camera if source == 0 else real(source))
    interrupt_after(monkeypatch, 5)
    assert run_demo(0) == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    numbers = sorted({int(row["image_id"].removeprefix("camera0/")) for row in rows})
    assert len(numbers) == 5 and len(read_video(tmp_path / "out" / "camera0.mp4")) == numbers[-1] + 1
    assert "camera 0: 5 frames" in capsys.readouterr().out and camera.released


@pytest.mark.parametrize("kind", ["image", "folder", "video"])
def test_the_time_per_part(run_demo, tmp_path, monkeypatch, capsys, kind):
    monkeypatch.setattr(demo_timing, "MOST_RUNS", 5)
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), grey_frame(9))
    sources = {"image": tmp_path / "in" / "0.png", "folder": tmp_path / "in"}
    assert run_demo(sources.get(kind) or write_video(tmp_path / "a.mp4", num_frames=4), "-t", "time") == 0
    out = capsys.readouterr().out
    rows = {line[:18].strip(): line[18:].split() for line in out.split("---\n")[1].splitlines()[:6]}
    means = {name: float(row[0]) for name, row in rows.items()}
    assert list(means) == [*PARTS.values(), *WHOLES.values()] and min(means.values()) > 0
    assert sum(means[name] for name in PARTS.values()) == pytest.approx(means["end to end"], abs=0.05)
    runs = {"image": "5 runs of 0.png", "folder": "3 runs of ", "video": "4 frames of "}[kind]
    assert runs in out and "fp32, not compiled" in out and "IoU 0.6" in out and not (tmp_path / "out").exists()

"""Frames in, in order and without a silent loss; videos out that play."""

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.utils import video
from lib.utils.errors import UserError
from lib.utils.video import FRAMES_AHEAD, Frames, VideoFile
from tests.videos import ScriptedCapture, grey_frame, read_video, write_video


def read(picture):
    """What makes a frame of a path or an array."""
    if isinstance(picture, np.ndarray):
        return picture
    frame = cv2.imread(str(picture))
    if frame is None:
        raise UserError(f"{picture}: no image")
    return frame


def values(frames) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in frames]


def shows(path, expected) -> bool:
    """Whether these are the grey values of a video file, as far as its codec keeps them."""
    found = [frame.mean() for frame in read_video(path)]
    return len(found) == len(expected) and np.abs(np.subtract(found, expected)).max() < 5


def reading_threads() -> list:
    return [thread for thread in threading.enumerate() if thread.name.startswith("frames of")]


@pytest.fixture
def scripted(monkeypatch):
    """Lets cv2.VideoCapture be a ScriptedCapture."""

    def install(*arguments, **options) -> ScriptedCapture:
        capture = ScriptedCapture(*arguments, **options)
        monkeypatch.setattr(video.cv2, "VideoCapture", lambda source: capture)
        return capture

    return install


def test_a_file_gives_all_its_frames_in_order(tmp_path):
    frames = Frames(write_video(tmp_path / "a.mp4"), read)
    assert (frames.fps, frames.num_frames, frames.live) == (10.0, 20, False)
    found = [frame.mean() for frame in frames]
    assert len(found) == 20 and np.abs(np.subtract(found, 10 * np.arange(20))).max() < 5
    assert (frames.number, frames.dropped) == (19, 0) and not reading_threads()


def test_few_frames_are_held_however_long_the_video():
    num_read = 0

    def counted(picture):
        nonlocal num_read
        num_read += 1
        return picture

    with Frames([grey_frame(1)] * 100, counted) as frames:
        next(frames)
        time.sleep(0.2)
        assert num_read <= FRAMES_AHEAD + 2
    assert not reading_threads()


def test_the_thread_ends_when_the_frames_are_not_wanted(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    with Frames(path, read) as frames:
        next(frames)
        assert reading_threads()
    assert not reading_threads() and list(frames) == []
    with pytest.raises(RuntimeError), Frames(path, read) as frames:
        raise RuntimeError
    assert not reading_threads()


def test_until_ends_a_wait_for_a_frame_that_does_not_come(scripted, monkeypatch):
    monkeypatch.setattr(video, "PATIENCE", 0.01)
    capture, release = scripted([True] * 9), threading.Event()
    capture.read = lambda: (release.wait(20), grey_frame(1))
    asked = []
    with Frames(0, read, until=lambda: len(asked) > 2 or asked.append(1)) as frames:
        assert list(frames) == []
        release.set()


def test_a_camera_gives_the_newest_frame(scripted, caplog):
    capture = scripted([True] * 30)
    frames = Frames(0, read)
    assert frames.live and frames.fps == 30
    next(frames)
    deadline = time.monotonic() + 10
    while capture.num_reads < 30 + video.RETRIES and time.monotonic() < deadline:
        time.sleep(0.01)
    assert values(frames) == [29] and frames.number == 29 and frames.dropped >= 27
    assert capture.released and "camera 0: no frame came after frame 29" in caplog.text


def test_a_camera_may_be_told_to_drop_nothing(scripted):
    scripted([True] * 30)
    assert values(Frames(0, read, live=False)) == list(range(30))


@pytest.mark.parametrize(
    "bad, warnings",
    [
        ([3], ["frame 3 is damaged and left out"]),
        ([3, 4, 5, 9], ["frames 3 to 5 are damaged", "frame 9 is damaged"]),
        ([0], ["frame 0 is damaged"]),
        (range(14, 20), ["gives no frame after frame 13, though its header announces 20 frames"]),
        ([1, 19], ["frame 1 is damaged", "gives no frame after frame 18"]),
    ],
)
def test_a_frame_that_cannot_be_read_is_told_by_its_number(scripted, tmp_path, caplog, bad, warnings):
    scripted([number not in bad for number in range(20)], num_frames=20)
    frames = Frames(write_video(tmp_path / "a.mp4"), read)
    assert values(frames) == [number for number in range(20) if number not in bad]
    assert len(caplog.messages) == len(warnings)
    assert all(part in message for part, message in zip(warnings, caplog.messages, strict=True))


@pytest.mark.parametrize("announced", [-1, 0, float("nan"), 18])
def test_a_header_that_announces_too_little_is_not_believed(scripted, tmp_path, caplog, announced):
    scripted([True] * 20, num_frames=announced)
    assert len(list(Frames(write_video(tmp_path / "a.mp4"), read))) == 20 and not caplog.messages


def test_a_file_that_was_cut_off_is_told(tmp_path, caplog):
    whole = write_video(tmp_path / "a.avi", codec="MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 6 // 10])
    found = list(Frames(tmp_path / "cut.avi", read))
    assert 0 < len(found) < 20
    assert f"gives no frame after frame {len(found) - 1}, though its header announces 20 frames" in caplog.text


def test_frames_of_a_folder_come_by_number_without_the_broken_ones(tmp_path, caplog):
    for number in (10, 2, 1, 0):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), grey_frame(number))
    (tmp_path / "f3.png").write_bytes(b"")
    frames = Frames(tmp_path, read)
    assert values(frames) == [0, 1, 2, 10] and frames.number == 4 and frames.fps is None
    assert "frame 3 left out" in caplog.text and "f3.png" in caplog.text


def test_an_iterable_is_asked_for_a_frame_when_one_is_wanted():
    asked = []

    def endless():
        while True:
            asked.append(threading.current_thread())
            yield grey_frame(len(asked))

    with Frames(endless(), read) as frames:
        assert [int(next(frames)[0, 0, 0]) for _ in range(3)] == [1, 2, 3]
    assert asked == [threading.current_thread()] * 3


@pytest.mark.parametrize("kind", [iter, list])
def test_an_error_in_the_middle_reaches_the_consumer(kind):
    def broken(picture):
        if picture.max() == 2:
            raise UserError("no frame")
        return picture

    frames = Frames(kind([grey_frame(value) for value in (0, 1, 2, 3)]), broken)
    assert values([next(frames), next(frames)]) == [0, 1]
    with pytest.raises(UserError, match="no frame"):
        next(frames)
    assert list(frames) == []


@pytest.mark.parametrize(
    "name, part",
    [
        ("none.mp4", "there is no such file or folder"),
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "OpenCV cannot open this file: it is no video"),
        ("cut.mp4", "OpenCV cannot open this file: it is no video"),
        ("a_001.png", "is an image"),
        ("folder", "the folder holds no images"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, part):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "a_001.png"), grey_frame(0))
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "a.mp4").read_bytes()[:1000])
    with pytest.raises(UserError, match=part):
        next(Frames(tmp_path / name, read))


def test_the_password_of_a_stream_is_in_no_message(scripted, caplog, monkeypatch):
    address = "rtsp://me:secret@camera.example/stream"
    scripted([True])
    with Frames(address, read) as frames:
        assert values(frames) == [0] and frames.name == "rtsp://me:***@camera.example/stream"
    monkeypatch.setattr(scripted([]), "isOpened", lambda: False)
    with pytest.raises(UserError) as caught:
        Frames(address, read)
    assert "secret" not in caplog.text + str(caught.value) and "me:***@camera.example" in str(caught.value)


@pytest.mark.parametrize("source, part", [([], "holds no frame"), (iter([]), "holds no frame"), (1.5, "got float")])
def test_a_source_without_frames_is_refused(source, part):
    with pytest.raises(UserError, match=part):
        next(Frames(source, read))


def test_a_file_without_a_readable_frame_is_refused(scripted, tmp_path):
    capture = scripted([], num_frames=20)
    with pytest.raises(UserError, match="a.mp4: holds no frame that can be read"):
        next(Frames(write_video(tmp_path / "a.mp4"), read))
    assert capture.released and not reading_threads()


def test_a_written_video_plays_and_holds_what_was_written(tmp_path):
    with VideoFile(tmp_path / "v.mp4", 12.5) as file:
        for value in range(0, 200, 20):
            file.write(grey_frame(value))
        assert not (tmp_path / "v.mp4").exists()
    assert shows(tmp_path / "v.mp4", range(0, 200, 20)) and read_video(tmp_path / "v.mp4")[0].shape == (50, 120, 3)
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FPS) == 12.5
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_frames_that_were_left_out_do_not_shift_the_others(tmp_path):
    with VideoFile(tmp_path / "v.mp4", 10) as file:
        for number in (2, 3, 6):
            file.write(grey_frame(30 * number), number)
    assert shows(tmp_path / "v.mp4", [60, 60, 60, 90, 90, 90, 180])


def test_frames_of_other_sizes_are_fitted_in(tmp_path):
    with VideoFile(tmp_path / "v.mp4", 10) as file:
        for size in ((95, 63), (190, 126), (20, 60), (95, 63)):
            file.write(grey_frame(200, size))
    found = read_video(tmp_path / "v.mp4")
    assert [frame.shape for frame in found] == [(64, 96, 3)] * 4
    assert [frame[30, 90, 0] > 150 for frame in found] == [True, True, False, True]
    assert found[2][30, 10, 0] > 150


def test_any_frame_rate_can_be_written(tmp_path):
    for fps in (0.5, 29.97002997, 100.1234, 500.0):
        with VideoFile(tmp_path / "v.mp4", fps) as file:
            file.write(grey_frame(0))
            file.write(grey_frame(0))
        assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=2e-3)


def test_where_mp4_cannot_be_written_it_is_an_avi_file(tmp_path, caplog):
    with VideoFile(tmp_path / "v.mp4", 10) as file:  # wider than MPEG-4 allows
        file.write(grey_frame(100, (8200, 16)))
    assert file.path == tmp_path / "v.avi" and len(read_video(file.path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["v.avi"] and "v.avi" in caplog.text


def test_a_failure_leaves_the_older_video(tmp_path):
    (tmp_path / "v.mp4").write_text("older")
    with pytest.raises(RuntimeError), VideoFile(tmp_path / "v.mp4", 10) as file:
        file.write(grey_frame(0))
        raise RuntimeError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


def test_a_video_is_not_written_over_its_source(tmp_path):
    before = write_video(tmp_path / "v.mp4").read_bytes()
    (tmp_path / "link.mp4").symlink_to("v.mp4")
    for name in ("v.mp4", "link.mp4"):
        file = VideoFile(tmp_path / name, 10, keep=tmp_path / "v.mp4")
        with pytest.raises(UserError, match="would be overwritten"), file:
            file.write(grey_frame(0))
    assert (tmp_path / "v.mp4").read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_a_video_of_which_frames_are_lost_is_told(tmp_path, monkeypatch):
    class Lossy:
        def __init__(self, path, *arguments):
            self.path = path

        def isOpened(self):
            return True

        def write(self, frame):
            pass

        def release(self):
            write_video(Path(self.path), num_frames=2)

    real = cv2.VideoWriter
    file = VideoFile(tmp_path / "v.mp4", 10)
    monkeypatch.setattr(video.cv2, "VideoWriter", Lossy)
    file.write(grey_frame(0))
    file.write(grey_frame(0))
    file.write(grey_frame(0))
    monkeypatch.setattr(video.cv2, "VideoWriter", real)
    with pytest.raises(OSError, match="only 2 of 3 frames"), file:
        pass
    assert not list(tmp_path.iterdir())

"""Stills become videos whose boxes lie on their pixels; nothing that is there already is touched."""

import json

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.dataset.dataset_factory import create_records
from lib.dataset.detection import DetectionRecords
from lib.tools import stills_to_video as tool
from tests.dataset.folders import write_image, write_voc, write_xml

BOX = (61, 41, 120, 90)  # as in the file, where the first pixel is 1


@pytest.fixture
def stills(tmp_path):
    """Five images with a white rectangle on black, the last without an object."""
    stems = [f"p{n}" for n in range(5)]
    folder = write_voc(tmp_path / "set", {"train": stems[:3], "val": stems[3:]}, size=(120, 200))
    for number, stem in enumerate(stems):
        image = np.zeros((120, 200, 3), np.uint8)
        image[BOX[1] - 1 : BOX[3] - 1, BOX[0] - 1 : BOX[2] - 1] = 255
        cv2.imwrite(str(folder / "JPEGImages" / f"{stem}.jpg"), image)
        objects = [("cat", BOX), ("dog", (1, 1, 9, 9), 1)] if number < 4 else []
        write_xml(folder / "Annotations" / f"{stem}.xml", objects, size=(120, 200))
    config = tmp_path / "x.yml"
    config.write_text(
        f"DATASET: {{DATASET: custom, DATASET_DIR: {folder}, CLASSES: [cat, dog]}}\nEXP_DIR: {tmp_path / 'run'}\n"
    )
    return config


def run(config, out, *words) -> int:
    return tool.main(["--cfg", str(config), "--out", str(out), *words])


def files_of(out):
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_videos_read_back_with_boxes_on_their_pixels(stills, tmp_path):
    out = tmp_path / "clips"
    assert run(stills, out, "--sets", "train,eval", "--frames", "7") == 0
    content = json.loads((out / "annotations" / "train.json").read_text())
    assert [video["name"] for video in content["videos"]] == ["p0", "p1", "p2"]
    assert len(content["images"]) == 21 and content["images"][8]["file_name"] == "p1/000001.jpg"
    assert len({each["id"] for each in content["annotations"]}) == len(content["annotations"])

    words = ["DATASET.DATASET=coco_vid", f"DATASET.DATASET_DIR={out}", f"EXP_DIR={tmp_path / 'run'}"]
    train, val = (create_records(load_config(None, words), phase) for phase in ("train", "eval"))
    assert train.is_video and train.class_names == ("cat", "dog")
    assert list(train.videos) == ["p0", "p1", "p2"] and list(val.videos) == ["p3", "p4"]
    assert train.video_offsets.tolist() == [0, 7, 14, 21] and train.frames.tolist() == [*range(7)] * 3
    assert not len(val.objects(7)[0])  # p4
    seen = moved = 0
    for video in range(3):
        for index in range(video * 7, video * 7 + 7):
            boxes, labels, difficult = train.objects(index)
            assert train.size(index) == train.size(video * 7) == train.read(index).shape[:2]
            assert (difficult == (labels == 2)).all()
            ((x1, y1, x2, y2),) = boxes[labels == 1]
            ys, xs = np.nonzero(train.read(index).min(axis=2) > 127)
            np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [x1, y1, x2, y2], atol=1.01)
            (track,) = train.tracks(index)[labels == 1]
            assert track == train.tracks(video * 7)[train.objects(video * 7)[1] == 1]
            seen += 1
        moved += not np.array_equal(train.read(video * 7), train.read(video * 7 + 6))
    assert seen == 21 and moved == 3


def test_a_crop_glides_and_keeps_an_object_in_view():
    boxes = np.float32([[10, 10, 30, 40], [150, 60, 190, 110]])
    for seed in range(60):
        frames = tool.draw_frames((120, 200), boxes, 5, np.random.default_rng(seed))
        crops = np.array([frame.crop for frame in frames])
        assert (crops[:, :2] >= 0).all() and (crops[:, :2] + crops[:, 2:] <= np.array([200, 120]) + 1e-9).all()
        np.testing.assert_allclose(np.diff(crops, axis=0), np.diff(crops, axis=0)[:1].repeat(4, axis=0), atol=1e-9)
        assert len({frame.size for frame in frames}) == 1 and crops[:, 2].min() >= 100
        kept = [set(frame.map_boxes(boxes)[1].tolist()) for frame in frames]
        assert set.intersection(*kept)
    (frame,) = tool.draw_frames((1, 1), boxes[:0], 1, np.random.default_rng(0))
    assert frame.size == (1, 1) and frame.show(np.full((1, 1, 3), 7, np.uint8)).tolist() == [[[7, 7, 7]]]


def test_the_seed_decides_and_a_folder_is_continued(stills, tmp_path, capsys):
    outs = [tmp_path / name for name in "abc"]
    for out, seed in zip(outs, (4, 4, 5), strict=True):
        assert run(stills, out, "--frames", "3", f"SEED={seed}") == 0
    first, same, other = map(files_of, outs)
    assert len(first) == 11 and first == same and first != other
    (outs[0] / "annotations" / "train.json").unlink()  # as if it had been interrupted
    (outs[0] / "train" / "p1" / "000001.jpg").write_bytes(b"")
    assert run(stills, outs[0], "--frames", "3", "SEED=4") == 0 and files_of(outs[0]) == first
    (outs[0] / "train" / "p1" / "000001.jpg").unlink()
    capsys.readouterr()
    assert run(stills, outs[0], "--frames", "3", "SEED=4", "--sets", "train,eval") == 0
    assert "train.json is there already, and left as it is" in capsys.readouterr().out
    assert len(files_of(outs[0])) == 11 - 1 + 1 + 6


def test_what_it_does_not_do(stills, tmp_path, capsys):
    def complaint(*words, out=None):
        assert run(stills, tmp_path / "clips" if out is None else out, *words) == 2
        error = capsys.readouterr().err
        assert error.count("error: ") == 1 and error.rpartition("error: ")[2].count("\n") == 1
        return error

    assert f"--out {tmp_path}/set: holds Annotations, ImageSets, JPEGImages; give a new" in complaint(
        out=tmp_path / "set"
    )
    assert "x.yml: is a file; it must be a folder" in complaint(out=stills)
    assert "--sets: 'val' is unknown; allowed: train, eval, test" in complaint("--sets", "train,val")
    assert "--frames: 0 is out of range" in complaint("--frames", "0")
    assert not (tmp_path / "clips").exists()
    assert run(stills, tmp_path / "clips", "--frames", "2") == 0
    before = files_of(tmp_path / "clips")
    assert "holds a set train with frames 2 (not 3), seed 0 (not 1); delete it" in complaint("--frames", "3", "SEED=1")
    words = ["DATASET.DATASET=coco_vid", f"DATASET.DATASET_DIR={tmp_path / 'clips'}"]
    assert "holds videos already" in complaint(*words, out=tmp_path / "more")
    (tmp_path / "clips" / tool.MARKER).write_text("[]")
    assert "is not a marker of this command" in complaint()
    assert before.keys() == files_of(tmp_path / "clips").keys()


def test_images_that_break_are_left_out_or_end_it(stills, tmp_path, capsys, monkeypatch):
    def break_images(number):
        def create(*args):
            records = create_records(*args)
            for index in range(number):
                with open(records.image_path(index), "wb") as file:
                    file.write(b"no image")
            return records

        monkeypatch.setattr(tool, "create_records", create)

    break_images(1)
    assert run(stills, tmp_path / "a", "DATASET.ON_BAD=fail") == 2
    assert "p0.jpg: 8 bytes that are no image OpenCV can decode" in capsys.readouterr().err
    write_image(tmp_path / "set" / "JPEGImages" / "p0.jpg", size=(120, 200))
    assert run(stills, tmp_path / "b", "--frames", "2") == 0
    assert "p0.jpg: 8 bytes that are no image OpenCV can decode; it is left out" in capsys.readouterr().err
    content = json.loads((tmp_path / "b" / "annotations" / "train.json").read_text())
    assert [video["name"] for video in content["videos"]] == ["p1", "p2"] and len(content["images"]) == 4
    write_image(tmp_path / "set" / "JPEGImages" / "p0.jpg", size=(120, 200))
    break_images(3)
    assert run(stills, tmp_path / "c") == 2
    assert "none of its 3 images can be read" in capsys.readouterr().err


def test_odd_names_become_folders_of_their_own(tmp_path):
    path = str(write_image(tmp_path / "i.png"))
    names = ["a/b", "..", "A", "a", "a_b", "a b", "x.y"]
    records = DetectionRecords.build(("cat",), [path] * 7, names, [(60, 80)] * 7, [], [], [], [0] * 7)
    content = tool.write_set(records, tmp_path / "out", "test", 1, 0)
    folders = [video["name"] for video in content["videos"]]
    assert folders == ["a_b", "clip", "A", "a-2", "a_b-2", "a_b-3", "x.y"]
    assert sorted(folder.name for folder in (tmp_path / "out" / "test").iterdir()) == sorted(folders)

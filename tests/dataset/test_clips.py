"""Clips of frames on disk: the same for any number of workers, augmented alike through a pass, whatever breaks."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.dataset.dataset_factory import create_loader
from lib.dataset.detection import DetectionDataset, DetectionRecords, with_videos
from lib.dataset.transforms import TrainTransform
from lib.utils.errors import UserError

LENGTHS = [7, 3, 12, 5]
SIZE = (60, 80)


def config(*words, workers=0):
    return load_config(
        None,
        ["MODEL.RNN.IN_USE=True", "MODEL.RNN.BACKPROP_STEPS=4", "MODEL.RNN.BATCH_SIZE=3", "MODEL.RNN.FRAMES_IN_VIDEO=9",
         "MODEL.IMAGE_SIZE=[24, 32]", "TEST.BATCH_SIZE=3", "TRAIN.BATCH_SIZE=5", "DEVICE=cpu",
         f"DATASET.NUM_WORKERS={workers}", *words],
    )  # fmt: skip


def write_videos(folder, lengths, still=False):
    """Videos of noise with two tracks each; still: all frames of a video are alike."""
    folder.mkdir()
    paths, boxes, tracks = [], [], []
    for video, length in enumerate(lengths):
        for frame in range(length):
            pixels = np.random.default_rng((video, 0 if still else frame)).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            paths.append(str(folder / f"{video}_{frame}.png"))
            cv2.imwrite(paths[-1], pixels)
            shift = 0 if still else frame
            boxes += [(10 + shift, 20, 40 + shift, 50), (30, 5 + 2 * shift, 60, 30 + 2 * shift)]
            tracks += [5, 2]
    number = len(paths)
    records = DetectionRecords.build(
        ("a", "b"), paths, [f"{i}" for i in range(number)], [SIZE] * number, boxes, [1, 2] * number,
        [False, True] * number, [2] * number, "noise",
    )  # fmt: skip
    records = replace(records, track_ids=np.array(tracks))
    return with_videos(records, np.cumsum([0, *lengths]), [f"clip{v}" for v in range(len(lengths))])


@pytest.fixture
def records(tmp_path):
    return write_videos(tmp_path / "videos", LENGTHS)


def digest(clips):
    """Everything of the batches that could differ."""
    return [
        [
            (batch.images.contiguous().numpy().tobytes(), batch.first.tolist(),
             [(t.image_id, t.boxes.tolist(), t.labels.tolist(), t.difficult.tolist(), t.track_ids.tolist())
              for t in batch.targets])
            for batch in clip
        ]
        for clip in clips
    ]  # fmt: skip


def test_a_clip_is_a_batch_for_every_frame(records):
    loader = create_loader(config(), "train", records)
    clips = list(loader)
    assert len(clips) == len(loader) == 2 and loader.num_images == 24  # 7 + 3 + 9 + 5 frames
    for clip in clips:
        assert len(clip) == 4
        for batch in clip:
            assert batch.images.shape == (3, 3, 24, 32) and batch.images.dtype == torch.uint8
            assert batch.first.dtype == torch.bool and len(batch.first) == len(batch.targets) == 3
    assert clips[0][0].first.tolist() == [True] * 3
    frames = [batch for clip in clips for batch in clip]
    for before, batch in zip(frames[:-1], frames[1:], strict=True):
        for old, new, first in zip(before.targets, batch.targets, batch.first.tolist(), strict=True):
            assert first or new.image_id == (old.image_id[0], old.image_id[1] + 1)
    found = {track: label for batch in frames for t in batch.targets
             for track, label in zip(t.track_ids.tolist(), t.labels.tolist(), strict=True)}  # fmt: skip
    assert found == {5: 1, 2: 2}  # tracks stay with their objects through the augmentation


@pytest.mark.parametrize("workers", [1, 2])
def test_clips_do_not_depend_on_the_number_of_workers(records, workers):
    words = ["DATASET.ELASTIC_PROB=0.5", "DATASET.DROPOUT_PROB=0.5", "TRAIN.IMAGE_SIZES=[32,48]"]
    alone, helped = (create_loader(config(*words, workers=count), "train", records) for count in (0, workers))
    for _ in range(2):
        assert digest(helped) == digest(alone)
    helped.close()
    one, other = (create_loader(config(workers=count), "eval", records) for count in (0, workers))
    assert digest(other) == digest(one)
    other.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_clips_resumes_inside_an_epoch(records, workers):
    words = ["MODEL.RNN.BACKPROP_STEPS=2"]
    loader = create_loader(config(*words), "train", records)
    loader.set_position(3)
    whole, after = digest(loader), digest(loader)
    assert len(whole) == 4 and whole != after
    resumed = create_loader(config(*words, workers=workers), "train", records)
    for first in (1, 3, 4):
        resumed.set_position(3, first)
        assert digest(resumed) == whole[first:] and digest(resumed) == after
    resumed.close()


def test_a_static_video_stays_static_through_every_pass(tmp_path):
    records = write_videos(tmp_path / "videos", [9, 4, 11], still=True)
    words = ["DATASET.ELASTIC_PROB=0.5", "DATASET.DROPOUT_PROB=0.5", "DATASET.ROTATION=20", "DATASET.MIN_BOX_SIZE=0"]
    loader = create_loader(config(*words, "MODEL.RNN.FRAMES_IN_VIDEO=100"), "train", records)
    passes, looks = 0, set()
    for epoch in range(1, 5):
        loader.set_position(epoch)
        frames = [batch for clip in loader for batch in clip]
        for row in range(3):
            before = None
            for batch in frames:
                picture, target = batch.images[row], batch.targets[row]
                if batch.first[row]:
                    passes += 1
                    looks.add(picture.contiguous().numpy().tobytes())
                else:
                    assert torch.equal(picture, before[0]) and torch.equal(target.boxes, before[1].boxes)
                    assert target.labels.tolist() == before[1].labels.tolist()
                before = picture, target
    assert passes > 12 and len(looks) > passes - 3


def test_frames_are_what_the_choice_of_their_anchor_makes_of_them(records):
    transform = TrainTransform((24, 32), elastic_prob=0.5, rotation=(15, 0.5), min_box_size=0.1)
    data, lost = DetectionDataset(records, transform, seed=4), set()
    for epoch in range(1, 25):
        anchor, index = 10, 10 + epoch % 12
        found = data.sample(epoch, index, 1, None, anchor)
        rng = np.random.default_rng((4, epoch, anchor, 1))
        choice = transform.draw(SIZE, records.objects(anchor)[0], rng)
        boxes, labels, difficult = records.objects(index)
        picture, expected, kept = transform.perform(choice, cv2.imread(records.image_path(index)), boxes)
        assert (found.image == picture).all() and (found.boxes == expected).all() and found.shown == index
        assert (found.labels == labels[kept]).all() and (found.difficult == difficult[kept]).all()
        assert (found.tracks == records.tracks(index)[kept]).all()
        lost.add(len(kept))
    assert len(lost) > 1  # small objects and those outside the crop leave, each with its own label


def test_frames_of_another_size_than_annotated_are_augmented_alike_too(tmp_path, caplog):
    records = write_videos(tmp_path / "videos", [8], still=True)
    records.sizes[:] = 30, 40
    loader = create_loader(config("MODEL.RNN.BATCH_SIZE=1", "MODEL.RNN.BACKPROP_STEPS=8"), "train", records)
    (clip,) = loader
    assert all(torch.equal(batch.images, clip[0].images) for batch in clip)
    assert all(torch.equal(batch.targets[0].boxes, clip[0].targets[0].boxes) for batch in clip)
    assert "80 x 60, its annotation says 40 x 30; the image counts" in caplog.text


class TestFramesThatBreakLater:
    def break_frames(self, records, *indices):
        for index in indices:
            with open(records.image_path(index), "wb") as file:
                file.write(b"no image")

    def stand_ins(self, clips):
        return [[t.image_id for t in batch.targets] for clip in clips for batch in clip]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_are_replaced_by_frames_of_the_same_video(self, records, workers, caplog):
        expected = self.stand_ins(create_loader(config(), "train", records))
        sound = digest(create_loader(config(), "train", records))
        # Of clip0 the first, a middle one and its neighbour; of clip1 all.
        self.break_frames(records, 0, 3, 4, 7, 8, 9)
        instead = {("clip0", 0): ("clip0", 1), ("clip0", 3): ("clip0", 2), ("clip0", 4): ("clip0", 2)}
        loader = create_loader(config(workers=workers), "train", records)
        found = digest(loader)
        loader.close()
        told = [record.message for record in caplog.records if "stands in" in record.message]
        assert len(told) == 6 and len(set(told)) == 6
        shown = [[image_id for image_id, *_ in targets] for clip in found for _, _, targets in clip]
        assert shown == [[instead.get(image_id, image_id) for image_id in row] for row in expected]
        for clip, before in zip(found, sound, strict=True):
            assert [first for _, first, _ in clip] == [first for _, first, _ in before]
            for (_, _, targets), (_, _, originals) in zip(clip, before, strict=True):
                for target, original in zip(targets, originals, strict=True):
                    if target[0][0] == "clip1":
                        assert target[1] == []  # nothing is shown of it
                    elif target[0] == original[0]:
                        assert target == original

    def test_end_training_if_it_is_not_one_video_alone(self, records):
        self.break_frames(records, *range(len(records)))
        with pytest.raises(UserError, match="27 images in a row cannot be read, the first is .*no image OpenCV"):
            list(create_loader(config(), "train", records))

    @pytest.mark.parametrize("phase", ["train", "eval"])
    def test_are_one_line_under_fail(self, records, phase):
        self.break_frames(records, 2)
        with pytest.raises(UserError, match=r"0_2\.png: 8 bytes that are no image OpenCV can decode"):
            list(create_loader(config("DATASET.ON_BAD=fail"), phase, records))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_end_evaluation_whose_rows_must_not_shift(self, records, workers):
        self.break_frames(records, 2)
        with pytest.raises(UserError, match=r"0_2\.png: .*; no frame can be left out of a video that is scored"):
            list(create_loader(config(workers=workers), "eval", records))


def test_evaluation_shows_videos_side_by_side_whatever_the_model(records):
    for words in ([], ["MODEL.RNN.IN_USE=False"]):
        loader = create_loader(config(*words), "test", records)
        batches = [batch for (batch,) in loader]
        assert loader.num_images == 27 and len(loader) == len(batches) == 12
        ids = [target.image_id for batch in batches for target in batch.targets]
        assert sorted(ids) == [(f"clip{v}", frame) for v, length in enumerate(LENGTHS) for frame in range(length)]
        assert [len(batch.targets) for batch in batches] == [3] * 7 + [2] + [1] * 4
        for batch in batches:
            assert batch.first.tolist() == [target.image_id[1] == 0 for target in batch.targets]
            assert all(target.track_ids.tolist() == [5, 2] and len(target.boxes) == 2 for target in batch.targets)


class TestStillsOrClips:
    def test_the_configuration_and_the_data_decide(self, records):
        def num_frames(clips=None, *words):
            return {len(clip) for clip in create_loader(config(*words), "train", records, clips=clips)}

        assert num_frames() == num_frames(True, "MODEL.RNN.IN_USE=False") == {4}
        assert num_frames(False) == num_frames(None, "MODEL.RNN.IN_USE=False") == {1}
        stills = create_loader(config(), "train", records, clips=False)
        assert stills.num_images == 27 and len(stills) == 5
        assert all(batch.first.all() and len(batch.images) == 5 for (batch,) in stills)

    def test_clips_of_stills_are_refused(self, records):
        stills = replace(records, video_offsets=None, videos=None, frames=None, track_ids=None)
        with pytest.raises(UserError, match="MODEL.RNN.IN_USE: noise holds stills, but clips are made of videos"):
            create_loader(config(), "train", stills, clips=True)
        assert {len(clip) for clip in create_loader(config(), "train", stills)} == {1}

    @pytest.mark.parametrize("word", ["MOSAIC=0.5", "MIXUP=1.0", "SAMPLING=repeat_factor"])
    def test_options_of_stills_need_epochs_on_stills(self, records, word, caplog):
        key, value = f"DATASET.{word}".split("=")
        with pytest.raises(UserError, match=f"{key}: {value} given, but it is for stills, .*USE_LSTM_AFTER_EPOCH"):
            create_loader(config(f"DATASET.{word}"), "train", records)
        words = [f"DATASET.{word}", "MODEL.RNN.USE_LSTM_AFTER_EPOCH=2"]
        with caplog.at_level("INFO"):
            clips = digest(create_loader(config(*words), "train", records))
        assert f"clips of videos are shown without {key}" in caplog.text
        assert clips == digest(create_loader(config(), "train", records))
        assert len(create_loader(config(*words), "train", records, clips=False)) == 5

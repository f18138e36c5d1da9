"""Where the videos of a list of images begin, by numbers, by names or by a fixed length."""

import logging

import pytest

from lib.config import load_config
from lib.dataset.dataset_factory import create_records
from lib.dataset.video_breaks import video_offsets_of
from lib.utils.errors import UserError
from tests.dataset.folders import write_voc

MARKED = ["0001-000", "0001-001", "0002-000", "0003-000", "0003-001", "0003-002"]
PLAIN = [f"img{number}" for number in range(7)]


@pytest.mark.parametrize(
    ("ids", "breaks", "frames", "offsets"),
    [
        (PLAIN, ["2", "5"], None, [0, 2, 5, 7]),
        (PLAIN, [0, 2, 6], None, [0, 2, 6, 7]),  # 0 may be among them
        (MARKED, ["1"], None, [0, 1, 6]),  # numbers count more than names
        (MARKED, ["from_dataset"], None, [0, 2, 3, 6]),
        (MARKED, [], None, [0, 2, 3, 6]),
        (MARKED, [], 2, [0, 2, 3, 6]),
        (["a-004", "a-005", "b-001"], [], None, [0, 2, 3]),  # the first of a name, whatever its number
        (PLAIN, [], 3, [0, 3, 6, 7]),
        (PLAIN, [], 7, [0, 7]),
        (PLAIN, [], 100, [0, 7]),
        (PLAIN, [], None, [0, 7]),
        ([*MARKED, "extra"], [], None, [0, 7]),
        (["2024-07"] * 3, [], 2, [0, 2, 3]),  # two digits are no frame number
    ],
)
def test_where_videos_begin(ids, breaks, frames, offsets):
    assert video_offsets_of(ids, breaks, frames).tolist() == offsets


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (["2", "x"], "'x' is no image number; allowed: numbers from 0 that ascend, or from_dataset"),
        (["-1"], "'-1' is no image number"),
        (["2.5"], "'2.5' is no image number"),
        (["from_data"], "'from_data' is no image number"),
        (["3", "2"], "2 follows 3; the numbers must ascend"),
        (["3", "3"], "3 follows 3; the numbers must ascend"),
        (["7"], "there is no image 7; the list has 7, counted from 0"),
        (["from_dataset", "3"], "from_dataset stands alone, not with 3"),
        (["from_dataset"], "from_dataset needs names that end in a frame number, as 0001-000; 'img0' does not"),
    ],
)
def test_breaks_that_cannot_be(breaks, message):
    with pytest.raises(UserError, match=f"TEST.VIDEO_BREAK: {message}"):
        video_offsets_of(PLAIN, breaks)


@pytest.fixture
def opened(tmp_path, caplog):
    """Open a list of images as customRNN, by the words of a command line."""

    def open_list(stems, *words, phase="test", objects=None):
        root = write_voc(tmp_path / "set", {"train": stems, "test": stems}, objects)
        given = [f"DATASET.DATASET_DIR={root}", "DATASET.DATASET=customRNN", "DATASET.TRAIN_SETS=train"]
        caplog.clear()
        with caplog.at_level(logging.INFO):
            return create_records(load_config(None, [*given, "DATASET.TEST_SETS=test", "EXP_DIR=", *words]), phase)

    return open_list


def ids(records):
    return [records.image_id(i) for i in range(len(records))]


class TestCustomRNN:
    def test_without_memory_or_breaks_the_images_are_stills(self, opened):
        assert not any(opened(MARKED, phase=phase).is_video for phase in ("train", "test"))
        assert not opened(MARKED, "TEST.VIDEO_BREAK=[2]", phase="train").is_video

    def test_an_unsorted_list_of_marked_names_is_sorted_with_its_objects(self, opened, caplog):
        stems = [MARKED[i] for i in (4, 0, 2, 5, 1, 3)]
        objects = {stem: [("cat", (1 + number, 5, 60, 50))] * number for number, stem in enumerate(MARKED)}
        records = opened(stems, "TEST.VIDEO_BREAK=from_dataset", objects=objects)
        assert list(records.ids) == MARKED and list(records.videos) == ["0001", "0002", "0003"]
        assert ids(records)[:4] == [("0001", 0), ("0001", 1), ("0002", 0), ("0003", 0)]
        assert [records.objects(i)[0][:, 0].tolist() for i in range(6)] == [[i] * i for i in range(6)]
        assert records.image_path(3).endswith("0003-000.jpg")
        assert "is not in the order of its names; its images are put into it" in caplog.text
        assert "3 videos of 1 to 3 frames by the names" in caplog.text and "6 images in 3 videos" in caplog.text

    def test_numbers_count_in_the_order_of_the_list(self, opened, caplog):
        records = opened(MARKED[::-1], "TEST.VIDEO_BREAK=[2]")
        assert list(records.ids) == MARKED[::-1] and records.video_offsets.tolist() == [0, 2, 6]
        assert ids(records)[:3] == [("0003-002", 0), ("0003-002", 1), ("0003-000", 0)]
        assert "counts in the order of the list" in caplog.text

    def test_training_cuts_names_without_marks_by_a_fixed_length(self, opened, caplog):
        words = ("MODEL.RNN.IN_USE=true", "MODEL.RNN.FRAMES_IN_VIDEO=3", "TEST.VIDEO_BREAK=[1]")
        assert opened(PLAIN, *words, phase="train").video_offsets.tolist() == [0, 3, 6, 7]
        assert "3 videos of 1 to 3 frames: the names mark no videos" in caplog.text
        assert opened(PLAIN, *words, phase="test").video_offsets.tolist() == [0, 1, 7]
        assert opened(MARKED, *words, phase="train").video_offsets.tolist() == [0, 2, 3, 6]

    def test_a_test_without_breaks_is_one_video_and_warns(self, opened, caplog):
        assert opened(PLAIN, "MODEL.RNN.IN_USE=true").video_offsets.tolist() == [0, 7]
        (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert "TEST.VIDEO_BREAK is empty" in warning and "all 7 images are one video" in warning

    def test_tracks_of_the_annotations_are_kept(self, opened, tmp_path):
        opened(MARKED)
        for number, path in enumerate(sorted((tmp_path / "set/Annotations").iterdir())):
            path.write_text(path.read_text().replace("<object>", f"<object><trackid>{number}</trackid>"))
        root = tmp_path / "set"
        words = [f"DATASET.DATASET_DIR={root}", "DATASET.DATASET=customRNN", "DATASET.TEST_SETS=test", "EXP_DIR="]
        records = create_records(load_config(None, [*words, "TEST.VIDEO_BREAK=from_dataset"]), "test")
        assert [records.tracks(i).tolist() for i in range(6)] == [[i] for i in range(6)]

    def test_a_mistake_is_one_line(self, opened):
        with pytest.raises(UserError, match="TEST.VIDEO_BREAK: there is no image 51; the list has 7"):
            opened(PLAIN, "TEST.VIDEO_BREAK=[51,94]")

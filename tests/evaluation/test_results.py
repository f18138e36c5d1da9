"""Results files: what is written, what comes back, and what is said about files that are wrong."""

import json
import tracemalloc

import numpy as np
import pytest
import torch

from lib.evaluation import ResultsWriter, VOCMeanAP, load_results, save_results, to_results, written_id
from lib.structures import Detections
from lib.utils.errors import UserError

from .builders import found, truth

NAMES = ("cat", "dog", "cow")


def entry(**changes):
    fields = {"image_id": "a", "category_id": 2, "category_name": "dog", "bbox": [1, 2, 3, 4], "score": 0.5} | changes
    return {key: value for key, value in fields.items() if value is not ...}


def write(folder, content):
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_entry_has_coco_form_in_pixels():
    rows = found((3, 0.75, 10, 20, 40.5, 60.25), class_names=NAMES)
    assert to_results([rows], [truth(image_id="000012")]) == [
        {"image_id": "000012", "category_id": 3, "category_name": "cow", "bbox": [10, 20, 30.5, 40.25], "score": 0.75}
    ]


def test_category_name_is_left_out_where_nobody_knows_it():
    assert "category_name" not in to_results([found((3, 0.75, 0, 0, 1, 1))], [truth()])[0]


def test_scores_near_one_stay_apart(tmp_path):
    scores = torch.tensor([1.0, 1.0, 0.5])
    scores[1] = torch.nextafter(scores[1], torch.tensor(0.0))
    rows = Detections(torch.zeros(3, 4), scores, torch.ones(3, dtype=torch.int64), NAMES)
    save_results(tmp_path / "r.json", [rows], [truth(image_id="a")])
    back = load_results(tmp_path / "r.json", NAMES)["a"].scores
    assert torch.equal(back.float(), scores)


def random_set(seed, num_images=60):
    generator = torch.Generator().manual_seed(seed)
    detections, targets = [], []
    for i in range(num_images):
        n = int(torch.randint(0, 8, (1,), generator=generator))
        corners = torch.rand(n, 2, generator=generator) * 300
        boxes = torch.cat([corners, corners + 60 + torch.rand(n, 2, generator=generator) * 150], dim=1)
        labels = torch.randint(1, 4, (n,), generator=generator)
        objects = [(int(c), *box) for c, box in zip(labels, boxes.tolist(), strict=True)]
        targets.append(truth(*objects, image_id=f"{i:06d}", size=(480, 640)))
        near = boxes.repeat(4, 1) + torch.randn(4 * n, 4, generator=generator).clamp(-2, 2) * 12
        scores = torch.rand(4 * n, generator=generator).sort(descending=True).values
        detections.append(Detections(near, scores, labels.repeat(4), NAMES))
    return detections, targets


def test_file_gives_the_same_figures_as_the_detections(tmp_path):
    detections, targets = random_set(0)
    direct, through_file = VOCMeanAP(NAMES), VOCMeanAP(NAMES)
    direct.update(detections, targets)
    assert 0.1 < direct.compute()["voc07"] < 0.9
    save_results(tmp_path / "r.json", detections, targets)
    back = load_results(tmp_path / "r.json", NAMES)
    for target in targets:
        through_file.update([back.get(target.image_id, found())], [target])
    assert through_file.compute() == pytest.approx(direct.compute(), abs=1e-4)
    assert through_file.counts() == direct.counts()


def test_loaded_detections(tmp_path):
    rows = [
        entry(image_id="b", score=0.25),
        entry(image_id="a", score=0.5, bbox=[0.1, 0, 0.2, 1]),
        entry(image_id="b", score=0.75, category_id=1, category_name="cat"),
        entry(image_id="b", score=0.25, category_id=3, category_name="cow"),
    ]
    back = load_results(write(tmp_path, rows), NAMES)
    assert list(back) == ["b", "a"]
    assert back["b"].names == ["cat", "dog", "cow"], "best first, equal scores in the order of the file"
    assert back["b"].labels.tolist() == [1, 2, 3]
    assert back["a"].boxes.tolist() == [[0.1, 0, 0.3, 1]]


@pytest.mark.parametrize("image_id", ["000012", 12, "细胞", "caf\udce9", ("a", "b", 3)])
def test_image_ids_keep_their_type(tmp_path, image_id):
    save_results(tmp_path / "r.json", [found((1, 0.5, 0, 0, 1, 1))], [truth(image_id=image_id)])
    assert list(load_results(tmp_path / "r.json", NAMES)) == [image_id]


@pytest.mark.parametrize(
    ("image_id", "written"),
    [(("train/0001", 12), "train/0001/000012"), (("video", 1234567), "video/1234567"), ((3, np.int64(4)), "3/000004")],
)
def test_frames_of_videos_are_named_by_video_and_number(tmp_path, image_id, written):
    path = tmp_path / "r.json"
    save_results(path, [found((1, 0.5, 0, 0, 1, 1))], [truth(image_id=image_id)])
    assert json.loads(path.read_text())[0]["image_id"] == written == written_id(image_id)
    assert list(load_results(path, NAMES)) == [written]


def test_frame_written_as_a_list_is_read_as_a_frame(tmp_path):
    rows = [entry(image_id=["video", 7]), entry(image_id="video/000007")]
    back = load_results(write(tmp_path, rows), NAMES)
    assert {image_id: len(found) for image_id, found in back.items()} == {"video/000007": 2}


def test_no_detections(tmp_path):
    assert save_results(tmp_path / "r.json", [found()], [truth()]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert load_results(tmp_path / "r.json", NAMES) == {}


class TestWriter:
    def test_file_is_standard_json_also_for_overflowed_boxes(self, tmp_path):
        rows = found((1, 0.5, float("-inf"), float("nan"), float("inf"), 3e38), (2, 0.5, *[0, 0, 5, 5]))
        assert save_results(tmp_path / "r.json", [rows], [truth()]) == 2
        json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
        assert len(load_results(tmp_path / "r.json", NAMES)["image"]) == 2

    def test_older_file_survives_a_failure(self, tmp_path):
        path = write(tmp_path, [entry()])
        before = path.read_text()
        with pytest.raises(RuntimeError), ResultsWriter(path) as writer:
            writer.add([found((1, 0.5, 0, 0, 1, 1))], [truth()])
            raise RuntimeError
        assert path.read_text() == before
        assert list(tmp_path.iterdir()) == [path], "no temporary file is left"

    def test_file_appears_only_when_complete(self, tmp_path):
        path = tmp_path / "new folder" / "r.json"
        with ResultsWriter(path) as writer:
            writer.add([found((1, 0.5, 0, 0, 1, 1))], [truth()])
            assert not path.exists()
        assert len(json.loads(path.read_text())) == 1
        assert list(path.parent.iterdir()) == [path]

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        rows = found(*[(1, 0.5, 0, 0, 1, 1)] * 200, class_names=NAMES)
        tracemalloc.start()
        try:
            with ResultsWriter(tmp_path / "r.json") as writer:
                for i in range(50):
                    writer.add([rows], [truth(image_id=i)])
            assert tracemalloc.get_traced_memory()[1] < 2e6
            assert writer.num_entries == 10000
            tracemalloc.reset_peak()
            load_results(tmp_path / "r.json", NAMES)
            size = (tmp_path / "r.json").stat().st_size
            assert tracemalloc.get_traced_memory()[1] < 5 * size
        finally:
            tracemalloc.stop()


class TestClasses:
    def test_matched_by_name_when_the_order_differs(self, tmp_path, caplog):
        rows = [entry(category_id=1, category_name="dog"), entry(category_id=18, category_name="cat", score=0.25)]
        assert load_results(write(tmp_path, rows), NAMES)["a"].labels.tolist() == [2, 1]
        assert "matched by name" in caplog.text

    def test_silent_when_numbers_and_names_agree(self, tmp_path, caplog):
        load_results(write(tmp_path, [entry()]), NAMES)
        assert caplog.text == ""

    def test_name_alone_and_number_alone(self, tmp_path):
        assert load_results(write(tmp_path, [entry(category_id=...)]), NAMES)["a"].labels.tolist() == [2]
        assert load_results(write(tmp_path, [entry(category_name=...)]), NAMES)["a"].labels.tolist() == [2]


BAD_ENTRIES = {
    "not an object": (7, "7 is not an object"),
    "no image": (entry(image_id=...), "'image_id' is missing"),
    "no box": (entry(bbox=...), "'bbox' is missing"),
    "no score": (entry(score=...), "'score' is missing; the entry has image_id, category_id, category_name, bbox"),
    "no class": (entry(category_id=..., category_name=...), "'category_name' and 'category_id' are missing"),
    "three numbers": (entry(bbox=[1, 2, 3]), r"bbox \[1, 2, 3\] is not a list of four numbers"),
    "text in the box": (entry(bbox=[1, 2, 3, "4"]), r"bbox \[1, 2, 3, \"4\"\] is not a list of four numbers"),
    "box of null": (entry(bbox=None), "bbox null is not a list of four numbers"),
    "text as score": (entry(score="high"), 'score "high" is not a number'),
    "NaN score": (entry(score=float("nan")), "score is not finite"),
    "NaN box": (entry(bbox=[1, 2, float("nan"), 4]), "bbox holds a value that is not finite"),
    "infinite box": (entry(bbox=[1, 2, float("inf"), 4]), "bbox holds a value that is not finite"),
    "negative width": (entry(bbox=[10, 2, -3, 4]), "negative width"),
    "null image": (entry(image_id=None), "image_id null is not a string or a number"),
    "object as image": (entry(image_id={}), "image_id {} is not a string or a number"),
    "misspelt name": (entry(category_name="dgo"), "category_name \"dgo\" is unknown; did you mean 'dog'?"),
    "strange name": (entry(category_name="zebra"), "allowed: cat, cow, dog"),
    "number in use": (entry(category_name="cat"), "category_id 2 is 'cat' here, but earlier 2 was 'dog'"),
    "name in use": (entry(category_id=1), "category_id 1 is 'dog' here, but earlier 2 was 'dog'"),
    "name missing": (entry(category_name=...), "given in some entries and missing in others"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
def test_bad_entry_is_told_with_its_index(tmp_path, bad, message):
    path = write(tmp_path, [entry(), entry(image_id="b"), bad, entry()])
    with pytest.raises(UserError, match=message) as error:
        load_results(path, NAMES)
    assert str(error.value).startswith(f"{path}: entry 2: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [0, 4, "dog", 1.5])
def test_number_outside_the_classes(tmp_path, number):
    with pytest.raises(UserError, match="entry 0: category_id .* is not in 1 to 3"):
        load_results(write(tmp_path, [entry(category_id=number, category_name=...)]), NAMES)


GOOD = json.dumps(entry())
BAD_FILES = {
    "empty": ("", "line 1, column 1: not valid JSON"),
    "cut off": (f"[\n{GOOD},\n{GOOD}", f"line 3, column {len(GOOD) + 1}: not valid JSON"),
    "comma missing": (f"[\n{GOOD}\n{GOOD}]", "line 3, column 1: not valid JSON: Expecting ',' or ']'"),
    "comma too many": (f"[\n{GOOD},\n]", "line 3, column 1: not valid JSON"),
    "text behind the list": (f"[{GOOD}]\n[]", "line 2, column 1: not valid JSON: Extra data"),
    "broken entry": (f'[\n{GOOD},\n{{"image_id": }}]', "line 3, column 14: not valid JSON"),
    "object": ('{"images": [], "annotations": []}', "list .* expected, found an object with the keys images"),
    "number": ("3", "a list of detections is expected, found 3"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file_is_told_with_its_place(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        load_results(path, NAMES)
    assert str(error.value).startswith(f"{path}: ")


def test_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read: No such file"):
        load_results(tmp_path / "nowhere.json", NAMES)
    (tmp_path / "image.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        load_results(tmp_path / "image.json", NAMES)


def test_any_layout_of_the_list_is_read(tmp_path):
    first, second = json.dumps(entry(), indent=2), json.dumps(entry(segmentation={"size": [1, 2]}))
    path = write(tmp_path, f"\ufeff \n[ {first}\n ,\t{second} ]\n\n")
    assert len(load_results(path, NAMES)["a"]) == 2
    np.testing.assert_allclose(load_results(write(tmp_path, [entry()]), NAMES)["a"].boxes, [[1, 2, 4, 6]])

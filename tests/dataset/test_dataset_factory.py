"""The loader gives the same batches whatever the workers, from any position, and passes mistakes on in one line."""

import json
import logging
import multiprocessing
import os
import signal

import pytest
import torch

from lib.config import load_config
from lib.dataset.dataset_factory import check_num_classes, create_loader, create_records, num_workers
from lib.utils.errors import UserError
from tests.dataset.folders import write_loose, write_voc


def config(root, *words, workers=0):
    return load_config(
        None,
        [
            "DATASET.DATASET=custom",
            f"DATASET.DATASET_DIR={root}",
            "MODEL.IMAGE_SIZE=[24, 32]",
            "TRAIN.BATCH_SIZE=3",
            "TEST.BATCH_SIZE=4",
            f"DATASET.NUM_WORKERS={workers}",
            f"EXP_DIR={root}/../run",
            *words,
        ],
    )


@pytest.fixture
def root(tmp_path):
    stems = [f"i{n}" for n in range(11)]
    return write_voc(tmp_path / "set", {"train": stems[:8], "val": stems[8:9], "test": stems[9:]}, {"i2": []})


def digest(clips):
    """Everything of the batches that could differ."""
    found = []
    for (batch,) in clips:
        targets = [(target.image_id, target.boxes.tolist(), target.labels.tolist()) for target in batch.targets]
        found.append((batch.images.contiguous().numpy().tobytes(), targets))
    return found


def test_a_clip_is_one_batch_of_uint8_images_with_their_targets(root):
    loader = create_loader(config(root), "test")
    clips = list(loader)
    assert len(loader) == loader.num_batches == len(clips) == 1 and loader.num_images == 2
    (batch,) = clips[0]
    assert batch.images.shape == (2, 3, 24, 32) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.first.tolist() == [True, True]
    assert [target.image_id for target in batch.targets] == ["i9", "i10"]
    for index, target in enumerate(batch.targets):
        image, expected = loader.dataset[1, index]
        assert (batch.images[index].permute(1, 2, 0).numpy() == image).all()
        torch.testing.assert_close(target.boxes, expected.boxes)
        assert target.labels.tolist() == expected.labels.tolist() and target.size == expected.size == (60, 80)
    assert loader.class_names == loader.records.class_names == ("cat",)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(root, workers):
    alone, helped = (create_loader(config(root, workers=count), "train") for count in (0, workers))
    for epoch in (1, 2):
        expected = digest(alone)
        assert digest(helped) == expected and len(expected) == 2, f"epoch {epoch}"
    assert digest(create_loader(config(root, workers=workers), "test")) == digest(create_loader(config(root), "test"))


def test_epochs_follow_each_other_with_new_orders_and_augmentation(root):
    loader = create_loader(config(root), "train")
    first, second = digest(loader), digest(loader)
    assert first != second
    loader.set_position(1)
    assert digest(loader) == first and digest(loader) == second


def test_another_seed_gives_other_batches(root):
    one, two = (digest(create_loader(config(root, f"SEED={seed}"), "train")) for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumes_inside_an_epoch(root, workers):
    words = ["TRAIN.BATCH_SIZE=2"]
    loader = create_loader(config(root, *words, workers=workers), "train")
    loader.set_position(4)
    whole, after = digest(loader), digest(loader)
    for first in (0, 1, 3, 4):
        resumed = create_loader(config(root, *words, workers=workers), "train")
        resumed.set_position(4, first)
        assert digest(resumed) == whole[first:] and digest(resumed) == after
    for _ in loader:
        break
    loader.set_position(4, 2)  # after an epoch that was left half way
    assert digest(loader) == whole[2:]
    with pytest.raises(ValueError, match="batch 5 of an epoch of 4"):
        loader.set_position(4, 5)


def test_an_iteration_that_was_overtaken_by_another_gives_no_wrong_batches(root):
    loader = create_loader(config(root, "TRAIN.BATCH_SIZE=2"), "train")
    old = iter(loader)
    next(old)
    list(loader)
    with pytest.raises(RuntimeError, match="iterated anew"):
        next(old)


def test_evaluation_gives_the_same_images_every_time(root):
    loader = create_loader(config(root), "eval")
    assert digest(loader) == digest(loader) and [t.image_id for t in next(iter(loader))[0].targets] == ["i8"]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_does_not_advance_the_random_state_of_the_run(root, workers):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for _ in create_loader(config(root, workers=workers), "train"):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def break_later(root, cfg, phase, *names):
    """A loader whose images break after the data set was opened."""
    loader = create_loader(cfg, phase)
    for name in names:
        (root / "JPEGImages" / name).write_bytes(b"no image")
    return loader


class TestImagesThatBreakLater:
    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("phase, name", [("train", "i3.jpg"), ("test", "i9.jpg")])
    def test_are_one_line_under_fail_whichever_process_meets_them(self, root, workers, phase, name):
        before = set(multiprocessing.active_children())
        with pytest.raises(UserError) as error:
            list(break_later(root, config(root, "DATASET.ON_BAD=fail", workers=workers), phase, name))
        assert str(error.value) == f"{root}/JPEGImages/{name}: 8 bytes that are no image OpenCV can decode"
        assert set(multiprocessing.active_children()) <= before

    def test_are_replaced_by_the_next_ones_in_training_whatever_the_workers(self, root, caplog):
        words = ["TRAIN.BATCH_SIZE=2"]
        sound = digest(create_loader(config(root, *words), "train"))
        alone = break_later(root, config(root, *words), "train", "i3.jpg", "i4.jpg")
        helped, resumed = (create_loader(config(root, *words, workers=2), "train", alone.records) for _ in range(2))
        expected = digest(alone)
        assert digest(helped) == expected and digest(alone) == digest(helped)
        told = [record.message for record in caplog.records if "stands in" in record.message]
        assert len(told) == 4 and sum("i3.jpg" in line for line in told) == 2  # once by each of two loaders
        resumed.set_position(1, 2)
        assert digest(resumed) == expected[2:]
        before, after = ([target for _, targets in clips for target in targets] for clips in (sound, expected))
        for (name, *objects), (shown, *found) in zip(before, after, strict=True):
            assert shown == ("i5" if name in ("i3", "i4") else name) and (shown != name or found == objects)
        report = json.loads((root / ".." / "run" / "data_report_train.json").read_text())
        found = report["cases"]["unreadable_image"]
        assert found["count"] == 2
        assert sorted(finding["image"][-6:] for finding in found["found"]) == ["i3.jpg", "i4.jpg"]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_are_left_out_of_evaluation_with_a_warning(self, root, caplog, workers):
        cfg = config(root, "TEST.BATCH_SIZE=1", workers=workers)
        loader = break_later(root, cfg, "test", "i9.jpg")
        for _ in range(2):
            assert [target.image_id for (batch,) in loader for target in batch.targets] == ["i10"]
            assert loader.num_left_out == 1
        assert caplog.text.count("i9.jpg: 8 bytes") == 1
        assert caplog.text.count("1 of 2 images cannot be read and are left out of the scores") == 2

    def test_end_evaluation_if_none_is_left_and_training_if_too_many_are_gone(self, root):
        with pytest.raises(UserError, match="none of its 2 images can be read"):
            list(break_later(root, config(root), "test", "i9.jpg", "i10.jpg"))
        with pytest.raises(UserError, match="8 images in a row cannot be read, the first is .*jpg"):
            list(break_later(root, config(root), "train", *[f"i{n}.jpg" for n in range(8)]))


def test_workers_leave_ctrl_c_to_the_training_process(root):
    before = {child.pid for child in multiprocessing.active_children()}
    loader = create_loader(config(root, "TRAIN.BATCH_SIZE=1", workers=1), "train")
    batches = iter(loader)
    next(batches)
    started = [child.pid for child in multiprocessing.active_children() if child.pid not in before]
    assert len(started) == 1
    os.kill(started[0], signal.SIGINT)
    assert len(list(batches)) == 7
    loader.close()
    assert started[0] not in {child.pid for child in multiprocessing.active_children()}
    assert len(list(loader)) == 8


def test_images_without_objects_are_batched_with_the_others(root):
    loader = create_loader(config(root, "TRAIN.BATCH_SIZE=8"), "train")
    ((batch,),) = loader
    found = {target.image_id: target for target in batch.targets}
    assert len(found) == 8 and found["i2"].boxes.shape == (0, 4) and found["i1"].boxes.shape == (1, 4)


def test_a_batch_of_empty_images_alone(tmp_path):
    root = write_voc(tmp_path / "set", {"train": ["a", "b"]}, {"a": [], "b": []})
    ((batch,),) = create_loader(config(root, "DATASET.CLASSES=[cat]"), "train")
    assert [target.boxes.shape for target in batch.targets] == [(0, 4), (0, 4)]
    assert batch.targets[0].labels.dtype == torch.int64 and batch.targets[0].difficult.dtype == torch.bool


class TestSets:
    def ids(self, cfg, phase):
        records = create_records(cfg, phase)
        return [records.image_id(i) for i in range(len(records))]

    def test_phases_read_their_own_sets(self, root):
        cfg = config(root, "DATASET.TRAIN_SETS=[val]", "DATASET.EVAL_SETS=[train]", "DATASET.TEST_SETS=[test]")
        assert self.ids(cfg, "train") == ["i8"] and len(self.ids(cfg, "eval")) == 8
        assert self.ids(cfg, "test") == self.ids(cfg, "visualize") == ["i9", "i10"]

    def test_evaluation_falls_back_to_the_test_images_with_a_warning(self, root, caplog):
        assert self.ids(config(root, "DATASET.TEST_SETS=[test]"), "eval") == ["i9", "i10"]
        assert "the images of TEST_SETS choose the best checkpoint" in caplog.text
        caplog.clear()
        assert self.ids(config(root), "eval") == ["i8"] and not caplog.records

    def test_a_folder_without_lists_needs_no_keys(self, tmp_path, caplog):
        cfg = config(write_loose(tmp_path / "cells", [f"p{n}" for n in range(10)]))
        with caplog.at_level(logging.INFO):
            found = [self.ids(cfg, phase) for phase in ("train", "eval", "test")]
        assert [len(names) for names in found] == [8, 1, 1] and len({n for names in found for n in names}) == 10
        assert (tmp_path / "run" / "split_cells.json").is_file() and "split_cells.json" in caplog.text

    def test_several_folders_are_joined(self, tmp_path):
        roots = [write_voc(tmp_path / name, {"train": [f"{name}1"], "val": [f"{name}2"]}) for name in "xy"]
        cfg = config(tmp_path, f"DATASET.DATASET_DIR=[{roots[0]}, {roots[1]}]")
        assert self.ids(cfg, "train") == ["x1", "y1"]

    def test_class_names_of_a_checkpoint_overrule_those_of_the_data(self, root):
        records = create_records(config(root), "test", class_names=("dog", "cat"))
        assert records.class_names == ("dog", "cat") and records.labels.tolist() == [2, 2]

    def test_a_class_without_objects_is_warned_about_in_training(self, root, caplog):
        create_records(config(root, "DATASET.CLASSES=[cat, unicorn]"), "train")
        assert "no object of unicorn" in caplog.text

    def test_an_unknown_kind_is_answered_with_the_nearest(self, root):
        with pytest.raises(UserError, match="DATASET.DATASET: 'vco' is unknown; did you mean 'voc'"):
            create_records(config(root, "DATASET.DATASET=vco"), "train")


def test_the_number_of_classes_is_derived_or_checked(root):
    cfg = config(root)
    check_num_classes(cfg, ("cat", "dog"))
    assert (cfg.MODEL.NUM_CLASSES, cfg.MATCHER.NUM_CLASSES, cfg.POST_PROCESS.NUM_CLASSES) == (3, 3, 3)
    check_num_classes(cfg, ("cat", "dog"))
    with pytest.raises(UserError, match="MODEL.NUM_CLASSES: 3 given, .* 3 classes and .*, 4: cat, dog, off"):
        check_num_classes(cfg, ("cat", "dog", "off"))


def test_auto_workers_leave_a_core_and_stop_at_eight(monkeypatch):
    expected = {1: 1, 2: 1, 6: 5, 64: 8}
    for cores, workers in expected.items():
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert num_workers("auto") == workers
    assert num_workers(0) == 0 and num_workers(3) == 3

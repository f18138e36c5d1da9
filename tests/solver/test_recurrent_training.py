"""Training and testing of detectors with memory, on tiny videos: stages, exact resume, what is carried, what is not."""

import json
import math
import os
import shutil
import signal
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.commands import train
from lib.config import load_config, save_config
from lib.dataset.dataset_factory import create_loader
from lib.dataset.shapes_folder import VideoParameters
from lib.dataset.shapes_video import write_videos
from lib.layers.multibox_loss import MultiBoxLoss
from lib.modeling.model_builder import create_criterion
from lib.modeling.ssds import SSD
from lib.predictor import ObjectDetector
from lib.solver import checkpoint as ckpt
from lib.solver.replay import read_replay
from lib.solver.solver import Solver
from lib.solver.task import DetectionTask
from lib.solver.train_state import Stopped
from lib.structures import Batch, Predictions, Target
from lib.utils.errors import UserError
from lib.utils.state import map_state

from .test_kill import CHILDREN
from .test_replay import command_of, fail, replayed
from .test_solver import equal, weights

FRAMES, ROWS, SHOWN = 3, 2, 8
"""Of a clip; and how many of the ten frames of a video an epoch shows."""

MODELS = {
    "lstm": ["MODEL.SSDS=lstm_ssd", "MODEL.FEATURE_LAYER=[[11, S, S], [128, 64, 32]]", "MODEL.RNN.CELL_CHANNELS=[16]"],
    "lite": ["MODEL.SSDS=lstm_ssd_lite", "MODEL.FEATURE_LAYER=[[11, 13, L], [128, 256, 32]]"],
    "interleaved": [
        "MODEL.SSDS=lstm_ssd_interleaved", "MODEL.FEATURE_LAYER=[[13, S], [256, 32]]", "MODEL.RNN.CELL_CHANNELS=[16]",
        "MODEL.RNN.SMALL_NETS=mobilenet_v1_025_stride16", "MODEL.RNN.TRAIN_POLICY=random", "MODEL.RNN.INTERVAL=2",
        "TRAIN.OPTIMIZER.OPTIMIZER=adam", "TRAIN.OPTIMIZER.LEARNING_RATE=0.003",
    ],
    "plain": ["MODEL.SSDS=ssd_lite", "MODEL.FEATURE_LAYER=[[11, 13], [128, 256]]"],
}  # fmt: skip
CLIPS_ALONE = ["MODEL.RNN.USE_LSTM_AFTER_EPOCH=0", "MODEL.RNN.FREEZE_BASE_EPOCHS=0"]
STEPS_STILLS, STEPS_CLIPS = 2, 6
"""Batches of the first epoch and of each of the two others."""


@pytest.fixture(scope="module")
def video_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("videos") / "shapes"
    write_videos(out, VideoParameters(num_train=4, num_val=1, num_test=3, size=64, frames=10, classes=3, seed=3), 1)
    return out


def configure(video_dir, run, name, *overrides):
    """A run in three epochs: stills; clips with the base held; clips."""
    return load_config(
        None,
        [
            "MODEL.NETS=mobilenet_v1_025", "MODEL.IMAGE_SIZE=64", "MODEL.PRECISION=fp32", "DATASET.DATASET=coco_vid",
            f"DATASET.DATASET_DIR={video_dir}", "DATASET.NUM_WORKERS=0", "DATASET.TRAIN_SETS=train",
            "DATASET.TEST_SETS=test", "DATASET.EVAL_SETS=val", "TRAIN.BATCH_SIZE=16", "TRAIN.MAX_EPOCHS=3",
            "TRAIN.CHECKPOINTS_EPOCHS=1", "TRAIN.AMP=none", "TRAIN.LOG_EVERY=1", "TRAIN.EMA_DECAY=0.9",
            "TRAIN.TRACK_MAP=False", "TRAIN.OPTIMIZER.LEARNING_RATE=0.01", "TRAIN.LR_SCHEDULER.WARM_UP_ITERATIONS=0",
            "TEST.BATCH_SIZE=2", "TEST.NUM_PICTURES=0", "POST_PROCESS.CLIP_BOXES=True", "DEVICE=cpu", "PHASE=train",
            "MODEL.RNN.IN_USE=True", "MODEL.RNN.USE_LSTM_AFTER_EPOCH=1", "MODEL.RNN.FREEZE_BASE_EPOCHS=1",
            f"MODEL.RNN.BACKPROP_STEPS={FRAMES}", f"MODEL.RNN.BATCH_SIZE={ROWS}", f"MODEL.RNN.FRAMES_IN_VIDEO={SHOWN}",
            f"EXP_DIR={run}", *MODELS[name], *overrides,
        ],
    )  # fmt: skip


@pytest.fixture
def videos(video_dir, tmp_path):
    """Function (name of a model, overrides) -> configuration of a run in tmp_path/run."""
    return lambda name, *overrides: configure(video_dir, tmp_path / "run", name, *overrides)


@pytest.fixture(scope="module")
def whole(video_dir, tmp_path_factory):
    """Function (name of a model, overrides) -> folder of a run of one command that nothing disturbed."""
    runs = {}

    def run(name: str, *overrides) -> Path:
        if (name, overrides) not in runs:
            folder = tmp_path_factory.mktemp("whole")
            save_config(configure(video_dir, folder, name, *overrides), folder / "mine.yml")
            (folder / "mine.yml").rename(folder.with_suffix(".yml"))
            assert train(["--cfg", str(folder.with_suffix(".yml"))]) == 0
            runs[name, overrides] = folder
        return runs[name, overrides]

    return run


def saved(run: Path, position) -> Path:
    (path,) = run.glob(f"*_epoch_{position}.pth")
    return path


def assert_same_state(one: Path, two: Path) -> None:
    """Two checkpoints hold the same bits: weights, averages, optimizer, random state, position, memory."""
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    for part in a.keys() - {"config"}:
        assert equal(a[part], b[part]), part


def leaves(state) -> list[torch.Tensor]:
    found = []
    map_state(found.append, state)
    return found


def stop_after(monkeypatch, number: int) -> list:
    """Sends this process SIGTERM at the end of its batch `number`; returns the list of batches, which grows."""
    take_step, steps = Solver._train_step, []

    def step_and_signal(self, *args):
        losses = take_step(self, *args)
        steps.append(losses)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses

    monkeypatch.setattr(Solver, "_train_step", step_and_signal)
    return steps


# ------------------------------------------------------------------------------------------------ stages


def test_one_command_goes_through_all_stages(whole, video_dir, tmp_path):
    run = whole("lstm")
    first, second, third = (weights(saved(run, epoch))["model"] for epoch in (1, 2, 3))
    for name in first:
        if name.startswith("backbone."):  # buffers of the norms too
            assert torch.equal(first[name], second[name]), name
    moved = [name for name in first if not torch.equal(first[name], second[name])]
    for part in ("neck.cells.", "neck.extras.", "head.loc.", "head.conf."):
        assert [name for name in moved if name.startswith(part)], part
    assert not torch.equal(second["backbone.layers.0.conv.0.weight"], third["backbone.layers.0.conv.0.weight"])
    assert second["neck.extras.0.1.num_batches_tracked"] == STEPS_STILLS + STEPS_CLIPS
    log = (run / "log.txt").read_text()
    assert f"training on 40 images, {STEPS_STILLS} batches of up to 16 an epoch" in log
    assert (
        f"then, from epoch 2, on 4 videos, {STEPS_CLIPS} clips of 3 frames of 2 videos an epoch, the base held up"
        in log
    )
    stills = configure(video_dir, tmp_path / "stills", "lstm", "MODEL.RNN.IN_USE=False", "TRAIN.MAX_EPOCHS=1")
    Solver(stills).run()
    assert equal(weights(saved(tmp_path / "stills", 1))["model"], first)


def test_a_run_that_ended_with_stills_goes_on_with_clips(whole, videos, tmp_path):
    for epochs in (1, 2):
        Solver(videos("lstm", f"TRAIN.MAX_EPOCHS={epochs}")).run()
    assert_same_state(saved(tmp_path / "run", 2), saved(whole("lstm"), 2))


def test_the_number_of_workers_changes_nothing_and_those_of_a_stage_end_with_it(whole, videos, tmp_path, monkeypatch):
    take_step, children = Solver._train_step, []

    def count_children(self, *args):
        children.append(len(CHILDREN.read_text().split()) if CHILDREN.exists() else 0)
        return take_step(self, *args)

    monkeypatch.setattr(Solver, "_train_step", count_children)
    Solver(videos("lstm", "DATASET.NUM_WORKERS=2")).run()
    assert_same_state(saved(tmp_path / "run", 3), saved(whole("lstm"), 3))
    assert children[-1] <= children[0]


@pytest.mark.parametrize(
    "name, overrides, workers, stop, position",
    [
        ("lstm", (), 0, 5, "2_iter_3"),
        ("lstm", (), 1, 11, "3_iter_3"),
        ("lite", ("TRAIN.ACCUMULATE=2",), 2, 5, "2_iter_4"),
        ("interleaved", (), 2, 12, "3_iter_4"),
    ],
)
def test_stopped_between_clips_and_started_again_ends_bit_equal(
    whole, videos, tmp_path, monkeypatch, name, overrides, workers, stop, position
):
    cfg, run = videos(name, *overrides, f"DATASET.NUM_WORKERS={workers}"), tmp_path / "run"
    steps = stop_after(monkeypatch, stop)
    with pytest.raises(Stopped):
        Solver(cfg).run()
    memory = weights(saved(run, position))["recurrent"]
    assert leaves(memory) and any(part.abs().sum() > 0 for part in leaves(memory))
    Solver(cfg).run()
    assert len(steps) == STEPS_STILLS + 2 * STEPS_CLIPS
    assert_same_state(saved(run, 3), saved(whole(name, *overrides), 3))


# ------------------------------------------------------------------------------------------------ what is carried


def test_memory_is_carried_through_an_epoch_row_by_row_and_no_further(videos, monkeypatch):
    """Each row counts the frames it has seen of its video; the numbers of the frames say how many that must be."""
    forward, take_step, shown, counted = SSD.forward, Solver._train_step, [], []

    def count(self, images, state=None, first=None):
        if not self.is_recurrent:
            assert state is None and first is None
            return forward(self, images)
        assert not any(part.requires_grad for part in leaves(state))
        inner, seen = (None, torch.zeros(ROWS)) if state is None else state
        out = forward(self, images, inner, first)
        for begins in first:
            seen = torch.where(begins, 0, seen) + 1 + 0 * out.loc.sum()
            counted[-1].append(seen.tolist())
        assert seen.requires_grad
        return out._replace(state=(out.state, seen))

    def remember(self, task, state, clip, *others):
        shown.append((state.epoch, [[target.image_id for target in batch.targets] for batch in clip]))
        counted.append([])
        return take_step(self, task, state, clip, *others)

    monkeypatch.setattr(SSD, "forward", count)
    monkeypatch.setattr(Solver, "_train_step", remember)
    Solver(videos("lstm")).run()
    assert [len(counts) for counts in counted] == [0] * STEPS_STILLS + [FRAMES] * 2 * STEPS_CLIPS
    before = {}
    for (epoch, clip), counts in zip(shown[STEPS_STILLS:], counted[STEPS_STILLS:], strict=True):
        for frame, numbers in zip(clip, counts, strict=True):
            for row, (video, place) in enumerate(frame):
                last, number = before.get((epoch, row), (None, 0))
                expected = number + 1 if last == (video, place - 1) else 1
                assert numbers[row] == expected
                before[epoch, row] = (video, place), expected
    assert max(number for counts in counted for numbers in counts for number in numbers) == SHOWN
    assert any(1 in numbers for counts in counted for numbers in counts[1:])  # also in the middle of a clip


@pytest.fixture
def task(videos):
    """Function (name of a model) -> (what is trained of it, in eval mode; the first clips of an epoch)."""

    def build(name):
        solver = Solver(videos(name))
        loader = create_loader(solver.cfg, "train", solver.records["train"], clips=True)
        return DetectionTask(solver.model.eval(), create_criterion(solver.cfg), solver.normalize), islice(loader, 4)

    return build


@pytest.mark.parametrize("name", ["lstm", "lite", "interleaved"])
def test_the_loss_of_a_clip_is_that_of_its_frames_as_one_batch(task, name):
    task, clips = task(name)
    state = other = None
    for clip in clips:
        losses, state = task(clip, state)
        assert not any(part.requires_grad for part in leaves(state))
        found = []
        for batch in clip:
            found.append(task.model(task.normalize(batch.images), other, batch.first[None]))
            other = found[-1].state
        joined = Predictions(*(torch.cat([getattr(out, part) for out in found]) for part in ("loc", "conf")),
                             found[0].priors)  # fmt: skip
        expected = task.criterion(joined, [target for batch in clip for target in batch.targets])
        assert losses.keys() == expected.keys()
        for part in losses:
            torch.testing.assert_close(losses[part], expected[part], rtol=1e-4, atol=1e-4)


def test_without_memory_a_clip_is_a_batch_of_its_frames_in_any_order(task):
    task, clips = task("plain")
    task.train()
    clip = next(clips)
    images, targets = torch.cat([batch.images for batch in clip]), [t for batch in clip for t in batch.targets]
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1)).tolist()
    (ours, state), (theirs, _) = task(clip), task([Batch(images[order], [targets[i] for i in order])])
    assert state is None and ours.keys() == theirs.keys()
    for part in ours:
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------ testing


def found_by(solver) -> dict:
    """{image_id: Detections} of the test phase, with the model as it is."""
    found = {}

    def consume(detections, targets):
        found.update({target.image_id: d for target, d in zip(targets, detections, strict=True)})

    loader = create_loader(solver.cfg, "test", solver.records["test"])
    solver.scorer.evaluator.run(solver.scorer.network(solver.model), loader, consume, "test")
    return found


def differences(one: dict, two: dict) -> list:
    """The images in which two detectors find other things."""

    def same(a, b):
        return len(a) == len(b) and all(
            torch.allclose(getattr(a, part).double(), getattr(b, part).double(), rtol=1e-3, atol=1e-3)
            for part in ("boxes", "scores", "labels")
        )

    assert one.keys() == two.keys() and any(len(detections) for detections in one.values())
    return [image for image in one if not same(one[image], two[image])]


@pytest.mark.parametrize(
    "name, words",
    [
        ("lstm", []),
        ("lite", []),
        ("interleaved", []),
        ("interleaved", ["MODEL.RNN.POLICY=adaptive", "MODEL.RNN.ADAPT_THRESHOLD=0.1"]),
    ],
)
def test_videos_side_by_side_are_what_streaming_finds_frame_by_frame(whole, videos, name, words):
    path = saved(whole(name, *(["TRAIN.ACCUMULATE=2"] if name == "lite" else [])), 3)
    solver = Solver(videos(name, "PHASE=test", "POST_PROCESS.MAX_DETECTIONS=20", *words))
    solver.load_for_test(path)
    detector, records, streamed = ObjectDetector(solver.cfg, path), solver.records["test"], {}
    for first, last in zip(records.video_offsets[:-1], records.video_offsets[1:], strict=True):
        frames = detector.predict_video([records.image_path(i) for i in range(first, last)])
        streamed |= {records.image_id(i): found for i, (_, found) in zip(range(first, last), frames, strict=True)}
    for batch_size in (1, 2, 3):  # of three videos: rows go on to the next one, or end with the longest
        solver.cfg.TEST.BATCH_SIZE = batch_size
        assert not differences(found_by(solver), streamed)
    solver.model.switch_memory(False)
    assert differences(found_by(solver), streamed)


def test_the_results_of_videos_do_not_depend_on_the_batch(whole, videos, tmp_path):
    path = saved(whole("lstm"), 3)
    words = [f"TEST.CHECKPOINT={path}", "TEST.PICTURE_THRESHOLD=0.05"]
    results = []
    for batch_size in (3, 2):
        Solver(videos("lstm", "PHASE=test", *words, f"TEST.BATCH_SIZE={batch_size}")).run()
        results.append(json.loads((tmp_path / "run" / f"results_{path.stem}.json").read_text()))
    speeds = {key for key in results[0] if key.startswith(("fps_", "streaming_"))}
    assert {"fps_network", "streaming_fps", "streaming_ms_backbone", "streaming_ms_neck"} <= speeds
    scores = {"mAP", "mAP_vid", "mAP_slow", "mAP_medium", "mAP_fast", "flicker", "gaps", "seen"}
    assert scores <= results[0].keys() - speeds and results[0]["mAP"] == results[0]["map50"]
    assert min(results[0][key] for key in ("mAP", "mAP_vid", "seen")) > 0
    assert results[0]["epoch"] == 3 and results[0].keys() == results[1].keys()
    for key in results[0].keys() - speeds:
        is_number = isinstance(results[0][key], float)
        # An oracle turns wrong boxes into right ones, whose ranks among nearly equal scores are left to rounding.
        allowed = 0.01 if key.startswith("cost/") else 1e-4
        assert results[1][key] == (pytest.approx(results[0][key], abs=allowed) if is_number else results[0][key]), key


def test_weights_of_stills_are_shown_without_memory(whole, videos, tmp_path, monkeypatch):
    """By the position in the file, whatever its name is."""
    run = whole("lstm")
    content = weights(saved(run, 2))
    for name, position in {"begun": {"epoch": 1, "batch": 3}, "stills": {"epoch": 0, "batch": 1}}.items():
        ckpt.save_atomically(content | {"position": content["position"] | position}, tmp_path / f"{name}.pth")
    shutil.copy(saved(run, 1), tmp_path / "best.pth")
    solver = Solver(videos("lstm", "PHASE=test"))
    for path, has_memory in [
        (saved(run, 1), False),
        (saved(run, 2), True),
        (tmp_path / "best.pth", False),
        (tmp_path / "begun.pth", True),
        (tmp_path / "stills.pth", False),
    ]:
        solver.load_for_test(path)
        detector = ObjectDetector(videos("lstm", "MODEL.RNN.USE_LSTM_AFTER_EPOCH=0"), path)
        assert (solver.model.is_recurrent, detector.model.is_recurrent) == (has_memory, has_memory), path


def test_memory_that_has_learnt_can_be_left_out_but_not_unawares(whole, videos, caplog):
    detector = ObjectDetector(videos("lstm", "MODEL.RNN.IN_USE=False"), saved(whole("lstm"), 3))
    assert not detector.model.is_recurrent
    assert "its weights have learnt with memory, MODEL.RNN.IN_USE False goes without it" in caplog.text


def test_a_random_policy_is_the_same_in_every_evaluation_and_leaves_training_alone(videos):
    solver = Solver(videos("interleaved", "PHASE=test", "MODEL.RNN.POLICY=random"))
    before, found = torch.get_rng_state(), []
    for _ in range(2):
        found.append(found_by(solver))
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)
        before = torch.get_rng_state()
    assert not differences(*found)


def test_stills_are_frames_of_their_own_in_batches_of_any_size(videos):
    """The images of a batch that cannot be read are left out of it."""
    solver = Solver(videos("lstm", "PHASE=test"))
    images = torch.randint(0, 255, (7, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = [Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), None, i, (64, 64)) for i in range(7)]

    class Loader(list):
        records = range(7)
        num_rounds = property(len)

        def merge(self, parts):
            return parts[0]

    def run(*sizes):
        found, ends = [], np.cumsum(sizes).tolist()
        spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        loader = Loader([Batch(images[span], targets[span])] for span in spans)
        solver.scorer.evaluator.run(
            solver.scorer.network(solver.model), loader, lambda detections, _: found.extend(detections), "test"
        )
        return dict(enumerate(found))

    assert not differences(run(3, 4), run(*[1] * 7))


# ------------------------------------------------------------------------------------------------ mistakes


def told(capsys, cfg, folder: Path) -> str:
    """The one line with which the command refuses a configuration."""
    save_config(cfg, folder / "mistake.yml")
    capsys.readouterr()
    assert train(["--cfg", str(folder / "mistake.yml")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and not any("Traceback" in line for line in lines)
    return lines[-1]


def test_clips_of_stills_are_refused(videos, shapes_dir, tmp_path, capsys):
    stills = ["DATASET.DATASET=custom", f"DATASET.DATASET_DIR={shapes_dir}"]
    line = told(capsys, videos("lstm", *stills), tmp_path)
    assert "MODEL.RNN.IN_USE: " in line and "holds no videos" in line and "IN_USE False" in line


@pytest.mark.parametrize(
    "words, message",
    [
        (["TRAIN.TRAINABLE_SCOPE=base"], "MODEL.RNN.FREEZE_BASE_EPOCHS: 1 given, but TRAIN.TRAINABLE_SCOPE 'base'"),
        (
            ["MODEL.RNN.USE_LSTM_AFTER_EPOCH=0", "MODEL.RNN.BATCH_SIZE=1", "MODEL.RNN.BACKPROP_STEPS=1"],
            "MODEL.RNN.BATCH_SIZE: the frames of a clip leave batch norm a single value",
        ),
        (["MODEL.RNN.USE_LSTM_AFTER_EPOCH=0", "DATASET.MOSAIC=0.5"], "DATASET.MOSAIC: 0.5 given, but it is for stills"),
    ],
)
def test_what_clips_cannot_be_trained_with_is_told(videos, tmp_path, capsys, words, message):
    assert message in told(capsys, videos("lstm", *words), tmp_path)


@pytest.mark.parametrize("change", ["CELL_CHANNELS=[24]", "CELL_LEVELS=[1]", "CELL_BOUND=none", "SMALL_NETS=other"])
def test_a_run_does_not_go_on_with_another_memory(whole, videos, tmp_path, capsys, change):
    (tmp_path / "run").mkdir()
    path = Path(shutil.copy(saved(whole("lstm"), 2), tmp_path / "run"))
    before = path.read_bytes()
    for phase in ("train", "test"):
        line = told(capsys, videos("lstm", f"MODEL.RNN.{change}", f"PHASE={phase}"), tmp_path)
        assert f"was trained with MODEL.RNN.{change.partition('=')[0]} " in line
        assert "give EXP_DIR another folder" in line
    assert path.read_bytes() == before and list((tmp_path / "run").glob("*.pth")) == [path]


@pytest.mark.parametrize("change", ["CELL_CHANNELS=[24]", "CELL_BOUND=none"])
def test_a_detector_is_not_shown_with_another_memory(whole, videos, change):
    path = saved(whole("lstm"), 3)
    with pytest.raises(UserError, match="CELL_BOUND clip|does not fit the model") as error:
        ObjectDetector(videos("lstm", f"MODEL.RNN.{change}"), path)
    assert "\n" not in str(error.value)


def test_more_rows_than_videos_and_frames_of_several_sizes(videos, monkeypatch, tmp_path):
    """The memory of maps of another size is dropped."""
    take_step, sizes = Solver._train_step, []

    def remember(self, task, state, clip, *others):
        size = tuple(clip[0].images.shape[2:])
        assert not sizes or sizes[-1] == size or state.recurrent is None
        sizes.append(size)
        return take_step(self, task, state, clip, *others)

    monkeypatch.setattr(Solver, "_train_step", remember)
    words = [*CLIPS_ALONE, "TRAIN.MAX_EPOCHS=2", "MODEL.RNN.BATCH_SIZE=5"]
    Solver(videos("lstm", *words, "TRAIN.IMAGE_SIZES=[64, 96]", "MODEL.RNN.BACKPROP_STEPS=2")).run()
    assert len(sizes) == 2 * math.ceil(4 * SHOWN / 10) and set(sizes) == {(64, 64), (96, 96)}
    assert "MODEL.RNN.BATCH_SIZE: 5 rows for 4 videos" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("stop, frames, batches_left", [(2, 2, 2), (4, 4, 0)])
def test_other_clips_after_a_stop_do_not_inherit_the_memory(videos, tmp_path, monkeypatch, stop, frames, batches_left):
    """An epoch that has become shorter may be over."""
    words = [*CLIPS_ALONE, "TRAIN.MAX_EPOCHS=1"]
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_after(patch, stop)
        Solver(videos("lstm", *words)).run()
    steps = stop_after(monkeypatch, 0)
    Solver(videos("lstm", *words, "MODEL.RNN.BATCH_SIZE=4", f"MODEL.RNN.BACKPROP_STEPS={frames}")).run()
    assert len(steps) == batches_left
    assert weights(saved(tmp_path / "run", 1))["position"]["epoch"] == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "without a past, since MODEL.RNN.BACKPROP_STEPS, MODEL.RNN.BATCH_SIZE has changed within an epoch" in log


def test_parts_of_a_family_that_a_model_lacks_are_told_once(videos, tmp_path):
    Solver(videos("lstm", "TRAIN.TRAINABLE_SCOPE=transforms,loc,conf,extras")).run()
    assert (tmp_path / "run" / "log.txt").read_text().count("this model has no parameters under 'transforms'") == 1


def test_published_weights_of_an_epoch_of_stills_go_on_with_clips(videos, tmp_path):
    model = Solver(videos("lite")).model
    names = {"backbone.layers.": "base.", "neck.extras.": "extras.", "neck.norm.": "norm.", "head.": ""}
    state = {}
    for name, tensor in model.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        state[names[prefix] + name.removeprefix(prefix)] = tensor
    torch.save(state, tmp_path / "run" / "ssd_lite_RNN_mobilenet_v1_025_vid_epoch_1.pth")
    Solver(videos("lite", "TRAIN.MAX_EPOCHS=2")).run()
    content = weights(saved(tmp_path / "run", 2))
    assert content["position"] == {"epoch": 2, "batch": 0, "step": STEPS_STILLS + STEPS_CLIPS}


# ------------------------------------------------------------------------------------------------ replay


@pytest.mark.parametrize("name", ["lstm", "interleaved"])
def test_a_step_of_clips_that_breaks_is_replayed_with_its_memory(videos, tmp_path, monkeypatch, capsys, name):
    words = [*CLIPS_ALONE, "MODEL.RNN.FRAMES_IN_VIDEO=10", "TRAIN.ACCUMULATE=2"]
    cfg = videos(name, *words)
    clips = list(create_loader(cfg, "train", Solver(cfg).records["train"]))
    culprit = clips[3][0].targets[0].image_id  # in the second clip of the second step
    assert not any(target.image_id == culprit for clip in clips[:3] for batch in clip for target in batch.targets)
    forward = MultiBoxLoss.forward

    def plant(self, predictions, targets):
        losses = forward(self, predictions, targets)
        infinite = any(target.image_id == culprit for target in targets)
        return losses | {"loc_loss": losses["loc_loss"] + math.inf} if infinite else losses

    monkeypatch.setattr(MultiBoxLoss, "forward", plant)
    message = fail(cfg)
    assert message.startswith("the loss is not finite in epoch 1, batch 4: loc_loss inf")
    assert f"images {culprit[0]}/{culprit[1]:06d}, " in message
    path = command_of(message)[1]
    content = read_replay(path)
    assert leaves(content["run"]["recurrent"]) and len(content["clips"]) == 2
    assert "what the run computed comes out the same, bit by bit" in replayed(message, capsys)
    ckpt.save_atomically(content | {"run": content["run"] | {"recurrent": None}}, path)
    lines = replayed(message, capsys)
    assert any(line.startswith("what the run computed comes out DIFFERENT") for line in lines)

"""A step that is not finite stops the run, and the command in the message runs it again and finds the planted cause."""

import math
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.commands import train
from lib.dataset.detection import DetectionDataset
from lib.layers.normalize import Normalize
from lib.solver import checkpoint as ckpt
from lib.solver.replay import read_replay
from lib.solver.solver import Solver
from lib.solver.step_guard import StepGuard
from lib.solver.train_state import TrainState
from lib.structures import Batch, Target
from lib.utils.errors import UserError

from .test_solver import equal

ROOT = Path(__file__).parent.parent.parent
HOT = ["TRAIN.OPTIMIZER.LEARNING_RATE=1e30", "TRAIN.CLIP_NORM=0", "TRAIN.LR_SCHEDULER.WARM_UP_ITERATIONS=0"]


def fail(cfg) -> str:
    """The message with which the run of a configuration fails."""
    with pytest.raises(FloatingPointError) as error:
        Solver(cfg).run()
    message = str(error.value)
    assert "\n" not in message
    return message


def command_of(message: str) -> list[str]:
    """The words after the script in the command that ends a message."""
    words = shlex.split(message.partition("to find out why: ")[2])
    assert words[:2] == ["python", "train.py"]
    return words[2:]


def replayed(message: str, capsys) -> list[str]:
    """The lines that the command in a message shows."""
    capsys.readouterr()
    assert train(command_of(message)) == 0
    return capsys.readouterr().out.splitlines()


def plant_boxes(monkeypatch, image_id: str) -> None:
    sample = DetectionDataset.sample

    def planted(self, epoch, index, *others):
        image, boxes, *rest = sample(self, epoch, index, *others)
        if self.records.image_id(index) == image_id and epoch == 2:
            boxes = boxes.copy()
            boxes[0, 2] = np.nan
        return image, boxes, *rest

    monkeypatch.setattr(DetectionDataset, "sample", planted)


def test_a_box_that_is_not_a_number_is_found(tiny, tmp_path, monkeypatch, capsys):
    plant_boxes(monkeypatch, "train_000007")
    message = fail(tiny("TRAIN.TRACK_MAP=False", "DATASET.NUM_WORKERS=1"))
    assert message.startswith("a box is not finite in epoch 2, batch ") and "images train_000007;" in message
    lines = replayed(message, capsys)
    assert lines[-1] == "finding: image train_000007 has NaN or infinity in its boxes: correct its annotation"
    (row,) = [line for line in lines if line.startswith("train_000007 ")]
    assert "1 suspicious" in row and row.endswith("train_000007.jpg")
    assert any(line.startswith("  train_000007: box 0 [") and "nan" in line for line in lines)


@pytest.mark.parametrize("settings", [[], ["TRAIN.ACCUMULATE=2"], ["TRAIN.AMP=bf16"], ["TRAIN.TRAINABLE_SCOPE=conf"]])
def test_weights_that_exploded_are_found_and_the_losses_come_out_the_same(tiny, capsys, settings):
    message = fail(tiny(*HOT, *settings, "TRAIN.TRACK_MAP=False"))
    lines = replayed(message, capsys)
    assert "what the run computed comes out the same, bit by bit" in lines
    assert lines[-1].startswith("finding: the weights ") and "LEARNING_RATE" in lines[-1]
    assert any(line.startswith("loc_loss ") for line in lines)


def test_the_command_works_in_a_process_of_its_own(tiny):
    message = fail(tiny(*HOT, "TRAIN.TRACK_MAP=False"))
    done = subprocess.run([sys.executable, "train.py", *command_of(message)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert "what the run computed comes out the same, bit by bit" in done.stdout.splitlines()


def test_the_file_holds_the_state_before_the_step(tiny, tmp_path):
    """Up to the batch norm statistics, which the forward pass of the failed step has changed already."""
    before = {}
    begin = StepGuard.begin

    def remember(self, clip):
        before.update({name: tensor.clone() for name, tensor in self.state.model.state_dict().items()})
        return begin(self, clip)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepGuard, "begin", remember)
        message = fail(tiny(*HOT, "TRAIN.TRACK_MAP=False"))
    content = read_replay(command_of(message)[1])
    assert equal(before, dict(content["run"]["model"]))
    position = content["run"]["position"]
    assert f"epoch {position['epoch'] + 1}, batch {position['batch'] + 1}:" in message
    assert command_of(message)[1] == str(tmp_path / "run" / "replay" / f"step_{position['step'] + 1}.pth")
    ids = [target["image_id"] for target in content["clips"][0][0]["targets"]]
    assert f"images {', '.join(ids)};" in message and content["clips"][0][0]["images"].dtype == torch.uint8


def test_weights_that_were_spoilt_before_are_named(tiny, monkeypatch, capsys):
    take_step = Solver._train_step

    def spoil(self, task, state, *others):
        if state.step == 3:
            self.model.head.loc[1].weight.data[2, 5] = math.nan
        return take_step(self, task, state, *others)

    monkeypatch.setattr(Solver, "_train_step", spoil)
    lines = replayed(fail(tiny("TRAIN.TRACK_MAP=False")), capsys)
    assert lines[-1].startswith("finding: the weights were already not finite before this step (head.loc.1.weight)")
    assert any(
        line.startswith("first module whose output is not finite: head.loc.1 (its input is fin") for line in lines
    )


def test_pixels_that_are_spoilt_on_the_way_in_are_named(tiny, monkeypatch, capsys):
    """One image leaves the normalisation as infinity: the network's input, not its weights, is at fault."""
    normalize, brightness = Normalize.forward, []

    def spoilt(self, images):
        sums = images.sum((1, 2, 3))
        brightness.append(sums.max())
        return torch.where((sums == brightness[0])[:, None, None, None], math.inf, normalize(self, images))

    monkeypatch.setattr(Normalize, "forward", spoilt)
    message = fail(tiny("TRAIN.TRACK_MAP=False"))
    (batch,) = read_replay(command_of(message)[1])["clips"][0]
    culprit = batch["targets"][batch["images"].sum((1, 2, 3)).argmax()]["image_id"]
    lines = replayed(message, capsys)
    assert lines[-1].startswith(f"finding: image {culprit} is not finite once it is normalised")
    assert any(line.startswith("first module whose output is not finite: normalize ") for line in lines)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(tiny, monkeypatch, capsys):
    """The square root of nothing: the loss is finite, its gradient is not."""
    from lib.layers.multibox_loss import MultiBoxLoss

    forward = MultiBoxLoss.forward

    def rooted(self, predictions, targets):
        losses = forward(self, predictions, targets)
        losses["loc_loss"] = losses["loc_loss"] + (predictions.loc.sum() * 0).sqrt()
        return losses

    monkeypatch.setattr(MultiBoxLoss, "forward", rooted)
    message = fail(tiny("TRAIN.TRACK_MAP=False"))
    assert message.startswith("the gradient is not finite in epoch 1, batch 1: loc_loss ") and "norm nan" in message
    lines = replayed(message, capsys)
    assert "what the run computed comes out the same, bit by bit" in lines
    assert lines[-1].startswith("finding: the losses are finite, but the gradient overflows in the backward pass")


def test_an_overflow_of_bf16_alone_is_told_apart(tiny, tmp_path, capsys):
    """A bias between the largest numbers of bf16 and of fp32, and one object, which only one prior answers for."""
    solver = Solver(tiny())
    state = TrainState(solver.cfg, solver.model, 5, False, solver.device)
    with torch.no_grad():
        for loc in solver.model.head.loc:
            loc.bias[0::4] = 3.4e38
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    targets = [Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), image_id=f"i{n}") for n in range(3)]
    targets.append(Target(torch.tensor([[0.5, 0.5, 0.52, 0.52]]), torch.ones(1, dtype=torch.int64), image_id="i3"))
    guard = StepGuard(solver.cfg, state, solver.records["train"], torch.bfloat16)
    clip = [Batch(images, targets)]
    guard.begin(clip)
    losses = {"loc_loss": torch.tensor(math.inf), "conf_loss": torch.tensor(1.0)}
    with pytest.raises(FloatingPointError) as error:
        guard.check_losses(losses, sum(losses.values()), clip, 0.01)
    lines = replayed(str(error.value), capsys)
    assert lines[-1].startswith("finding: bfloat16 overflows in module head.loc.0: fp32 gives finite losses")


def test_a_replay_that_differs_says_so(tiny, tmp_path, capsys):
    message = fail(tiny(*HOT, "TRAIN.TRACK_MAP=False"))
    path = Path(command_of(message)[1])
    content = read_replay(path)
    content["losses"][0]["loc_loss"] = 1.5
    ckpt.save_atomically(content, path)
    assert any(line.startswith("what the run computed comes out DIFFERENT") for line in replayed(message, capsys))


def test_a_full_disk_does_not_hide_the_message(tiny, monkeypatch):
    def full(content, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib.solver.step_guard.save_atomically", full)
    message = fail(tiny(*HOT, "TRAIN.TRACK_MAP=False"))
    assert "images train_0" in message and message.endswith("could not be written (No space left on device)")


class OnGpu(StepGuard):
    """The guard of a device at whose losses nobody looks at once."""

    def __init__(self, *args):
        super().__init__(*args)
        self.on_cpu = False


def test_what_is_noted_on_a_gpu_names_the_first_bad_batch(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("lib.solver.solver.StepGuard", OnGpu)
    message = fail(tiny(*HOT, "TRAIN.TRACK_MAP=False", "TRAIN.LOG_EVERY=4"))
    monkeypatch.undo()
    on_cpu = fail(tiny(*HOT, "TRAIN.TRACK_MAP=False", f"EXP_DIR={tmp_path / 'cpu'}"))
    assert message.partition(";")[0] == on_cpu.partition(";")[0]
    assert "no replay file" in message and not (tmp_path / "run" / "replay").exists()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--replay", "{folder}/none.pth"], "none.pth: no such checkpoint"),
        (["--replay", "{folder}/run.pth"], "run.pth: is no replay file"),
        (["--replay", "{folder}/text.pth"], "no checkpoint at all"),
        (["--replay", "{folder}/newer.pth"], "written by a newer version"),
        (["--replay", "{folder}/run.pth", "--phase", "test"], "--replay FILE stands alone"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, capsys, arguments, expected):
    torch.save({"format": 1, "model": {"a": torch.ones(1)}}, tmp_path / "run.pth")
    torch.save({"replay": 99}, tmp_path / "newer.pth")
    (tmp_path / "text.pth").write_text("no weights")
    assert train([argument.format(folder=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error and error.startswith("error: ") and "\n" not in error


def test_a_replay_file_is_no_checkpoint_to_test(tiny):
    path = command_of(fail(tiny(*HOT, "TRAIN.TRACK_MAP=False")))[1]
    with pytest.raises(UserError, match="holds no weights"):
        Solver(tiny("PHASE=test", f"TEST.CHECKPOINT={path}")).run()


def test_a_network_without_norms_has_no_statistics_to_keep(tiny):
    state = SimpleNamespace(model=torch.nn.Linear(2, 2), device=torch.device("cpu"), step=0, recurrent=None)
    guard = StepGuard(tiny(), state, records=None, dtype=None)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    guard.begin([Batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [nothing])])

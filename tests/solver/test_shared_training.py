"""Training and testing by torchrun in several processes: what one alone does, on more cores or hosts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lib.commands import train
from lib.config import save_config
from lib.dataset.shapes_folder import VideoParameters
from lib.dataset.shapes_video import write_videos
from lib.solver import checkpoint as ckpt
from lib.solver.writer import read_log

from ..processes import DOUBLE, ROOT, finished, torchrun
from .test_solver import equal

TOLERANCE = 1e-5
STILLS = [
    "TRAIN.OPTIMIZER.LEARNING_RATE=0.0002", "TRAIN.LOG_EVERY=1", "TRAIN.EMA_DECAY=0.5", "TRAIN.ACCUMULATE=2",
    "TRAIN.MAX_EPOCHS=10", "TRAIN.TRACK_MAP_EVERY=2", "TRAIN.CHECKPOINTS_KEPT=20", "PHASE=[train, eval]",
]  # fmt: skip
"""20 images in batches of 4 or 5, two of which make a step."""
VIDEOS = [
    "DATASET.DATASET=coco_vid", "DATASET.DATASET_DIR={videos}", "MODEL.NETS=mobilenet_v1_025",
    "MODEL.RNN.IN_USE=True", "MODEL.RNN.USE_LSTM_AFTER_EPOCH=1", "MODEL.RNN.FREEZE_BASE_EPOCHS=1",
    "MODEL.RNN.BACKPROP_STEPS=3", "MODEL.RNN.BATCH_SIZE=3", "MODEL.RNN.FRAMES_IN_VIDEO=8", "TRAIN.MAX_EPOCHS=3",
    "TRAIN.OPTIMIZER.LEARNING_RATE=0.0001", "TRAIN.LOG_EVERY=1", "TEST.BATCH_SIZE=2", "PHASE=train",
    "TRAIN.TRACK_MAP=False", "TRAIN.SYNC_NORMS=True",
]  # fmt: skip
LSTM = ["MODEL.SSDS=lstm_ssd", "MODEL.FEATURE_LAYER=[[11, S, S], [128, 64, 32]]", "MODEL.RNN.CELL_CHANNELS=[16]"]
TURNS = [
    "MODEL.SSDS=lstm_ssd_interleaved", "MODEL.FEATURE_LAYER=[[13, S], [256, 32]]", "MODEL.RNN.CELL_CHANNELS=[16]",
    "MODEL.RNN.SMALL_NETS=mobilenet_v1_025_stride16", "MODEL.RNN.INTERVAL=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def double(tmp_path_factory) -> Path:
    """train.py in double precision."""
    path = tmp_path_factory.mktemp("script") / "double.py"
    path.write_text(DOUBLE)
    return path


@pytest.fixture(scope="module")
def video_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("videos") / "shapes"
    write_videos(out, VideoParameters(num_train=4, num_val=1, num_test=3, size=64, frames=10, classes=3, seed=3), 1)
    return out


def written(cfg, folder: Path, name: str) -> tuple[str, ...]:
    """Arguments of train.py for a configuration with EXP_DIR folder/name."""
    save_config(cfg, folder / f"{name}.yml")
    return "--cfg", str(folder / f"{name}.yml"), f"EXP_DIR={folder / name}"


def losses(run: Path) -> list[float]:
    return [line["Train/loss"] for line in read_log(run / "log.jsonl") if "Train/loss" in line]


def figures(run: Path) -> dict:
    """The results of a test but for speed and paths."""
    results = json.loads(next(run.glob("results*.json")).read_text())
    timed = ("fps", "streaming", "checkpoint")
    return {name: value for name, value in results.items() if not name.startswith(timed)}


def scores(run: Path, name: str) -> list[float]:
    """A figure of the evaluations."""
    return [line[f"Eval/{name}"] for line in read_log(run / "log.jsonl") if f"Eval/{name}" in line]


def assert_same_training(one: Path, two: Path) -> None:
    assert len(losses(one)) == len(losses(two))
    assert losses(one) == pytest.approx(losses(two), rel=TOLERANCE)
    last = [ckpt.read_checkpoint(ckpt.last_checkpoint(run)) for run in (one, two)]
    for part in ("model", "ema"):
        if last[0][part]:
            torch.testing.assert_close(last[0][part], last[1][part], rtol=1e-3, atol=1e-5)
    assert last[0]["position"] == last[1]["position"]


def test_two_processes_train_evaluate_and_test_as_one(tiny, tmp_path, double):
    """With batch norm over both, gradient accumulation, averaged weights and a batch that does not divide evenly."""
    cfg = tiny(*STILLS, "TRAIN.BATCH_SIZE=5", "TEST.BATCH_SIZE=3")
    alone = subprocess.Popen(python(double, written(cfg, tmp_path, "one")), cwd=ROOT, env=plain_environment())
    together = torchrun(2, double, *written(cfg, tmp_path, "two"))
    assert alone.wait(240) == 0
    out, _ = finished(together)
    one, two = tmp_path / "one", tmp_path / "two"
    assert len(losses(one)) == 20
    assert_same_training(one, two)
    for name in ("loc_loss", "conf_loss"):
        assert scores(one, name) == pytest.approx(scores(two, name), rel=1e-4) and len(scores(one, name)) >= 4
    assert "2 processes" in out and out.count("training is complete") == 1


@pytest.mark.slow
def test_three_processes_find_the_very_same_as_one(tiny, tmp_path):
    cfg = tiny("TRAIN.TRACK_MAP=False", "TEST.BATCH_SIZE=3", "PHASE=[train, test]", "TEST.CHECKPOINT=last")
    assert train([*written(cfg, tmp_path, "one")]) == 0
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    finished(torchrun(3, "train.py", *written(cfg, tmp_path, "three"), "--phase", "test"))
    first, second = tmp_path / "one", tmp_path / "three"
    assert figures(first) == figures(second)
    assert (first / "detections.json").read_bytes() == (second / "detections.json").read_bytes()
    assert {path.name for path in second.iterdir()} >= {"gallery.html", "pictures", "precision_recall.png"}


def python(script: Path, arguments: tuple) -> list[str]:
    """The same script in one process."""
    return [sys.executable, str(script), *arguments]


def plain_environment() -> dict:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def test_mistakes_are_told_once(tiny, tmp_path):
    cfg = tiny("TRAIN.BATCH_SIZE=1")
    _, err = finished(torchrun(2, "train.py", *written(cfg, tmp_path, "run")), status=1)
    told = re.findall(r"^error: .*", err, re.M)
    assert len(told) == 1 and "TRAIN.BATCH_SIZE: 1 given, which is shared by 2 processes" in told[0]
    assert f"{ROOT}/lib/" not in err  # no traceback of ours


@pytest.mark.slow
@pytest.mark.parametrize("model", [LSTM, TURNS], ids=["lstm", "turns"])
def test_videos_are_trained_in_lanes_of_several_processes(tiny, tmp_path, double, video_dir, model):
    settings = [word.format(videos=video_dir) for word in (*VIDEOS, *model)]
    cfg = tiny(*settings, "MODEL.RNN.TRAIN_POLICY=large" if model is TURNS else "MODEL.RNN.CELL_SKIP=True")
    assert subprocess.run(
        python(double, written(cfg, tmp_path, "one")), cwd=ROOT, env=plain_environment()
    ).returncode == 0  # fmt: skip
    finished(torchrun(3 if model is LSTM else 2, double, *written(cfg, tmp_path, "several")))
    one, several = tmp_path / "one", tmp_path / "several"
    if model is LSTM:
        assert_same_training(one, several)
    assert len(losses(one)) == len(losses(several))
    cfg.TEST.CHECKPOINT = str(ckpt.last_checkpoint(one))
    assert train([*written(cfg, tmp_path, "tested"), "--phase", "test"]) == 0
    finished(torchrun(2, "train.py", *written(cfg, tmp_path, "tested by two"), "--phase", "test"))
    alone, together = figures(tmp_path / "tested"), figures(tmp_path / "tested by two")
    assert alone.keys() == together.keys()
    numbers = {name: value for name, value in alone.items() if isinstance(value, float)}
    assert len(numbers) > 20
    assert {name: together[name] for name in numbers} == pytest.approx(numbers, abs=1e-6, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stills", "videos"])
def test_resumes_in_mid_epoch_with_as_many_and_with_more_processes(tiny, tmp_path, video_dir, model):
    """Two processes stopped after a step end bit-equal when two go on, and close to it when three do."""
    settings = ["TRAIN.LOG_EVERY=1", "TRAIN.MAX_EPOCHS=2", "TRAIN.CHECKPOINTS_ITERATIONS=2", "TRAIN.BATCH_SIZE=6",
                "TRAIN.OPTIMIZER.LEARNING_RATE=0.0005"]  # fmt: skip
    if model == "videos":
        settings = [w.format(videos=video_dir) for w in (*VIDEOS, *LSTM)] + ["TRAIN.CHECKPOINTS_ITERATIONS=2"]
    cfg = tiny(*settings, "TRAIN.TRACK_MAP=False", "PHASE=train")
    finished(torchrun(2, "train.py", *written(cfg, tmp_path, "whole")))
    process = torchrun(2, "train.py", *written(cfg, tmp_path, "stopped"))
    log = tmp_path / "stopped" / "log.jsonl"
    deadline = time.monotonic() + 120
    while (not log.exists() or log.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and err.count("stopped by SIGTERM; saved") >= 1
    assert "epoch" in ckpt.last_checkpoint(tmp_path / "stopped").name
    shutil.copytree(tmp_path / "stopped", tmp_path / "more")
    finished(torchrun(2, "train.py", *written(cfg, tmp_path, "stopped")))
    out, _ = finished(torchrun(3, "train.py", *written(cfg, tmp_path, "more")))
    assert "the checkpoint is of 2 processes, now there are 3" in out
    whole, again, more = (
        ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / name)) for name in ("whole", "stopped", "more")
    )
    for part in whole.keys() - {"config"}:
        assert equal(whole[part], again[part]), part
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "more"), rel=0.05)
    assert whole["position"] == more["position"]


@pytest.mark.slow
def test_a_killed_worker_is_restarted_and_the_run_ends_as_undisturbed(tiny, tmp_path):
    cfg = tiny("TRAIN.LOG_EVERY=1", "TRAIN.MAX_EPOCHS=4", "TRAIN.CHECKPOINTS_ITERATIONS=1", "PHASE=[train, test]")
    finished(torchrun(2, "train.py", *written(cfg, tmp_path, "whole")))
    process = torchrun(2, "train.py", *written(cfg, tmp_path, "hurt"), options=["--standalone", "--max-restarts=3"])
    log = tmp_path / "hurt" / "log.jsonl"
    deadline = time.monotonic() + 120
    while (not log.exists() or log.read_bytes().count(b"\n") < 7) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    finished(process)
    whole, hurt = (ckpt.read_checkpoint(ckpt.last_checkpoint(tmp_path / name)) for name in ("whole", "hurt"))
    for part in whole.keys() - {"config"}:
        assert equal(whole[part], hurt[part]), part
    assert figures(tmp_path / "whole") == figures(tmp_path / "hurt")


NAN = """
import sys
import torch
from lib.layers.multibox_loss import MultiBoxLoss
from lib.utils.distributed import rank

forward, calls = MultiBoxLoss.forward, []

def sick(self, predictions, targets):
    calls.append(1)
    losses = forward(self, predictions, targets)
    return losses if rank() == 0 or len(calls) < 3 else {name: value * float("nan") for name, value in losses.items()}

MultiBoxLoss.forward = sick
from lib.commands import train
sys.exit(train(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_stops_all_and_can_be_replayed(tiny, tmp_path):
    (tmp_path / "sick.py").write_text(NAN)
    cfg = tiny("TRAIN.TRACK_MAP=False")
    _, err = finished(torchrun(2, tmp_path / "sick.py", *written(cfg, tmp_path, "run")), status=1)
    (told,) = re.findall(r"^error: .*", err, re.M)
    assert "the loss is not finite in epoch 1, batch 3" in told and len(re.findall(r"train/\d|\d{3}", told)) >= 4
    content = torch.load(tmp_path / "run" / "replay" / "step_3.pth", weights_only=False)
    assert len(content["clips"][0][0]["images"]) == 4  # those of both processes


STUCK = """
import sys
import time
from lib.solver.task import DetectionTask
from lib.utils.distributed import rank

forward, calls = DetectionTask.forward, []

def stuck(self, *args):
    calls.append(1)
    if rank() == 1 and len(calls) == 3:
        time.sleep(1000)
    return forward(self, *args)

DetectionTask.forward = stuck
from lib.commands import train
sys.exit(train(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_hang_is_noticed_with_the_stack_of_every_process(tiny, tmp_path):
    (tmp_path / "stuck.py").write_text(STUCK)
    cfg = tiny("TRAIN.TRACK_MAP=False", "TRAIN.HANG_SECONDS=5")
    _, err = finished(torchrun(2, tmp_path / "stuck.py", *written(cfg, tmp_path, "run")), status=1)
    assert "has not finished a step for 5 s" in err
    deadline = time.monotonic() + 10
    stacks = [tmp_path / "run" / "stacks" / f"process_{number}.txt" for number in (0, 1)]
    while not all(path.exists() for path in stacks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "in stuck" in stacks[1].read_text()
    assert "forward" in stacks[0].read_text() or "all_reduce" in stacks[0].read_text()


def can_have_namespaces() -> bool:
    if not shutil.which("ip") or os.geteuid() != 0:
        return False
    done = [subprocess.run(["ip", "netns", act, "ssds_probe"], capture_output=True) for act in ("add", "delete")]
    return not any(process.returncode for process in done)


@pytest.mark.slow
@pytest.mark.skipif(not can_have_namespaces(), reason="needs root and network namespaces")
def test_two_hosts_of_two_processes_train_as_one(tiny, tmp_path, double):
    """The hosts are network namespaces with an address each, joined by a bridge of two ends."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    hosts = {"ssds_a": "10.77.0.1", "ssds_b": "10.77.0.2"}
    cfg = tiny(*STILLS, "TRAIN.MAX_EPOCHS=3")
    assert subprocess.run(
        python(double, written(cfg, tmp_path, "one")), cwd=ROOT, env=plain_environment()
    ).returncode == 0  # fmt: skip
    try:
        ip("link", "add", "ssds_va", "type", "veth", "peer", "name", "ssds_vb")
        for (host, address), end in zip(hosts.items(), ("ssds_va", "ssds_vb"), strict=True):
            ip("netns", "add", host)
            ip("link", "set", end, "netns", host)
            ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            ip("-n", host, "link", "set", end, "up")
            ip("-n", host, "link", "set", "lo", "up")
        arguments = written(cfg, tmp_path, "hosts")
        options = ["--nnodes=2", "--rdzv-backend=static", "--master-addr=10.77.0.1", "--master-port=29871"]
        started = [
            in_namespace(host, end, torchrun_command(2, [*options, f"--node-rank={number}"], double, arguments))
            for number, (host, end) in enumerate(zip(hosts, ("ssds_va", "ssds_vb"), strict=True))
        ]
        for process in started:
            finished(process)
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)
    assert_same_training(tmp_path / "one", tmp_path / "hosts")
    assert scores(tmp_path / "one", "mAP") == pytest.approx(scores(tmp_path / "hosts", "mAP"), abs=1e-3)


def torchrun_command(count: int, options: list[str], script: Path, arguments: tuple) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", *options, str(script),
            *arguments]  # fmt: skip


def in_namespace(host: str, interface: str, command: list[str]) -> subprocess.Popen:
    environment = {**plain_environment(), "GLOO_SOCKET_IFNAME": interface}
    return subprocess.Popen(
        ["ip", "netns", "exec", host, *command], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

"""Starting train.py, or a function, in several processes at once."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing

ROOT = Path(__file__).parent.parent

DOUBLE = """
import sys
import torch

torch.set_default_dtype(torch.float64)
from lib.layers.normalize import Normalize

forward = Normalize.forward
Normalize.forward = lambda self, images: forward(self, images).double()
torch.Tensor.float = torch.Tensor.double
from lib.commands import train
sys.exit(train(sys.argv[1:]))
"""
"""train.py in double precision, in which other batches round alike for long enough to compare losses."""


def torchrun(count: int, script, *arguments: str, options=(), env=None) -> subprocess.Popen:
    """`script` under torchrun in `count` processes on this host."""
    if not options:
        options = ["--standalone"]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.Popen(
        [*command, str(script), *arguments], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen, status: int = 0, seconds: float = 240) -> tuple[str, str]:
    """(stdout, stderr) of a process, which ends with this status."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == status, err[-3000:]
    return out, err


def in_processes(count: int, function, *arguments) -> list:
    """What function(*arguments) returns in each of `count` processes that work together; it has to be importable."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as answers:
        multiprocessing.spawn(_run, (count, port, answers, function, arguments), nprocs=count)
        return [torch.load(Path(answers) / str(number), weights_only=False) for number in range(count)]


def _run(number: int, count: int, port: int, answers: str, function, arguments) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=count)
    torch.save(function(*arguments), Path(answers) / str(number))
    dist.barrier()  # nobody leaves while another still speaks to it
    dist.destroy_process_group()

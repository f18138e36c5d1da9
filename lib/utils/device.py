"""Which device to run on, and which arithmetic suits it."""

import platform
from functools import cache
from pathlib import Path

import torch

from .distributed import local_rank, num_launched
from .errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(name: str) -> torch.device:
    """The device called `name`; auto is a GPU, or the CPU without one.  Of several processes on a host each
    has a GPU of its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and num_launched() > 1:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"DEVICE: '{name}' is no torch device; allowed: auto, cpu, cuda, cuda:0, ...") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"DEVICE: '{name}' was asked for, but torch finds no CUDA device here; allowed: auto, cpu")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"DEVICE: '{name}' cannot be used here ({reason}); allowed: {_usable_devices()}") from error
    return device


def _usable_devices() -> str:
    return ", ".join(["auto", "cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])


def device_name(device: torch.device) -> str:
    """What the maker calls the device; of a CPU with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return str(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """What the maker calls the processor."""
    return _cpu_fact("model name") or platform.processor() or platform.machine() or "CPU"


def int8_instructions() -> tuple[str, ...]:
    """The instructions of this processor, as Linux names them, that multiply int8 faster than fp32; () where it has
    none, or nobody knows."""
    known = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
    flags = (_cpu_fact("flags") or _cpu_fact("Features")).split()
    return tuple(name for name in known if name in flags)


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether this processor has bf16 multiplication (AVX-512 BF16 or AMX), without which bf16 is slower than fp32."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    flags = _cpu_fact("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


@cache
def _cpu_fact(name: str) -> str:
    """A line of /proc/cpuinfo about the first core; '' where there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def resolve_precision(name: str, device: torch.device, training: bool) -> torch.dtype | None:
    """The dtype of automatic mixed precision for 'auto', 'bf16', 'fp16', 'fp32' or 'none'; None is plain fp32.

    auto is bf16 on hardware that multiplies it; else fp16 on a GPU, fp32 on a CPU.  fp16 on a CPU is refused in
    training, where torch has no gradient scaling for it.
    """
    if name in ("fp32", "none"):
        return None
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bf16() else None
    if name == "fp16" and device.type == "cpu" and training:
        raise UserError("TRAIN.AMP: fp16 needs a GPU; on a CPU use auto, bf16 or none")
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype | None):
    """Context in which the network runs in `dtype` (None: unchanged fp32)."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
